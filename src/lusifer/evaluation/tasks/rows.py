"""What a suite is made of: one row for each task and language."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lusifer.errors import UsageError
from lusifer.prompts import ROLES, Role, prompt


@dataclass(frozen=True)
class SuiteRow:
    """One language of one task.

    Attributes:
        language: Our code of the language that the score counts for.
        task: Name of the task, mteb's where it is one of its.
        type: mteb's type ("Classification", "STS", ...).
        subsets: mteb's subsets that belong to the language; the score is the mean over them.
        split: The split that is tested.
        metric: The main metric, in mteb's word.
        instruction: What stands before a query for a model that was trained with instructions; None for nothing.
        symmetric: Whether documents carry the instruction too.
        cross_lingual: Whether more than one language takes part: such rows are in no mean with the others.
        cost: Texts to embed; None where that is not known.
        figure: Name in figure 2 of the paper; None where only the authors' lists name the task, or it is ours.
        title: In words, for tables; the name of the task where there are none.
        texts: What the ids of its examples are ids of, where other tasks have the same texts.
    """

    language: str
    task: str
    type: str
    subsets: tuple[str, ...]
    split: str
    metric: str
    instruction: str | None = None
    symmetric: bool = False
    cross_lingual: bool = False
    cost: int | None = None
    figure: str | None = None
    title: str | None = None
    texts: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Language and task, as of an entry of a summary."""
        return self.language, self.task

    def prompts(self, instructed: bool = True) -> dict[Role, str]:
        """Give the prefix of each role; both are empty for a model that was trained without instructions."""
        instruction = self.instruction if instructed else None
        return {role: prompt(instruction, role, symmetric=self.symmetric) for role in ROLES}


def fingerprint(rows: Iterable[SuiteRow], instructed: bool) -> str:
    """Hash what is measured: 12 hexadecimal digits over rows and prompts, whatever the order of the rows.

    Cost, title and texts are left out, because none of them changes a score.
    """
    dropped = {"cost": None, "title": None, "figure": None}

    def said(row: SuiteRow) -> dict[str, Any]:
        known = {**asdict(row), **dropped, "prompts": row.prompts(instructed)}
        del known["texts"]  # folders made before there was such a field go on
        return known

    lines = sorted(json.dumps(said(row), sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def select(
    rows: Sequence[SuiteRow], languages: Iterable[str] | None = None, tasks: Iterable[str] | None = None
) -> list[SuiteRow]:
    """Choose rows by language and task.

    Args:
        rows: Of a suite.
        languages: ISO 639-1 codes, or None for all.
        tasks: Names in mteb, or None for all.

    Returns:
        The rows, cheapest first. There may be none: not each language has each task.

    Raises:
        UsageError: A language or task is in none of the rows; the message lists those that are.
    """
    languages = _known("language", languages, [row.language for row in rows])
    tasks = _known("task", tasks, [row.task for row in rows])
    return cheapest_first([row for row in rows if row.language in languages and row.task in tasks])


def cheapest_first(rows: Iterable[SuiteRow]) -> list[SuiteRow]:
    """Sort rows by their cost; those of unknown cost come last."""
    return sorted(rows, key=lambda row: (row.cost is None, row.cost or 0))


def _known(what: str, asked: Iterable[str] | None, names: Sequence[str]) -> set[str]:
    known = dict.fromkeys(names)
    wanted = set(known if asked is None else asked)
    unknown = sorted(wanted - set(known))
    if unknown:
        raise UsageError(f"{what} {unknown[0]!r} is not in this suite: use one of {', '.join(known)}")
    return wanted
