"""Compare the table of the benchmark suites with the mteb that is installed; the tests do so, after each upgrade.

How many texts a model reads in a task comes from the statistics that mteb carries with itself: no data is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mteb

from lusifer import languages
from lusifer.evaluation.suites import benchmark
from lusifer.evaluation.tasks.rows import SuiteRow

Statistics = Mapping[str, Any]
"""mteb's description of one subset of one split."""


def texts(task: Any, split: str, subsets: Sequence[str]) -> int | None:
    """Count the texts that mteb hands to the model, repeats counted.

    Pairs are two texts each; retrieval and reranking are queries and documents; a summary task is its summaries, of
    people and of machines. Of a clustering task only those count that mteb draws. A classification task is the split
    and the most that mteb may draw to teach the classifier, so there the number is an upper bound.

    Args:
        task: As `mteb.get_task` gives it.
        split: One of its splits.
        subsets: Of its subsets.

    Returns:
        The number, or None where mteb's statistics do not have these subsets.
    """
    splits = task.metadata.descriptive_stats or {}
    counts = [_subset(task, splits, split, subset) for subset in subsets]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _subset(task: Any, splits: Statistics, split: str, subset: str) -> int | None:
    found = _statistics(splits, split, subset)
    if found is None:
        return None
    count = _COUNTS.get(task.metadata.type, _samples)(task, found)
    if not hasattr(task, "samples_per_label"):
        return count
    train = _statistics(splits, task.train_split, subset)
    return None if train is None else count + _drawn(task, train)


def _statistics(splits: Statistics, split: str, subset: str) -> Statistics | None:
    whole = splits.get(split)
    if whole is None:
        return None
    parts = whole.get("hf_subset_descriptive_stats")
    # A task of one subset is described as a whole, one of several by subset.
    return parts.get(subset) if parts else whole if subset == "default" else None


def _samples(task: Any, found: Statistics) -> int:
    """Texts one by one, of which a task may set the most that it draws."""
    most = [getattr(task, name, None) for name in ("max_document_to_embed", "max_eval_samples")]
    share = getattr(task, "max_fraction_of_documents_to_embed", None)
    count = found["num_samples"]
    return min([count, *(limit for limit in most if limit), *([int(share * count)] if share else [])])


def _pairs(task: Any, found: Statistics) -> int:
    return 2 * found["num_samples"]


def _summaries(task: Any, found: Statistics) -> int:
    kinds = (found["human_summaries_statistics"], found["machine_summaries_statistics"])
    return sum(round(kind["total_text_length"] / kind["average_text_length"]) for kind in kinds)


def _drawn(task: Any, train: Statistics) -> int:
    """The most texts that all draws together take from the train split."""
    draws = task.n_experiments * task.samples_per_label
    labels = train["label_statistics"]["labels"]
    return min(train["num_samples"], sum(min(label["count"], draws) for label in labels.values()))


_COUNTS: Mapping[str, Callable[[Any, Statistics], int]] = {
    "BitextMining": _pairs,
    "PairClassification": _pairs,
    "STS": _pairs,
    "Summarization": _summaries,
}


def check(rows: Sequence[SuiteRow]) -> list[str]:
    """Compare rows with the mteb that is installed; needs no network and loads no data.

    Args:
        rows: Of any suites.

    Returns:
        A sentence for each disagreement: a task that is gone, another type, metric or number of texts, a
        split or subset that mteb does not have, a subset in other languages than the row says. [] where they agree.

    """
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


def _differences(row: SuiteRow, task: Any, here: str, codes: Mapping[str, str]) -> list[str]:
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
    cost = texts(task, row.split, row.subsets)
    if cost != row.cost:
        problems.append(f"{row.task}, {row.language}: {row.cost} texts here are {cost} by the statistics of {here}")
    return problems


def _counts_for(row: SuiteRow, spoken: Sequence[str | None], order: Sequence[str]) -> bool:
    """Whether a subset in these languages belongs into the row; `order` is that of the paper."""
    if not row.cross_lingual:
        return set(spoken) == {row.language}
    if len(set(spoken)) != 2 or not set(spoken) <= set(order):
        return False
    return max(spoken, key=order.index) == row.language


def _codes() -> dict[str, str]:
    """Mteb's codes of the languages, as "arb-Arab" -> "ar": those of the paper in their own scripts, in its order.

    Then those of `robust-hub` that the paper does not have, in their own scripts and in Latin letters.
    """
    others = benchmark.table()["codes"]
    found = {
        f"{code}-{script}": language.code
        for language in languages.paper()
        for code in (language.code3, *others["languages"].get(language.code, ()))
        for script in (language.script, *(name for name, same in others["scripts"].items() if same == language.script))
    }
    rest = dict.fromkeys(row.language for row in benchmark.suite("robust-hub"))
    for language in map(languages.language, rest):
        codes = (language.code3, *others["languages"].get(language.code.split("_")[0], ()))
        found |= {f"{code}-{language.script}": language.code for code in codes}
    return found
