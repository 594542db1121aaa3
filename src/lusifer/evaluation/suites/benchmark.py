"""The benchmark as data: which tasks of mteb a suite runs for which language, and the scores that others published.

The facts are in `benchmark.toml` and `published.toml`. Reading them imports no mteb; a test compares them with the one
that is installed (`tests/support/suite_table.py`).
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from lusifer.errors import UsageError
from lusifer.evaluation.suites.rows import SuiteRow, cheapest_first

QUICK = "quick"
QUICK_TEXTS = 8000
"""The most texts of a row of the quick suite."""


def names() -> tuple[str, ...]:
    """Name the suites: `paper`, `cross-lingual`, `lists-only` and `quick`."""
    return (*table()["rows"], QUICK)


def suite(name: str) -> list[SuiteRow]:
    """Give the rows of a suite, cheapest first.

    `paper` has the tasks of figure 2, each for the languages for which the authors' lists name it, on subsets of one
    language. `cross-lingual` has the subsets of two languages. `lists-only` has what the lists name and the figure does
    not. `quick` is chosen from `paper`: for each language and type, of the tasks that read no more than `QUICK_TEXTS`
    texts, the one that the most languages have.

    Args:
        name: One of `names()`.

    Returns:
        The rows; those of unknown cost come last, rows of one cost in the order of the table.

    Raises:
        UsageError: There is no such suite; the message lists those there are.
    """
    facts = table()
    if name == QUICK:
        return _quick(_rows(facts, "paper"))
    if name not in facts["rows"]:
        raise UsageError(f"suite {name!r} is unknown: use one of {', '.join(names())}")
    return cheapest_first(_rows(facts, name))


def make(rows: Sequence[SuiteRow]) -> Any:
    """Make mteb's task of rows that share it, its data not yet loaded.

    Raises:
        KeyError: The installed mteb has no such task.
    """
    import mteb

    return mteb.get_task(rows[0].task)


def table() -> dict[str, Any]:
    """Read the facts of the suites."""
    return _facts("benchmark.toml")


def _facts(name: str) -> dict[str, Any]:
    file = resources.files("lusifer.evaluation.suites").joinpath(name)
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _rows(facts: Mapping[str, Any], name: str) -> list[SuiteRow]:
    return [_row(facts, row, cross_lingual=name == "cross-lingual") for row in facts["rows"][name]]


def _row(facts: Mapping[str, Any], row: Mapping[str, Any], *, cross_lingual: bool) -> SuiteRow:
    task = facts["tasks"][row["task"]]
    return SuiteRow(
        language=row["language"],
        task=row["task"],
        type=task["type"],
        subsets=tuple(row["subsets"]),
        split=task["split"],
        metric=task["metric"],
        **facts["prompts"][task["prompt"]],
        cross_lingual=cross_lingual,
        cost=row.get("cost"),
        figure=task.get("in_figure", row["task"]) or None,
    )


def _quick(rows: Sequence[SuiteRow]) -> list[SuiteRow]:
    """Choose; of tasks in equally many languages the cheapest, and of those the first by name."""
    small = [row for row in rows if row.cost is not None and row.cost <= QUICK_TEXTS]
    spread = Counter(row.figure for row in small)
    chosen: dict[tuple[str, str], SuiteRow] = {}
    for row in sorted(small, key=lambda row: (-spread[row.figure], row.cost, row.task)):
        chosen.setdefault((row.language, row.type), row)
    return cheapest_first([row for row in rows if row in chosen.values()])


@dataclass(frozen=True)
class PublishedScores:
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


def published_tables() -> tuple[str, ...]:
    """Name the published tables: `by_language` (table 1 of the paper) and `cross_lingual` (table 2)."""
    return tuple(_facts("published.toml"))


def published(table: str) -> list[PublishedScores]:
    """Give a published table, in its order.

    Raises:
        UsageError: There is no such table; the message lists those there are.
    """
    known = _facts("published.toml")
    if table not in known:
        raise UsageError(f"table {table!r} is unknown: use one of {', '.join(known)}")
    facts = known[table]
    return [
        PublishedScores(
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
    published(table)
    facts = _facts("published.toml")[table]
    also = {(language, task) for language, tasks in facts.get("also", {}).items() for task in tasks}
    return also | {(row.language, row.task) for row in suite(facts["suite"])}
