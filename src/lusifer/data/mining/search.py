"""The nearest texts by exact search, over a corpus of any size: some of its vectors are in memory at a time."""

from __future__ import annotations

import numpy as np

from lusifer.data.mining.vectors import Vectors
from lusifer.extras import need

CORPUS_BLOCK = 65_536  # vectors of the corpus in memory at once


def nearest(
    queries: np.ndarray, corpus: Vectors, k: int, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the texts of a corpus that are nearest to each query, by inner product.

    Args:
        queries: (n, d) float32.
        corpus: All vectors.
        k: How many.
        rows: Numbers of the texts that count, ascending; None is all of them.

    Returns:
        Scores (n, k) float32, descending, and numbers (n, k) int64; -inf and -1 where the corpus has fewer. Equal
        scores are in the order of the corpus.
    """
    faiss = need("data", "faiss")
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    numbers = np.full((len(queries), k), -1, dtype=np.int64)
    count = len(corpus) if rows is None else len(rows)
    for start in range(0, count, CORPUS_BLOCK):
        part = slice(start, min(start + CORPUS_BLOCK, count))
        block = corpus.take(part if rows is None else rows[part])
        corpus.release()
        index = faiss.IndexFlatIP(block.shape[1])
        index.add(block)
        found, places = index.search(queries, min(k, len(block)))
        places = places + start if rows is None else rows[places + start]
        scores, numbers = np.concatenate([scores, found], axis=1), np.concatenate([numbers, places], axis=1)
        order = np.lexsort((numbers, -scores), axis=1)[:, :k]
        scores, numbers = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
    return scores, numbers
