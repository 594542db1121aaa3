"""Which texts were seen, without keeping them: a Bloom filter over the letters and digits of each.

A text that was put in is always found; one that was not is found by chance, rarely (`false_positives`). So a count of
test texts that training has seen is never too low, and too high by no more than that share.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lusifer.errors import DataError
from lusifer.io.atomic import write_file

_FORMAT = "lusifer-bloom-1"


def text_key(text: str) -> str:
    """Give what makes two texts the same one: letters, marks and digits, without case, width, spaces, punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if unicodedata.category(character)[0] in "LMN")


class BloomFilter:
    """A set of texts that only answers whether a text is in it (Bloom 1970; k positions from two hashes)."""

    def __init__(self, capacity: int, false_positives: float = 1e-3) -> None:
        """Make an empty one.

        Args:
            capacity: Texts that it will hold; with more of them, chance hits become more frequent.
            false_positives: Share of chance hits when it is full.
        """
        bits = max(64, math.ceil(-max(capacity, 1) * math.log(false_positives) / math.log(2) ** 2))
        self.bits = np.zeros(-(-bits // 8), dtype=np.uint8)
        self.hashes = max(1, round(-math.log2(false_positives)))
        self.false_positives = false_positives
        self.texts = 0

    def add(self, text: str) -> None:
        """Put a text in; one without a letter or digit is no text."""
        positions = self._positions(text)
        if positions is not None:
            np.bitwise_or.at(self.bits, positions >> 3, (1 << (positions & 7)).astype(np.uint8))
            self.texts += 1

    def update(self, texts: Iterable[str]) -> None:
        """Put many texts in."""
        for text in texts:
            self.add(text)

    def __contains__(self, text: str) -> bool:
        """Whether the text was put in, or chance says so."""
        positions = self._positions(text)
        if positions is None:
            return False
        return bool(np.all(self.bits[positions >> 3] >> (positions & 7).astype(np.uint8) & 1))

    def save(self, file: Path) -> None:
        """Write it as safetensors."""
        from safetensors.numpy import save_file

        facts = {
            "format": _FORMAT,
            "hashes": str(self.hashes),
            "texts": str(self.texts),
            "false_positives": repr(self.false_positives),
        }
        with write_file(file) as temporary:
            save_file({"bits": self.bits}, temporary, metadata=facts)

    @classmethod
    def load(cls, file: Path) -> BloomFilter:
        """Read what `save` wrote.

        Raises:
            DataError: It is something else, or damaged.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "np") as opened:
                facts = opened.metadata() or {}
                if facts.get("format") != _FORMAT:
                    raise DataError(f"{file}: not a filter of seen texts: give one that `lusifer train` wrote")
                made = cls(1, float(facts["false_positives"]))
                made.bits, made.hashes = opened.get_tensor("bits"), int(facts["hashes"])
                made.texts = int(facts["texts"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise DataError(f"{file}: cannot be read ({error}): train again, or take it from a copy") from error
        return made

    def _positions(self, text: str) -> np.ndarray | None:
        """The k bits of a text; None where nothing is left of it."""
        key = text_key(text)
        if not key:
            return None
        digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
        one, two = (int.from_bytes(digest[start : start + 8], "little") for start in (0, 8))
        size = 8 * len(self.bits)
        return np.array([(one + number * (two | 1)) % size for number in range(self.hashes)], dtype=np.int64)
