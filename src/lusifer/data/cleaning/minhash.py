"""Texts that are nearly the same: MinHash over 5-grams of characters finds the pairs, their true likeness decides.

Signatures are datasketch's. Its index keeps a set per bucket, gigabytes for a million texts; here a band is one number
per text, and sorting finds those that share it. Every pair is then measured, so that what counts is the Jaccard
likeness itself and not an estimate of it (published: estimate from 1,000 permutations, threshold 0.8).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import numpy as np

from lusifer.extras import need

NGRAM = 5  # characters, as published
THRESHOLD = 0.8  # as published
_BANDS, _ROWS = 32, 8  # of two texts 0.8 alike 99.7 % meet in a band, of two 0.5 alike one pair in eight
_MEMBERS = 32  # of a bucket of another set that a text is compared with
_SEED = 1
_RADIX = np.uint64(1_000_003)
_SPACE = re.compile(r"[\W_]+")


def shingles(text: str) -> np.ndarray:
    """Hash the 5-grams of a text, each once; case, punctuation and width of spaces do not count.

    A text of fewer characters is one 5-gram of its own.

    Returns:
        (n,) uint64, sorted, each below 2**32.
    """
    plain = _SPACE.sub(" ", text.casefold()).strip()
    codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(codes) < NGRAM:
        codes = np.concatenate([codes, np.zeros(NGRAM - len(codes), dtype=np.uint64)])
    windows = np.lib.stride_tricks.sliding_window_view(codes, NGRAM)
    hashed = np.zeros(len(windows), dtype=np.uint64)
    for column in range(NGRAM):  # modulo 2**64, as uint64 does
        hashed = hashed * _RADIX + windows[:, column]
    hashed ^= hashed >> np.uint64(29)
    hashed *= np.uint64(0xBF58476D1CE4E5B9)
    return np.unique(hashed >> np.uint64(32))


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Likeness of two sets of shingles: shared ones, of all."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def bands(texts: Iterable[str]) -> np.ndarray:
    """Hash each text into bands; texts that share one are worth a look.

    Returns:
        (number of texts, 32) uint64; texts without a letter or digit have bands that nobody shares.
    """
    minhash = need("data", "datasketch").MinHash
    start = minhash(num_perm=_BANDS * _ROWS, seed=_SEED, hashfunc=int)
    found = []
    for text in texts:
        signature = start.copy()
        signature.update_batch(shingles(text).tolist())
        rows = signature.hashvalues.astype(np.uint64).reshape(_BANDS, _ROWS)
        hashed = np.zeros(_BANDS, dtype=np.uint64)
        for column in range(_ROWS):
            hashed = (hashed ^ rows[:, column]) * np.uint64(0x9E3779B97F4A7C15)
            hashed ^= hashed >> np.uint64(32)
        found.append(hashed)
    return np.array(found, dtype=np.uint64).reshape(-1, _BANDS)


def alike(
    table: np.ndarray, read: Callable[[int], str], threshold: float = THRESHOLD
) -> Iterator[tuple[int, int, float]]:
    """Yield (later, earlier, likeness) for texts that are nearly the same.

    Args:
        table: Of `bands`, all texts.
        read: Number of a text -> the text; called for the candidates only.
        threshold: Least Jaccard likeness.

    Yields:
        Pairs in ascending order of the later one, then the earlier one, each once. In a bucket of many texts each is
        compared with the first of them and its neighbours, not with all.
    """
    for later, earlier in _candidates(table):
        likeness = jaccard(shingles(read(later)), shingles(read(earlier)))
        if likeness >= threshold:
            yield later, earlier, likeness


def across(
    known: np.ndarray,
    table: np.ndarray,
    read: Callable[[int], str],
    read_known: Callable[[int], str],
    threshold: float = THRESHOLD,
) -> Iterator[tuple[int, int]]:
    """Yield (number in `table`, number in `known`) for texts of two sets that are nearly the same.

    Args:
        known: Bands of one set.
        table: Bands of the other.
        read: Number in `table` -> its text.
        read_known: Number in `known` -> its text.
        threshold: Least Jaccard likeness.

    Yields:
        Pairs in ascending order. In a bucket of many texts each is compared with the first 32 of them.
    """
    found = np.zeros((0, 2), dtype=np.int64)
    for column in range(table.shape[1]):
        order = np.argsort(known[:, column], kind="stable")
        values = known[order, column]
        first, last = (np.searchsorted(values, table[:, column], side=side) for side in ("left", "right"))
        counts = np.minimum(last - first, _MEMBERS)
        ones = np.repeat(np.arange(len(table)), counts)
        places = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
        # Near texts meet in most bands: kept once, they take no more room than in one.
        found = np.unique(np.concatenate([found, np.stack([ones, order[places]], axis=1)]), axis=0)
    for one, pairs in groupby(found.tolist(), key=itemgetter(0)):
        own = shingles(read(one))
        for _, other in pairs:
            if jaccard(own, shingles(read_known(other))) >= threshold:
                yield one, other


def _candidates(table: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs that share a band."""
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for column in range(table.shape[1]):
        order = np.argsort(table[:, column], kind="stable")
        values = table[order, column]
        new = np.concatenate([[True], values[1:] != values[:-1]])
        heads = order[np.flatnonzero(new)][np.cumsum(new) - 1]  # of each text, the first one of its bucket
        pairs.append(np.stack([order[~new], heads[~new]], axis=1))
        for step in (1, 2, 3):
            same = values[step:] == values[:-step]
            pairs.append(np.stack([order[step:][same], order[:-step][same]], axis=1))
    yield from ((int(later), int(earlier)) for later, earlier in np.unique(np.concatenate(pairs), axis=0))
