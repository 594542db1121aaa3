"""The tables of README and model card, from evaluation folders.

    python examples/mini/results.py MiniLM=scores/minilm mini=scores/mini

First means and English, then a table a task: a row a language, a column a model, each score with its 95 % interval. A
mean is over the languages other than English that the task has files for, its interval by bootstrap over sentences or
questions.
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
ENGLISH = {"SIB200Topics": "topics", "XQuADParagraphs": "XQuAD", "STSFile": "similarity"}
Interval = tuple[float | None, float | None, float | None]


def cell(score: Interval, digits: int = 0) -> str:
    """A score with its interval, a dash where there is none."""
    value, low, high = score
    return "–" if value is None else f"{value:.1f}" + ("" if low is None else f" ({low:.{digits}f}–{high:.{digits}f})")


def means(task: str, models: dict[str, Results]) -> list[Interval]:
    """Of each model the mean over the languages other than English, none where one of them is missing."""
    held = boards([model.part(cross_lingual=True) for model in models.values()])
    keys = [key for key, entry in held[0].entries.items() if key[1] == task and entry.score is not None]
    found = [board.mean(keys) for board in held]
    return [(mean.value, mean.low, mean.high) if mean.complete else (None, None, None) for mean in found]


def scores(model: Results, *tasks: str | None) -> dict[str, Interval]:
    """Language -> score in the first of the tasks, and English in any of them."""
    return {
        entry.language: (entry.score, entry.low, entry.high)
        for entry in model.scores
        if entry.task == tasks[0] or (entry.task in tasks and entry.language == "en")
    }


def summary(models: dict[str, Results]) -> str:
    """Lay the means and English out as Markdown, a column a model."""
    lines = ["| per cent | " + " | ".join(models) + " |", "|---|" + "--:|" * len(models)]
    for task, (title, _) in TASKS.items():
        lines.append(
            f"| {title}, without English | " + " | ".join(cell(mean, 1) for mean in means(task, models)) + " |"
        )
    for task, title in ENGLISH.items():
        found = [scores(model, task).get("en", (None, None, None)) for model in models.values()]
        lines.append(f"| {title}, English | " + " | ".join(cell(score, 1) for score in found) + " |")
    return "\n".join(lines)


def table(task: str, models: dict[str, Results]) -> str:
    """Lay the scores of one task out as Markdown, a row a language, a column a model."""
    title, english = TASKS[task]
    found = {name: scores(model, task, english) for name, model in models.items()}
    lines = [f"| {title} | " + " | ".join(models) + " |", "|---|" + "--:|" * len(models)]
    for code, language in languages.table().items():
        row = [known.get(code, (None, None, None)) for known in found.values()]
        if any(score[0] is not None for score in row):
            lines.append(f"| {language.name} ({code}) | " + " | ".join(map(cell, row)) + " |")
    bold = (f"**{mean[0]:.1f}**" + cell(mean, 1).removeprefix(f"{mean[0]:.1f}") if mean[0] is not None else "–"
            for mean in means(task, models))  # fmt: skip
    lines.append("| **mean without English** | " + " | ".join(bold) + " |")
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
    sys.stdout.write("\n\n".join([summary(models), *(table(task, models) for task in TASKS)]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
