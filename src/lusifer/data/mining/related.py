"""Which texts belong together, by the pairs of a set: what may not be a query's negative."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from lusifer.io.seen import text_key

_MOST = 256  # partners of a partner that count; not the thousands of questions of a label or a passage


def key(text: str) -> int:
    """Give 64 bits of a text, by its letters and digits; a text of signs alone counts as it is."""
    plain = text_key(text) or text
    return int.from_bytes(hashlib.blake2b(plain.encode(), digest_size=8).digest(), "little")


class Related:
    """Texts joined by being query and positive of one row, in either direction."""

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Take the keys of (query, positive) of all rows."""
        ends = np.fromiter((each for pair in pairs for each in pair), dtype=np.uint64).reshape(-1, 2)
        both = np.concatenate([ends, ends[:, ::-1]])
        both = both[np.argsort(both[:, 0], kind="stable")]
        self._from, self._to = both[:, 0].copy(), both[:, 1].copy()

    def of(self, text: int) -> set[int]:
        """Keys of the text itself, its partners, and their partners: a paraphrase of an answer is no negative."""
        near = self._partners(text)
        found = {text, *near}
        for each in near:
            found.update(self._partners(each, _MOST))
        return found

    def _partners(self, text: int, most: int | None = None) -> list[int]:
        first, last = (int(np.searchsorted(self._from, np.uint64(text), side)) for side in ("left", "right"))
        return self._to[first : last if most is None else min(last, first + most)].tolist()
