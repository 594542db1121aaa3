"""The benchmark as data: which tasks of mteb a suite runs for which language, and the scores that others published.

The facts are in `benchmark.toml` and `published.toml`. Reading them imports no mteb; a test compares them with the one
that is installed (`tests/support/suite_table.py`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from lusifer.errors import UsageError
from lusifer.evaluation.tasks.rows import SuiteRow, cheapest_first

QUICK = "quick"
PAIRED = ("cross-lingual", "robust-hub")
"""Suites whose subsets are of two languages."""
QUICK_TEXTS = 8000
"""The most texts of a row of the quick suite."""


def names() -> tuple[str, ...]:
    """Name the suites: `paper`, `cross-lingual`, `robust-hub`, `lists-only` and `quick`."""
    return (*table()["rows"], QUICK)


def suite(name: str) -> list[SuiteRow]:
    """Give the rows of a suite, cheapest first.

    `paper` has the tasks of figure 2, each for the languages for which the authors' lists name it, on subsets of one
    language. `cross-lingual` has the subsets of two languages. `lists-only` has what the lists name and the figure does
    not. `robust-hub` has questions and sentences that people romanised or mixed with English, and the questions of
    Belebele as they are written. `quick` has the rows of `paper` that read no more than `QUICK_TEXTS` texts in the
    tasks that predict best, over public models, the mean of a language's other tasks (`[quick]` in `benchmark.toml`).

    Raises:
        UsageError: There is no such suite; the message lists those there are.
    """
    facts = table()
    if name == QUICK:
        rows = [row for row in _rows(facts, "paper") if row.task in facts[QUICK]["tasks"]]
        return cheapest_first(row for row in rows if row.cost is not None and row.cost <= QUICK_TEXTS)
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


def table(name: str = "benchmark.toml") -> dict[str, Any]:
    """Read the facts of the suites, or those of another file beside this one."""
    return tomllib.loads(resources.files("lusifer.evaluation.suites").joinpath(name).read_text(encoding="utf-8"))


def _rows(facts: Mapping[str, Any], name: str) -> list[SuiteRow]:
    return [
        SuiteRow(
            language=row["language"],
            task=row["task"],
            type=task["type"],
            subsets=tuple(row["subsets"]),
            split=task["split"],
            metric=task["metric"],
            **facts["prompts"][task["prompt"]],
            cross_lingual=name in PAIRED,
            cost=row.get("cost"),
            figure=task.get("in_figure", row["task"]) or None,
        )
        for row in facts["rows"][name]
        for task in [facts["tasks"][row["task"]]]
    ]


def published(name: str) -> dict[str, dict[str, float]]:
    """Give a published table, "by_language" or "cross_lingual": model -> language or data set -> score in percent."""
    facts = table("published.toml")[name]
    return {model: dict(zip(facts["columns"], row["scores"], strict=True)) for model, row in facts["models"].items()}


def covers(name: str) -> set[tuple[str, str]]:
    """Give the language and task of every score under the rows of a published table, as far as the lists tell.

    Ours may stand beside a published average only where all of these were run.
    """
    facts = table("published.toml")[name]
    also = {(language, task) for language, tasks in facts.get("also", {}).items() for task in tasks}
    return also | {row.key for row in suite(facts["suite"])}
