"""Which texts a model was trained on, without keeping them: a Bloom filter a stage, beside the stage's model.

The filter is over the letters and digits of each text. A text that was put in is always found; one that was not is
found by chance, rarely (`false_positives`). So a count of test texts that training has seen is never too low, and too
high by no more than that share.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lusifer.errors import DataError, UsageError
from lusifer.io.files import write_file
from lusifer.io.weights import save_arrays

if TYPE_CHECKING:
    from datasets import Dataset

SEEN = "seen.safetensors"
_PLACES = (f"checkpoints/*/{SEEN}", f"*/{SEEN}", SEEN)  # in a run folder, in its checkpoints, in a stage's folder
_START = "checkpoints/00-start"  # of a run that began with a finished model: what that one has seen
_UNKNOWN = "unknown"
_FORMAT = "lusifer-bloom-1"
_CHUNK = 1_000  # rows of a table that are Python objects at once


def text_key(text: str) -> str:
    """Give what makes two texts the same one: letters, marks and digits, without case, width, spaces, punctuation."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_KEPT)


class _Kept(dict[int, str | None]):
    """Characters by code: itself for a letter, mark or digit, None for any other; filled as they come."""

    def __missing__(self, code: int) -> str | None:
        self[code] = chr(code) if unicodedata.category(chr(code))[0] in "LMN" else None
        return self[code]


_KEPT = _Kept()


class BloomFilter:
    """A set of texts that only answers whether a text is in it (Bloom 1970; k positions from two hashes)."""

    def __init__(self, capacity: int, false_positives: float = 1e-3) -> None:
        """Make an empty one for `capacity` texts; when it is full, `false_positives` is the share of chance hits."""
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

    def __contains__(self, text: str) -> bool:
        """Whether the text was put in, or chance says so."""
        positions = self._positions(text)
        if positions is None:
            return False
        return bool(np.all(self.bits[positions >> 3] >> (positions & 7).astype(np.uint8) & 1))

    def save(self, file: Path) -> None:
        """Write it as safetensors."""
        facts = {
            "format": _FORMAT,
            "hashes": str(self.hashes),
            "texts": str(self.texts),
            "false_positives": repr(self.false_positives),
        }
        with write_file(file) as temporary:
            save_arrays(temporary, {"bits": self.bits}, facts)

    @classmethod
    def load(cls, file: Path) -> BloomFilter:
        """Read what `save` wrote; a DataError if it is something else, or damaged."""
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


class SeenTexts:
    """The texts of several stages."""

    def __init__(self, filters: Iterable[BloomFilter]) -> None:
        """Take a filter for each stage."""
        self.filters = list(filters)

    def __contains__(self, text: str) -> bool:
        """Whether a stage has read the text, or chance says so (once in a thousand texts and stage)."""
        return any(text in each for each in self.filters)


def of_run(run: Path) -> SeenTexts:
    """Read the texts that a training run has seen, from its folder.

    Raises:
        UsageError: There is no such record in it.
        DataError: The record is damaged.
    """
    if (run / _START / _UNKNOWN).exists():
        raise UsageError(f"{run}: it started from a model of which nobody knows here what it has seen")
    files = next((found for place in _PLACES if (found := sorted(run.glob(place)))), None)
    if not files:
        raise UsageError(f"{run}: no {SEEN} in it: name the folder of a training run (`lusifer train --output`)")
    return SeenTexts(map(BloomFilter.load, files))


def of_model(folder: Path) -> SeenTexts | None:
    """Read the texts that a model was trained on, where it still lies in the folder of its run; None elsewhere.

    None as well where the run started from a model without such a record: a count would be too low.
    """
    run = folder.resolve().parent
    return of_run(run) if any(run.glob(_PLACES[0])) and not (run / _START / _UNKNOWN).exists() else None


def take_over(model: Path, run: Path) -> None:
    """Copy into a run what the model that it starts from has seen, or note that nobody knows; once."""
    if (run / _START).is_dir() or any(run.glob(f"{_START}-*")):
        return
    # A model lies in its run, or in a stage's folder in the checkpoints there.
    places = (model.resolve().parents[up] for up in (0, 2) if len(model.resolve().parents) > up)
    home = next((place for place in places if any(place.glob(_PLACES[0]))), None)
    if home is None or (home / _START / _UNKNOWN).exists():
        (run / _START).mkdir(parents=True)
        (run / _START / _UNKNOWN).touch()
        return
    for number, file in enumerate(sorted(home.glob(_PLACES[0])), start=1):
        target = run / f"{_START}-{number}"
        target.mkdir(parents=True)
        shutil.copyfile(file, target / SEEN)


def table_texts(table: Dataset, columns: Sequence[str]) -> Iterator[str]:
    """Yield the texts of columns of a table, whose values are texts or lists of texts, in the rows that it gives."""
    for start in range(0, len(table), _CHUNK):
        part = table[start : start + _CHUNK]  # by row number: rows that were drawn, in a table of more
        for column in columns:
            for value in part[column]:
                yield from [value] if isinstance(value, str) else value or []


def write(folder: Path, texts: Iterable[str], count: int) -> None:
    """Write the filter of a stage into its folder: every text that it trains on, `count` of them at most."""
    made = BloomFilter(count)
    for text in texts:
        made.add(text)
    made.save(folder / SEEN)
