"""The benchmark suites as data: which tasks of mteb a suite runs for which language; the facts: `benchmark.toml`.

Reading the table imports no mteb. `check` does, and says in words where the table and the installed mteb differ.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from lusifer import extras, languages
from lusifer.errors import UsageError
from lusifer.evaluation.suites import benchmark_cost
from lusifer.evaluation.suites.rows import Row

QUICK = "quick"
QUICK_TEXTS = 8000
"""The most texts of a row of the quick suite."""


def names() -> tuple[str, ...]:
    """Name the suites: `paper`, `cross-lingual`, `lists-only` and `quick`."""
    return (*_table()["rows"], QUICK)


def suite(name: str) -> list[Row]:
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
    table = _table()
    if name == QUICK:
        return _quick(_rows(table, "paper"))
    if name not in table["rows"]:
        raise UsageError(f"suite {name!r} is unknown: use one of {', '.join(names())}")
    return _cheapest_first(_rows(table, name))


def select(
    rows: Sequence[Row], languages: Iterable[str] | None = None, tasks: Iterable[str] | None = None
) -> list[Row]:
    """Choose rows by language and task.

    Args:
        rows: Of a suite.
        languages: ISO 639-1 codes, or None for all.
        tasks: Names in mteb, or None for all.

    Returns:
        The rows of these languages and these tasks, cheapest first. There may be none: not each language has each task.

    Raises:
        UsageError: A language or task is in none of the rows; the message lists those that are.
    """
    languages = _known("language", languages, [row.language for row in rows])
    tasks = _known("task", tasks, [row.task for row in rows])
    return _cheapest_first([row for row in rows if row.language in languages and row.task in tasks])


def check(rows: Sequence[Row]) -> list[str]:
    """Compare rows with the mteb that is installed; needs no network and loads no data.

    Args:
        rows: Of any suites.

    Returns:
        A sentence for each disagreement: a task that is gone, another type, metric or number of texts, a
        split or subset that mteb does not have, a subset in other languages than the row says. [] where they agree.

    Raises:
        MissingExtraError: mteb is not installed.
    """
    mteb = extras.need("eval", "mteb")
    here = f"mteb {mteb.__version__}"
    found: dict[str, Any] = {}
    problems: list[str] = []
    for name in dict.fromkeys(row.task for row in rows):
        try:
            found[name] = mteb.get_task(name)
        except KeyError:
            problems.append(f"{name}: {here} has no such task")
    codes = _codes()
    for row in rows:
        if row.task in found:
            problems += _differences(row, found[row.task], here, codes)
    return list(dict.fromkeys(problems))


def _differences(row: Row, task: Any, here: str, codes: Mapping[str, str]) -> list[str]:
    metadata = task.metadata
    ours_and_theirs = {"type": (row.type, metadata.type), "metric": (row.metric, metadata.main_score)}
    problems = [
        f"{row.task}: {what} {ours!r} here is {theirs!r} in {here}"
        for what, (ours, theirs) in ours_and_theirs.items()
        if ours != theirs
    ]
    if row.split not in metadata.eval_splits:
        problems.append(f"{row.task}: {here} has no split {row.split!r}, only {', '.join(metadata.eval_splits)}")
    there = metadata.hf_subsets_to_langscripts
    absent = [subset for subset in row.subsets if subset not in there]
    problems += [f"{row.task}, {row.language}: {here} has no subset {subset!r}" for subset in absent]
    if absent:
        return problems
    problems += [
        f"{row.task}, {row.language}: subset {subset!r} is in {' and '.join(there[subset])} in {here}"
        for subset in row.subsets
        if not _counts_for(row, [codes.get(code) for code in there[subset]], list(dict.fromkeys(codes.values())))
    ]
    cost = benchmark_cost.texts(task, row.split, row.subsets)
    if cost != row.cost:
        problems.append(f"{row.task}, {row.language}: {row.cost} texts here are {cost} by the statistics of {here}")
    return problems


def _counts_for(row: Row, spoken: Sequence[str | None], order: Sequence[str]) -> bool:
    """Whether a subset in these languages belongs into the row; `order` is that of the paper."""
    if not row.cross_lingual:
        return set(spoken) == {row.language}
    if len(set(spoken)) != 2 or not set(spoken) <= set(order):
        return False
    return max(spoken, key=order.index) == row.language


def _codes() -> dict[str, str]:
    """Mteb's codes of the languages of the paper in their own scripts, as "arb-Arab" -> "ar", in the paper's order."""
    others = _table()["codes"]
    return {
        f"{code}-{script}": language.code
        for language in languages.paper()
        for code in (language.code3, *others["languages"].get(language.code, ()))
        for script in (language.script, *(name for name, same in others["scripts"].items() if same == language.script))
    }


def _table() -> dict[str, Any]:
    file = resources.files("lusifer.evaluation.suites").joinpath("benchmark.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _rows(table: Mapping[str, Any], name: str) -> list[Row]:
    return [_row(table, row, cross_lingual=name == "cross-lingual") for row in table["rows"][name]]


def _row(table: Mapping[str, Any], row: Mapping[str, Any], *, cross_lingual: bool) -> Row:
    task = table["tasks"][row["task"]]
    return Row(
        language=row["language"],
        task=row["task"],
        type=task["type"],
        subsets=tuple(row["subsets"]),
        split=task["split"],
        metric=task["metric"],
        **table["prompts"][task["prompt"]],
        cross_lingual=cross_lingual,
        cost=row.get("cost"),
        figure=task.get("in_figure", row["task"]) or None,
    )


def _quick(rows: Sequence[Row]) -> list[Row]:
    """Choose; of tasks in equally many languages the cheapest, and of those the first by name."""
    small = [row for row in rows if row.cost is not None and row.cost <= QUICK_TEXTS]
    spread = Counter(row.figure for row in small)
    chosen: dict[tuple[str, str], Row] = {}
    for row in sorted(small, key=lambda row: (-spread[row.figure], row.cost, row.task)):
        chosen.setdefault((row.language, row.type), row)
    return _cheapest_first([row for row in rows if row in chosen.values()])


def _cheapest_first(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.cost is None, row.cost or 0))


def _known(what: str, asked: Iterable[str] | None, there: Sequence[str]) -> set[str]:
    known = dict.fromkeys(there)
    wanted = set(known if asked is None else asked)
    unknown = sorted(wanted - set(known))
    if unknown:
        raise UsageError(f"{what} {unknown[0]!r} is in none of these rows: use one of {', '.join(known)}")
    return wanted
