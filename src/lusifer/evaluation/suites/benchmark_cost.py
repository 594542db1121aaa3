"""How many texts a model reads in a task, from the statistics that mteb carries with itself (no data is loaded)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
    "PairClassification": _pairs,
    "STS": _pairs,
    "Summarization": _summaries,
}
