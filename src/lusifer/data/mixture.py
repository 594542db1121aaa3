"""Which rows of a source are used when it has more than its cap."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np


def draw(count: int, limit: int | None, seed: int) -> list[int] | None:
    """Give the numbers of `limit` of `count` rows, ascending; None keeps all."""
    if limit is None or count <= limit:
        return None
    return sorted(random.Random(seed).sample(range(count), limit))


def stratified(clusters: Sequence[int | None], limit: int | None, seed: int) -> list[int] | None:
    """Give the numbers of `limit` rows, drawn from each cluster by its share of the rows where clusters are known.

    Every cluster keeps at least one row as long as there are no more clusters than `limit`. Rows without a cluster
    count as one more cluster; where no row has one, `draw` draws from all.

    Args:
        clusters: Of each row, or None.
        limit: Most rows; None keeps all.
        seed: Of what is drawn.

    Returns:
        Row numbers, ascending; None keeps all.
    """
    if limit is None or len(clusters) <= limit or all(each is None for each in clusters):
        return draw(len(clusters), limit, seed)
    return by_share(np.array([-1 if each is None else each for each in clusters]), limit, seed).tolist()


def by_share(clusters: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Give the places of `limit` values, drawn from each distinct one by its share; ascending."""
    _, inverse, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(clusters))
    grouped = order[np.argsort(inverse[order], kind="stable")]  # cluster by cluster, each in a drawn order
    starts = np.cumsum(sizes) - sizes
    shares = _shares(sizes, limit, generator)
    return np.sort(np.concatenate([grouped[at : at + share] for at, share in zip(starts, shares)]))


def _shares(sizes: np.ndarray, limit: int, generator: np.random.Generator) -> np.ndarray:
    """Rows of each cluster, `limit` in all: its share rounded down, then one more by the largest remainder."""
    exact = sizes * (limit / sizes.sum())
    least = np.minimum(sizes, 1) if len(sizes) <= limit else np.zeros_like(sizes)
    shares = np.maximum(np.floor(exact).astype(np.int64), least)
    tie = generator.random(len(sizes)) * 1e-9  # equal remainders are not decided by the number of the cluster
    while (missing := limit - shares.sum()) > 0:
        open_ = np.flatnonzero(shares < sizes)
        shares[open_[np.argsort(-(exact - shares + tie)[open_], kind="stable")[:missing]]] += 1
    while (over := shares.sum() - limit) > 0:  # the ones that every cluster keeps were more than its share
        open_ = np.flatnonzero(shares > least)
        shares[open_[np.argsort((exact - shares + tie)[open_], kind="stable")[:over]]] -= 1
    return shares
