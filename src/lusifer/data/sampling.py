"""Draw rows of a source that has more than its limit."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np


def draw(count: int, limit: int | None, seed: int) -> list[int] | None:
    """Draw `limit` of `count` row numbers, in ascending order; None means all rows."""
    if limit is None or count <= limit:
        return None
    return sorted(random.Random(seed).sample(range(count), limit))


def stratified(clusters: Sequence[int | None], limit: int | None, seed: int) -> list[int] | None:
    """Draw row numbers from each cluster in proportion to its size.

    Every cluster keeps at least one row as long as there are no more clusters than `limit`. Rows without a cluster
    count as one more cluster; if no row has a cluster, all rows are drawn from alike.

    Args:
        clusters: The cluster of each row, or None.
        limit: Most rows; None keeps all.
        seed: Seed of the draw.

    Returns:
        Row numbers in ascending order; None means all rows.
    """
    if limit is None or len(clusters) <= limit or all(each is None for each in clusters):
        return draw(len(clusters), limit, seed)
    return by_share(np.array([-1 if each is None else each for each in clusters]), limit, seed).tolist()


def by_share(clusters: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Draw `limit` positions of an (n,) array of cluster numbers, from each cluster in proportion; ascending."""
    _, inverse, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(clusters))
    grouped = order[np.argsort(inverse[order], kind="stable")]  # cluster by cluster, each in random order
    starts = np.cumsum(sizes) - sizes
    shares = _shares(sizes, limit, generator)
    return np.sort(np.concatenate([grouped[at : at + share] for at, share in zip(starts, shares)]))


def _shares(sizes: np.ndarray, limit: int, generator: np.random.Generator) -> np.ndarray:
    """Rows of each cluster, `limit` in all: its share rounded down, then one more by the largest remainder."""
    exact = sizes * (limit / sizes.sum())
    least = np.minimum(sizes, 1) if len(sizes) <= limit else np.zeros_like(sizes)
    shares = np.maximum(np.floor(exact).astype(np.int64), least)
    tie = generator.random(len(sizes)) * 1e-9  # so that the number of a cluster does not decide between equals
    while (missing := limit - shares.sum()) > 0:
        open_ = np.flatnonzero(shares < sizes)
        shares[open_[np.argsort(-(exact - shares + tie)[open_], kind="stable")[:missing]]] += 1
    while (over := shares.sum() - limit) > 0:  # the least of every cluster was more than its share
        open_ = np.flatnonzero(shares > least)
        shares[open_[np.argsort((exact - shares + tie)[open_], kind="stable")[:over]]] -= 1
    return shares
