"""What a suite is made of: one row a language and task, as data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from lusifer.prompts import ROLES, Role, prompt

LOCAL = ("offline", "sample")
"""Suites of our own tasks, which read no hub."""


@dataclass(frozen=True)
class Row:
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

    def prompts(self, instructed: bool = True) -> dict[Role, str]:
        """Give the prefix of each role, as `lusifer.prompts` makes it.

        Args:
            instructed: False for a model that was trained without instructions: both are empty.
        """
        instruction = self.instruction if instructed else None
        return {role: prompt(instruction, role, symmetric=self.symmetric) for role in ROLES}


def fingerprint(rows: Iterable[Row], instructed: bool) -> str:
    """Name what is measured: 12 hexadecimal digits over rows and prompts, in whatever order the rows come.

    What a row costs and what it is called in tables do not count: neither changes a score.
    """
    told = sorted(
        json.dumps(
            {**asdict(row), "cost": None, "title": None, "figure": None, "prompts": row.prompts(instructed)},
            sort_keys=True,
        )
        for row in rows
    )
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
