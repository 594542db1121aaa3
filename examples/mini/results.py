"""The table of README and model card, from files of `lusifer evaluate`.

    cd benchmarks/results && python ../../examples/mini/results.py MiniLM=minilm-offline.json mini=mini-offline.json

A table a task: a row a language, a column a model, each score with its 95 % interval: Wilson's for one language, for
the mean over the languages other than English the one of the file, by bootstrap over sentences.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from lusifer import languages

TASKS = {
    "sib200_zero_shot": ("topics", 99),
    "sib200_retrieval_204": ("translation found", 204),
    "xquad_to_english": ("XQuAD, to English", 1190),
    "xquad_from_english": ("XQuAD, from English", 1190),
}
"""Title, and the texts of one language that are right or wrong."""


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of `count` (Wilson 1927)."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def cell(result: dict, code: str, count: int) -> str:
    """A score with its interval, a dash where there is none."""
    if code not in result["scores"]:
        return "–"
    low, high = wilson(result["scores"][code] / 100, count)
    return f"{result['scores'][code]:.1f} ({100 * low:.0f}–{100 * high:.0f})"


def table(task: str, summaries: dict[str, dict]) -> str:
    """Lay the scores of one task out as Markdown, a column a model."""
    title, count = TASKS[task]
    results = [summary["tasks"][task] for summary in summaries.values()]
    lines = [f"| {title} | " + " | ".join(summaries) + " |", "|---|" + "--:|" * len(summaries)]
    for code, language in languages.table().items():
        if any(code in result["scores"] for result in results):
            cells = (cell(result, code, count) for result in results)
            lines.append(f"| {language.name} ({code}) | " + " | ".join(cells) + " |")
    means = (result["means"]["non_english"] for result in results)
    cells = (f"**{mean['value']:.1f}** ({mean['low']:.1f}–{mean['high']:.1f})" for mean in means)
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
    sys.stdout.write("\n\n".join(table(task, summaries) for task in TASKS) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
