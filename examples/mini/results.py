"""The table of README and model card, from files of `lusifer evaluate`.

    cd benchmarks/results && python ../../examples/mini/results.py MiniLM=minilm-offline.json mini=mini-offline.json

One row a language, one column a task and model; the last row is the mean over the languages other than English that
have a score, with its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lusifer import languages

TASKS = {
    "sib200_zero_shot": "topics",
    "sib200_retrieval_204": "translation found",
    "xquad_to_english": "XQuAD, to English",
    "xquad_from_english": "XQuAD, from English",
}


def table(summaries: dict[str, dict]) -> str:
    """Lay the scores out as Markdown; a dash where a language is not in the task."""
    names = list(summaries)
    heads = [f"{title}: {names[0]}" if number == 0 else name for title in TASKS.values()
             for number, name in enumerate(names)]  # fmt: skip
    lines = ["| language | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
    found = [summary["tasks"][task] for task in TASKS for summary in summaries.values()]
    for code, language in languages.table().items():
        if any(code in result["scores"] for result in found):
            cells = (f"{result['scores'][code]:.1f}" if code in result["scores"] else "–" for result in found)
            lines.append(f"| {language.name} ({code}) | " + " | ".join(cells) + " |")
    means = (result["means"]["non_english"] for result in found)
    cells = (f"**{mean['value']:.1f}** ({mean['low']:.1f} to {mean['high']:.1f})" for mean in means)
    lines.append("| **mean without English** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="The table of README and model card.")
    parser.add_argument("models", nargs="+", metavar="NAME=FILE", help="a summary.json, and its name")
    options = parser.parse_args()
    summaries = {}
    for words in options.models:
        name, sign, file = words.partition("=")
        if not sign or not Path(file).is_file():
            parser.error(f"{words}: expected NAME=FILE with a file that is there")
        summaries[name] = json.loads(Path(file).read_text(encoding="utf-8"))
    sys.stdout.write(table(summaries) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
