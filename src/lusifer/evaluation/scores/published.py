"""Scores that others published, to set ours beside them; the facts: `published.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from lusifer.errors import UsageError
from lusifer.evaluation.suites import benchmark


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    Attributes:
        model: Name as published.
        multilingual_data: Whether the model was trained on multilingual data, by the grouping of the paper.
        scores: Percent by language, or by data set.
        average: The published average, percent with two decimals.
        source: Where it was published.
    """

    model: str
    multilingual_data: bool
    scores: dict[str, float]
    average: float
    source: str


def tables() -> tuple[str, ...]:
    """Name the published tables: `by_language` (table 1 of the paper) and `cross_lingual` (table 2)."""
    return tuple(_read())


def rows(table: str) -> list[Published]:
    """Give a published table, in its order.

    Raises:
        UsageError: There is no such table; the message lists those there are.
    """
    known = _read()
    if table not in known:
        raise UsageError(f"table {table!r} is unknown: use one of {', '.join(known)}")
    facts = known[table]
    return [
        Published(
            model=model,
            multilingual_data=row["multilingual_data"],
            scores=dict(zip(facts["columns"], row["scores"], strict=True)),
            average=row["average"],
            source=facts["source"],
        )
        for model, row in facts["models"].items()
    ]


def covers(table: str) -> set[tuple[str, str]]:
    """Give the language and task of every score under the rows of a published table, as far as the lists tell.

    Ours may stand beside a published average only where all of these were run.

    Raises:
        UsageError: There is no such table.
    """
    rows(table)
    facts = _read()[table]
    also = {(language, task) for language, tasks in facts.get("also", {}).items() for task in tasks}
    return also | {(row.language, row.task) for row in benchmark.suite(facts["suite"])}


def _read() -> dict[str, Any]:
    file = resources.files("lusifer.evaluation.scores").joinpath("published.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))
