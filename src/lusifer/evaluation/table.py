"""Scores of several models side by side, as Markdown; what is missing stays missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lusifer import languages
from lusifer.errors import DataError

TITLES = {
    "sib200_zero_shot": "SIB-200 topics, zero-shot from English (accuracy, %)",
    "sib200_retrieval": "SIB-200, retrieval of the English translation in the dev split (accuracy at 1, %)",
    "sib200_retrieval_204": "SIB-200, retrieval of the translation in part of the train split (accuracy at 1, %)",
    "xquad_to_english": "XQuAD, question in the language, paragraph in English (accuracy at 1, %)",
    "xquad_from_english": "XQuAD, question in English, paragraph in the language (accuracy at 1, %)",
}
GROUPS = {"non_english": "mean of the others than English", "all": "mean of all"}
MISSING = "missing"


def read(folder: Path) -> dict[str, Any]:
    """Read the summary of an evaluation folder.

    Raises:
        DataError: There is none, or it is damaged.
    """
    file = folder / "summary.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise DataError(f"{file}: missing; an evaluation folder is what `lusifer evaluate` writes") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{file}: damaged ({error}); evaluate again") from error


def markdown(summaries: Sequence[dict[str, Any]]) -> str:
    """Lay out one table a task: a row a language, a column a model, then the two means with their intervals.

    Args:
        summaries: As `local.evaluate` returns them; a language that only some measured is missing in the others.

    Returns:
        Markdown, without a line break at the end.
    """
    tasks = list(dict.fromkeys(task for summary in summaries for task in summary["tasks"]))
    return "\n\n".join(_task(task, summaries) for task in tasks)


def _task(task: str, summaries: Sequence[dict[str, Any]]) -> str:
    results = [summary["tasks"].get(task) for summary in summaries]
    known = languages.table()
    codes = [
        code
        for code in known
        if any(result and (code in result["scores"] or code in result["missing"]) for result in results)
    ]
    names = [str(summary["model"]["name"]).replace("|", "\\|") for summary in summaries]
    rows = [["language", *names], ["---", *("---:" for _ in names)]]
    rows += [[f"{known[code].name} ({code})", *(_score(result, code) for result in results)] for code in codes]
    rows += [[label, *(_mean(result, group) for result in results)] for group, label in GROUPS.items()]
    lines = [f"**{TITLES.get(task, task)}**", "", *("| " + " | ".join(row) + " |" for row in rows)]
    reasons = dict.fromkeys(
        f"{name}: {code} is missing: {reason}"
        for name, result in zip(names, results, strict=True)
        if result
        for code, reason in result["missing"].items()
    )
    return "\n".join([*lines, *(["", *(f"- {reason}" for reason in reasons)] if reasons else [])])


def _score(result: dict[str, Any] | None, code: str) -> str:
    return f"{result['scores'][code]:.1f}" if result and code in result["scores"] else MISSING


def _mean(result: dict[str, Any] | None, group: str) -> str:
    """The mean with its interval and the number of languages under it."""
    mean = result["means"][group] if result else None
    if mean is None or mean["value"] is None:
        return MISSING
    return f"{mean['value']:.1f} ({mean['low']:.1f} to {mean['high']:.1f}; {mean['languages']} languages)"
