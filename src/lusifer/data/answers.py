"""Find the texts that are known to answer a query: none of them may be its negative."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from lusifer.data import tables
from lusifer.data.schema import text_hash

if TYPE_CHECKING:
    from datasets import Dataset

_PARTNERS = 256  # the most queries of one answer that are followed: a label or a passage may have thousands


class KnownAnswers:
    """The answers of every query over all rows, and the other queries of those answers, by `text_hash`."""

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Take the hashes of (query, positive) of all rows; they take 32 bytes of memory per pair."""
        ends = np.fromiter((each for pair in pairs for each in pair), dtype=np.uint64).reshape(-1, 2)
        both = np.concatenate([ends, ends[:, ::-1]])
        both = both[np.argsort(both[:, 0], kind="stable")]
        self._from, self._to = both[:, 0].copy(), both[:, 1].copy()

    def of(self, text: int) -> set[int]:
        """Return the hashes of the texts that must not be negatives of a text.

        These are the text itself, its answers, and the other queries of its answers: they are paraphrases.
        """
        near = self._partners(text)
        found = {text, *near}
        for each in near:
            found.update(self._partners(each)[:_PARTNERS])
        return found

    def _partners(self, text: int) -> list[int]:
        first, last = (int(np.searchsorted(self._from, np.uint64(text), side)) for side in ("left", "right"))
        return self._to[first:last].tolist()


def known_answers(*rows: Dataset) -> KnownAnswers:
    """Collect the known answers from one or more tables of checked pairs; all positives of a row count."""

    def pairs() -> Iterator[tuple[int, int]]:
        for table in rows:
            for part in tables.chunks(table):
                for query, positives in zip(*(tables.values(table, column, part) for column in ("query", "positive"))):
                    one = text_hash(query)
                    yield from ((one, text_hash(text)) for text in positives)

    return KnownAnswers(pairs())
