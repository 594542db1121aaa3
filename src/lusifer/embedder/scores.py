"""Scores by language for a model card: what is missing stays missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lusifer import languages
from lusifer.embedder.card import SCORES, table
from lusifer.errors import UsageError
from lusifer.io.markdown import bullets

MISSING = "missing"


@dataclass(frozen=True)
class Score:
    """One number in percent; a `value` of None is missing, for the `reason`."""

    task: str
    language: str
    value: float | None
    reason: str = ""


def rows(summary: Mapping[str, Any]) -> list[Score]:
    """The scores in the `summary.json` that `lusifer evaluate` writes.

    Args:
        summary: The file's content.

    Returns:
        A row a task and language; the metric stands behind the title of the task.
    """
    return [
        Score(f"{entry['title']} ({entry['metric']}, %)", entry["language"], entry["score"], entry["missing"] or "")
        for entry in summary["scores"]
    ]


def with_scores(card: str, scores: Sequence[Score], measured: str) -> str:
    """Put scores into the text of a card, in the place of those it has.

    Args:
        card: The text of README.md.
        scores: In any order; a task without a row for a language is missing there.
        measured: What was measured, on which data: a sentence.

    Raises:
        UsageError: There is no score, or the card has no place for them.
    """
    before, begin, rest = card.partition(SCORES[0])
    _, end, after = rest.partition(SCORES[1])
    if not (begin and end):
        raise UsageError(f"the card has no place for scores: put the lines {SCORES[0]} and {SCORES[1]} into it")
    if not scores:
        raise UsageError("no score was given: the card stays as it is")
    known = languages.table()
    tasks = list(dict.fromkeys(score.task for score in scores))
    found = {(score.task, score.language): score for score in scores}
    given = list(dict.fromkeys(score.language for score in scores))
    codes = [code for code in known if code in given] + [code for code in given if code not in known]
    lines = [
        {"language": f"{known[code].name} ({code})" if code in known else code}
        | {task: _value(found.get((task, code))) for task in tasks}
        for code in codes
    ]
    reasons = dict.fromkeys(f"{s.language} is missing: {s.reason}" for s in scores if s.value is None and s.reason)
    content = "\n\n".join(part for part in (measured, table(lines), bullets(reasons)) if part)
    return f"{before}{begin}\n{content}\n{end}{after}"


def _value(score: Score | None) -> str:
    return MISSING if score is None or score.value is None else f"{score.value:.1f}"
