"""The tables of README and model card, from evaluation folders.

    python examples/mini/results.py MiniLM=scores/minilm mini=scores/mini

A table a task: a row a language, a column a model, each score with its 95 % interval. A mean is over the languages
other than English that the task has files for, its interval by bootstrap over sentences or questions.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lusifer import languages
from lusifer.errors import LusiferError
from lusifer.evaluation.scores import results
from lusifer.evaluation.scores.averages import boards
from lusifer.evaluation.scores.results import Results

TASKS = {
    "SIB200ZeroShotTopics": ("topics", "SIB200Topics"),
    "SIB200TranslationToEnglish": ("translation found", None),
    "XQuADToEnglish": ("XQuAD, to English", "XQuADParagraphs"),
    "XQuADFromEnglish": ("XQuAD, from English", "XQuADParagraphs"),
}
"""Title, and the task that is the same for English alone."""
Interval = tuple[float | None, float | None, float | None]


def cell(score: Interval) -> str:
    """A score with its interval, a dash where there is none."""
    value, low, high = score
    return "–" if value is None else f"{value:.1f}" + ("" if low is None else f" ({low:.0f}–{high:.0f})")


def table(task: str, models: dict[str, Results]) -> str:
    """Lay the scores of one task out as Markdown, a column a model."""
    title, english = TASKS[task]
    found = {
        name: {
            entry.language: (entry.score, entry.low, entry.high)
            for entry in model.scores
            if entry.task == task or (entry.task == english and entry.language == "en")
        }
        for name, model in models.items()
    }
    lines = [f"| {title} | " + " | ".join(models) + " |", "|---|" + "--:|" * len(models)]
    for code, language in languages.table().items():
        row = [scores.get(code, (None, None, None)) for scores in found.values()]
        if any(score[0] is not None for score in row):
            lines.append(f"| {language.name} ({code}) | " + " | ".join(map(cell, row)) + " |")
    held = boards([model.part(cross_lingual=True) for model in models.values()])
    keys = [key for key, entry in held[0].entries.items() if key[1] == task and entry.score is not None]
    means = [board.mean(keys) for board in held]
    cells = (
        "–"
        if not mean.complete
        else f"**{mean.value:.1f}**" + ("" if mean.low is None else f" ({mean.low:.1f}–{mean.high:.1f})")
        for mean in means
    )
    lines.append("| **mean without English** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="The tables of README and model card.")
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER", help="an evaluation folder, and its name")
    options = parser.parse_args()
    models = {}
    for words in options.models:
        name, sign, folder = words.partition("=")
        if not sign:
            parser.error(f"{words}: expected NAME=FOLDER")
        try:
            models[name] = results.read(Path(folder))
        except LusiferError as error:
            parser.error(str(error))
    sys.stdout.write("\n\n".join(table(task, models) for task in TASKS) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
