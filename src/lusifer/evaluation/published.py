"""Scores that others published, and the means by which ours are set beside them; the facts: `published.toml`."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from importlib import resources
from typing import Any

from lusifer import languages
from lusifer.errors import DataError, UsageError
from lusifer.evaluation import benchmark

Entry = Mapping[str, Any]
"""One score of an evaluation's `summary.json`: language, task, cross_lingual, subsets, score (percent or None)."""


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


@dataclass(frozen=True)
class Mean:
    """An average and what is under it.

    Attributes:
        value: Unrounded, in the unit of what was averaged; None where nothing is there.
        of: How many values are under it.
        missing: What should be under it and is not.
    """

    value: float | None
    of: int
    missing: tuple[str, ...] = ()


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


def average(scores: Mapping[str, float | None], weights: Mapping[str, int] | None = None) -> Mean:
    """Average scores; what is missing is listed and not counted.

    Args:
        scores: By name; None where there is none.
        weights: How often each counts; None counts each once.

    Returns:
        The mean, not rounded.

    Raises:
        DataError: A score is not a finite number.
    """
    present = {name: score for name, score in scores.items() if score is not None}
    for name, score in present.items():
        if not math.isfinite(score):
            raise DataError(f"{name}: the score is {score}: give a number, or None and the reason")
    counts = {name: 1 if weights is None else weights[name] for name in present}
    value = sum(score * counts[name] for name, score in present.items()) / sum(counts.values()) if present else None
    return Mean(value, len(present), tuple(name for name in scores if name not in present))


def average_by_language(entries: Sequence[Entry], *, cross_lingual: bool = False) -> dict[str, Mean]:
    """Average over the tasks of each language, each task counting once.

    Args:
        entries: Scores of one evaluation, of any suites.
        cross_lingual: Whether to average the entries that pair languages, or those that do not. Never both.

    Returns:
        Means by language: those of the paper in its order, then others. `missing` names tasks.

    Raises:
        DataError: Two entries have one language and task.
    """
    grouped = _grouped(entries, "language", "task", cross_lingual)
    order = list(languages.table())
    codes = sorted(grouped, key=lambda code: order.index(code) if code in order else len(order))
    return {code: average({name: entry["score"] for name, entry in grouped[code].items()}) for code in codes}


def average_by_task(entries: Sequence[Entry], *, cross_lingual: bool = True) -> dict[str, Mean]:
    """Average over the languages of each task, each subset counting once, as in table 2 of the paper.

    A cross-lingual entry is the mean over the pairs that count for its language, so it weighs as many as it has.

    Args:
        entries: Scores of one evaluation, of any suites.
        cross_lingual: As in `average_by_language`.

    Returns:
        Means by task, in the order of the entries. `missing` names languages.

    Raises:
        DataError: Two entries have one language and task.
    """
    means = {}
    for task, group in _grouped(entries, "task", "language", cross_lingual).items():
        weights = {code: len(entry["subsets"]) for code, entry in group.items()}
        means[task] = average({code: entry["score"] for code, entry in group.items()}, weights)
    return means


def average_by_level(by_language: Mapping[str, float | None]) -> dict[str, Mean]:
    """Average over the languages of each resource level, each language counting once.

    Args:
        by_language: Averages by code; a language that is not in it counts as missing.

    Returns:
        Means by level, for the 14 languages of the paper. `missing` names languages.
    """
    return {
        level: average({one.code: by_language.get(one.code) for one in languages.paper() if one.level == level})
        for level in languages.LEVELS
    }


def rounded(value: float) -> float:
    """Round to two decimals as the published tables do: a half goes up.

    What is left of a decimal fraction in binary (1e-9 and less) goes first: 0.125 stays a half, however it was summed.
    """
    return float(Decimal(repr(round(value, 9))).quantize(Decimal("0.01"), ROUND_HALF_UP))


def _grouped(entries: Sequence[Entry], outer: str, inner: str, cross_lingual: bool) -> dict[str, dict[str, Entry]]:
    grouped: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        if entry["cross_lingual"] != cross_lingual:
            continue
        group = grouped.setdefault(entry[outer], {})
        if entry[inner] in group:
            raise DataError(f"{entry['task']}, {entry['language']}: two scores of one language and task: keep one")
        group[entry[inner]] = entry
    return grouped


def _read() -> dict[str, Any]:
    file = resources.files("lusifer.evaluation").joinpath("published.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))
