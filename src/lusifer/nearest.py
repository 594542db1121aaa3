"""Nearest neighbours among vectors of length 1, a block of similarities at a time, with ties shared.

Similarities that differ by less than `TIE` (rounding in float32) are tied: a tie for the first place is a miss, and
tied candidates for the last of k places share it equally. So no number depends on the order of the texts.
"""

from __future__ import annotations

import numpy as np

TIE = 1e-6


def search(queries: np.ndarray, documents: np.ndarray, k: int, block: int) -> tuple[float, np.ndarray]:
    """Search translations by cosine.

    Args:
        queries: (n, d).
        documents: (n, d); document i is the translation of query i.
        k: Neighbours.
        block: Queries at once.

    Returns:
        Accuracy at 1, from 0 to 1, and how often each document is among the k nearest of a query, (n,).
    """
    hits, met = 0, np.zeros(len(documents))
    for start in range(0, len(queries), block):
        similar = queries[start : start + block] @ documents.T
        surely, tied, share = _nearest(similar, k)
        met += surely.sum(axis=0) + share @ tied
        places = np.arange(len(similar)), np.arange(start, start + len(similar))
        translations = similar[places]
        similar[places] = -np.inf
        hits += int((translations > similar.max(axis=1) + TIE).sum())
    return hits / len(queries), met


def _nearest(similar: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mark the k nearest of each row of similarities (q, n).

    Returns:
        Those surely among them, those tied for the last places, and the share of these that each tied one gets, (q,).
    """
    last = np.partition(similar, -k, axis=1)[:, -k, None]
    surely, tied = similar > last + TIE, np.abs(similar - last) <= TIE
    return surely, tied, (k - surely.sum(axis=1)) / tied.sum(axis=1)


def neighbours(pool: np.ndarray, k: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Look at the k nearest of every text among the texts of all languages, its own sentence left out in each.

    Args:
        pool: (L, n, d), by language and sentence.
        k: Neighbours.
        block: Texts at once.

    Returns:
        By language, from 0 to 1: the mean share of neighbours of the text's own language, and the share of texts whose
        language most of their neighbours have (a tie between m languages counts 1 / m), each (L,).
    """
    count, sentences, _ = pool.shape
    flat = pool.reshape(count * sentences, -1)
    own, told = np.zeros(count), np.zeros(count)
    for start in range(0, len(flat), block):
        rows = np.arange(start, min(start + block, len(flat)))
        here, of = np.arange(len(rows)), rows // sentences
        similar = (flat[rows] @ flat.T).reshape(len(rows), count, sentences)
        similar[here, :, rows % sentences] = -np.inf
        surely, tied, share = _nearest(similar.reshape(len(rows), -1), k)
        votes = _by_language(surely, count) + share[:, None] * _by_language(tied, count)
        first = votes >= votes.max(axis=1, keepdims=True) - TIE
        own += np.bincount(of, votes[here, of] / k, minlength=count)
        told += np.bincount(of, first[here, of] / first.sum(axis=1), minlength=count)
    return own / sentences, told / sentences


def _by_language(marked: np.ndarray, count: int) -> np.ndarray:
    """How many are marked (q, L * n), by language (q, L)."""
    return marked.reshape(len(marked), count, -1).sum(axis=2)


def skewness(counts: np.ndarray) -> float:
    """Give the third central moment divided by the cube of the standard deviation; 0 where all counts are equal."""
    apart = counts - counts.mean()
    variance = float((apart**2).mean())
    return float((apart**3).mean()) / variance**1.5 if variance > 1e-9 else 0.0
