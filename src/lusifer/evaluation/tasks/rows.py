"""The rows of a suite: one for each task and language."""

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
        language: Lusifer's code of the language to which the score belongs.
        task: Name of the task; for tasks of mteb their name there.
        type: mteb's type of task ("Classification", "STS", ...).
        subsets: mteb's subsets of the language; the score is the mean over them.
        split: The split that is tested.
        metric: The main metric, by its name in mteb.
        instruction: Instruction before a query, for a model that was trained with instructions; None for none.
        symmetric: Whether documents get the instruction too.
        cross_lingual: Whether two languages or more take part. Such rows are never averaged with the others.
        cost: Number of texts to embed; None if it is not known.
        figure: Name in figure 2 of the paper; None if the figure does not name the task.
        title: Description for tables; None for the name of the task.
        texts: Name of the texts that the ids of the examples refer to, if other tasks have the same texts.
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
        """Language and task: the key of the score in a summary."""
        return self.language, self.task

    def prompts(self, instructed: bool = True) -> dict[Role, str]:
        """Give the prompt of each role; both are empty for a model that was trained without instructions."""
        instruction = self.instruction if instructed else None
        return {role: prompt(instruction, role, symmetric=self.symmetric) for role in ROLES}


def fingerprint(rows: Iterable[SuiteRow], instructed: bool) -> str:
    """Hash rows and prompts; the order of the rows does not matter.

    Cost, title, figure and texts are left out, because none of them changes a score.

    Args:
        rows: The rows of an evaluation.
        instructed: Whether the model was trained with instructions.

    Returns:
        12 hexadecimal digits.
    """
    dropped = {"cost": None, "title": None, "figure": None}

    def said(row: SuiteRow) -> dict[str, Any]:
        known = {**asdict(row), **dropped, "prompts": row.prompts(instructed)}
        del known["texts"]  # evaluations that began before the field existed can be resumed
        return known

    lines = sorted(json.dumps(said(row), sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def select(
    rows: Sequence[SuiteRow], languages: Iterable[str] | None = None, tasks: Iterable[str] | None = None
) -> list[SuiteRow]:
    """Choose rows by language and task.

    Args:
        rows: The rows of a suite.
        languages: Codes of languages; None for all.
        tasks: Names of tasks; None for all.

    Returns:
        The rows, cheapest first. The list may be empty, because not each language has each task.

    Raises:
        UsageError: A language or task is in none of the rows; the message lists the known ones.
    """
    languages = _known("language", languages, [row.language for row in rows])
    tasks = _known("task", tasks, [row.task for row in rows])
    return cheapest_first([row for row in rows if row.language in languages and row.task in tasks])


def cheapest_first(rows: Iterable[SuiteRow]) -> list[SuiteRow]:
    """Sort rows by cost; rows of unknown cost come last."""
    return sorted(rows, key=lambda row: (row.cost is None, row.cost or 0))


def _known(what: str, asked: Iterable[str] | None, names: Sequence[str]) -> set[str]:
    known = dict.fromkeys(names)
    wanted = set(known if asked is None else asked)
    unknown = sorted(wanted - set(known))
    if unknown:
        raise UsageError(f"{what} {unknown[0]!r} is not in this suite: use one of {', '.join(known)}")
    return wanted
