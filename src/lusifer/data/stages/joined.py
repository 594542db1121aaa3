"""Small sets put together until they fill a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lusifer.data.stages.batch_texts import BatchTexts, numbers
from lusifer.data.stages.pairs import PairSet

_SOME = 5_000  # rows looked at at once for whether a set fills a batch


def join_small(sets: Sequence[PairSet], batch_size: int, in_batch_negatives: bool = True) -> list[PairSet]:
    """Put the sets of one source together that are too small for a batch.

    A file of many sources has small ones; alone they could never be trained on, or with own negatives only they would
    be repeated in every batch. The smallest sets with the same prompts are joined until they fill a batch.

    Args:
        sets: Of one source of a recipe.
        batch_size: Rows of a step, over all processes.
        in_batch_negatives: Whether rows that share a text cannot share a batch.

    Returns:
        The sets, the joined ones as one, named after its largest part; `parts` has the rows of each.
    """

    def fills(some: Sequence[PairSet]) -> bool:
        if in_batch_negatives:
            return _fills(some, batch_size)
        return sum(len(each.rows) for each in some) >= batch_size

    groups: dict[str, list[PairSet]] = {}
    for each in sets:
        groups.setdefault(str(sorted(each.prompts.items())), []).append(each)
    joined: list[PairSet] = []
    for group in groups.values():
        small: list[PairSet] = []
        for each in sorted(group, key=lambda made: len(made.rows)):
            if len(each.rows) and not (fills([each]) and (not small or fills(small))):
                small.append(each)
            else:
                joined.append(each)
        joined += [_one(small)] if len(small) > 1 else small
    return joined


def _fills(sets: Sequence[PairSet], batch_size: int) -> bool:
    """Whether `batch_size` rows can be found that may share a batch."""
    taken, found = BatchTexts(), 0
    for each in sets:
        for start in range(0, len(each.rows), _SOME):
            for row in numbers(each.rows.select(range(start, min(start + _SOME, len(each.rows))))).tolist():
                found += taken.add(row)
                if found == batch_size:
                    return True
    return False


def _one(sets: Sequence[PairSet]) -> PairSet:
    from datasets import concatenate_datasets

    rows = concatenate_datasets([each.rows for each in sets])
    name = f"{sets[-1].name} and {len(sets) - 1} smaller"
    dropped = sum(each.dropped for each in sets)
    parts = {each.name: len(each.rows) for each in sets}
    return PairSet(name, rows, sets[0].prompts, dropped, _joined_clusters(sets), parts)


def _joined_clusters(sets: Sequence[PairSet]) -> np.ndarray | None:
    """Clusters of sets that are put together: numbers of one mean nothing in another, so each gets its own range."""
    if all(each.clusters is None for each in sets):
        return None
    parts, start = [], 0
    for each in sets:
        numbers = np.full(len(each.rows), -1, dtype=np.int64) if each.clusters is None else each.clusters
        parts.append(np.where(numbers < 0, -1, numbers + start))
        start += int(numbers.max(initial=-1)) + 1
    return np.concatenate(parts)
