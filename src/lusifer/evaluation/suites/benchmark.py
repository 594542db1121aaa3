"""The benchmark suites: mteb's tasks for each language, and published scores of other models.

The tables are in `benchmark.toml` and `published.toml`. Reading them imports no mteb; a test compares them with the
installed mteb (`tests/support/suite_table.py`).
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
"""Suites whose subsets have two languages."""
QUICK_TEXTS = 8000
"""Rows of the quick suite have at most this number of texts."""


def names() -> tuple[str, ...]:
    """Give the names of the suites: `paper`, `cross-lingual`, `robust-hub`, `lists-only` and `quick`."""
    return (*table()["rows"], QUICK)


def suite(name: str) -> list[SuiteRow]:
    """Give the rows of a suite, cheapest first.

    - `paper`: the tasks of figure 2 of the paper, each for the languages in the authors' lists, on subsets of one
      language.
    - `cross-lingual`: the subsets of two languages.
    - `lists-only`: tasks that the lists name and the figure does not.
    - `robust-hub`: questions and sentences that people romanized or mixed with English, and the unchanged questions of
      Belebele.
    - `quick`: rows of `paper` with at most `QUICK_TEXTS` texts, in the tasks that best predict the mean of a language's
      other tasks over public models (`[quick]` in `benchmark.toml`).

    Raises:
        UsageError: There is no such suite; the message lists the known ones.
    """
    facts = table()
    if name == QUICK:
        rows = [row for row in _rows(facts, "paper") if row.task in facts[QUICK]["tasks"]]
        return cheapest_first(row for row in rows if row.cost is not None and row.cost <= QUICK_TEXTS)
    if name not in facts["rows"]:
        raise UsageError(f"suite {name!r} is unknown: use one of {', '.join(names())}")
    return cheapest_first(_rows(facts, name))


def make(rows: Sequence[SuiteRow]) -> Any:
    """Make mteb's task of some rows; its data are not loaded yet.

    Args:
        rows: Rows of the same task.

    Returns:
        An instance of mteb's task.

    Raises:
        KeyError: The installed mteb has no such task.
    """
    import mteb

    return mteb.get_task(rows[0].task)


def table(name: str = "benchmark.toml") -> dict[str, Any]:
    """Read the table of the suites, or another TOML file next to this module."""
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
    """Read a published table.

    Args:
        name: "by_language" or "cross_lingual".

    Returns:
        Model -> language or dataset -> score in percent.
    """
    facts = table("published.toml")[name]
    return {model: dict(zip(facts["columns"], row["scores"], strict=True)) for model, row in facts["models"].items()}


def covers(name: str) -> set[tuple[str, str]]:
    """Give the scores behind the averages of a published table, as far as the authors' lists tell.

    Your scores are comparable with a published average only if all of these were measured.

    Args:
        name: "by_language" or "cross_lingual".

    Returns:
        Language and task of each score.
    """
    facts = table("published.toml")[name]
    also = {(language, task) for language, tasks in facts.get("also", {}).items() for task in tasks}
    return also | {row.key for row in suite(facts["suite"])}
