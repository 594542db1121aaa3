"""Cluster rows by their queries: rows with similar queries are hard in-batch negatives for each other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lusifer.data import tables
from lusifer.data.mining.vectors import Encode, Vectors, embed
from lusifer.data.schema import Row
from lusifer.data.tables import RowCounts
from lusifer.errors import DataError
from lusifer.extras import need

if TYPE_CHECKING:
    from datasets import Dataset

ITERATIONS = 20
SAMPLE = 128  # the most vectors per centroid that k-means is trained on
_ROWS = 16_384  # rows that are assigned at once

Progress = Callable[[str, int, int | None], None]


def cluster(
    table: Dataset,
    encode: Encode,
    *,
    clusters: int = 1024,
    min_points: int = 20,
    cap: int | None = None,
    seed: int = 0,
    progress: Progress = lambda phase, done, total: None,
) -> tuple[Iterator[Row], RowCounts]:
    """Set the `cluster` of each row by its query, per source (published: 1,024 centroids, at least 20 points).

    A source of n rows has at most n / `min_points` clusters. Smaller clusters are dissolved into the nearest others.
    Numbers begin at 0 in each source.

    Args:
        table: Checked pairs, as from `tables.collect`; an existing `cluster` is replaced.
        encode: Queries -> vectors (n, d).
        clusters: The most clusters of a source.
        min_points: The fewest rows of a cluster, unless the source itself has fewer.
        cap: The most rows of a source that remain, sampled uniformly; None: all.
        seed: The seed of k-means and of the sample.
        progress: Called with (phase, done, total).

    Returns:
        An iterator over the rows with `cluster`, in their order, and the counts.

    Raises:
        DataError: There is no row.
    """
    counts = RowCounts("Clusters of queries")
    if not len(table):
        raise DataError("no rows in the input: correct the path or the file")
    counts.count("rows read", by=len(table))
    numbers = np.zeros(len(table), dtype=np.int64)
    kept = np.ones(len(table), dtype=bool)
    with tempfile.TemporaryDirectory() as folder:
        known = embed(
            Path(folder) / "queries.npy", lambda part: tables.values(table, "query", part), len(table), encode,
            lambda done, total: progress("queries embedded", done, total),
        )  # fmt: skip
        done = 0
        for source, members in _sources(table):
            numbers[members] = assign(known, members, clusters, min_points, seed)
            reason, count = f"clusters of {source or 'rows without a source'}", numbers[members].max() + 1
            counts.count(reason, by=int(count))
            for number in range(min(3, count)):
                some = members[numbers[members] == number][:5]
                counts.examples[reason].append(" | ".join(tables.values(table, "query", some)))
            if cap is not None and len(members) > cap:
                kept[members] = False
                kept[members[tables.draw(len(members), cap, seed)]] = True
            done += len(members)
            progress("rows clustered", done, len(table))
    counts.count("rows kept", by=int(kept.sum()))
    return (table[int(row)] | {"cluster": int(numbers[row])} for row in np.flatnonzero(kept)), counts


def assign(known: Vectors, members: np.ndarray, clusters: int, min_points: int, seed: int) -> np.ndarray:
    """Assign the rows of one source to clusters of at least `min_points` rows.

    Args:
        known: The unit vectors of all rows.
        members: The row numbers of the source, (n,), ascending.
        clusters: The most clusters.
        min_points: The fewest rows of a cluster.
        seed: The seed of k-means.

    Returns:
        The cluster of each row, (n,) integers from 0.
    """
    count = min(clusters, len(members) // min_points)
    if count < 2:
        return np.zeros(len(members), dtype=np.int64)
    faiss = need("data", "faiss")
    sample = np.sort(np.random.default_rng(seed).permutation(len(members))[: count * SAMPLE])
    width = known.array.shape[1]
    means = faiss.Kmeans(
        width, count, niter=ITERATIONS, seed=seed, spherical=True, min_points_per_centroid=1,
        max_points_per_centroid=SAMPLE,
    )  # fmt: skip
    means.train(known.take(members[sample]))
    centroids = means.centroids
    while True:
        numbers = _nearest(known, members, centroids)
        sizes = np.bincount(numbers, minlength=len(centroids))
        if sizes.min() >= min_points:
            return numbers
        # Dissolving a cluster only makes the others larger, so only the smaller half of the small ones is dissolved.
        small = np.flatnonzero(sizes < min_points)
        gone = small[np.argsort(sizes[small], kind="stable")[: max(1, len(small) // 2)]]
        centroids = np.delete(centroids, gone, axis=0)


def _nearest(known: Vectors, members: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The nearest centroid of each member."""
    parts = range(0, len(members), _ROWS)
    return np.concatenate([(known.take(members[at : at + _ROWS]) @ centroids.T).argmax(axis=1) for at in parts])


def _sources(table: object) -> Iterator[tuple[str | None, np.ndarray]]:
    """Each source and its rows."""
    names = np.array([name or "" for name in tables.values(table, "source", slice(None))], dtype=object)
    for name in sorted(set(names)):
        yield name or None, np.flatnonzero(names == name)
