"""Record which texts a model was trained on, without storing them: one Bloom filter per stage, next to its model.

The filter is over the letters and digits of each text. A text that was added is always found. Another text is found
with the small probability `false_positives`. So a count of test texts that training has seen is never too low, and too
high by about that share at most.
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
_START = "checkpoints/00-start"  # in a run that started from a finished model: the texts that this model has seen
_UNKNOWN = "unknown"
_FORMAT = "lusifer-bloom-1"
_CHUNK = 1_000  # rows of a table that are Python objects at once


def text_key(text: str) -> str:
    """Return the key by which two texts count as the same: letters, marks and digits, without case and width."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_KEPT)


class _Kept(dict[int, str | None]):
    """Code -> the character for a letter, mark or digit, None for any other; filled on demand."""

    def __missing__(self, code: int) -> str | None:
        self[code] = chr(code) if unicodedata.category(chr(code))[0] in "LMN" else None
        return self[code]


_KEPT = _Kept()


class BloomFilter:
    """A set of texts that only answers whether a text is in it (Bloom 1970; k positions from two hashes).

    Positions are derived from `text_key`, so texts that differ in case or punctuation count as the same.
    """

    def __init__(self, capacity: int, false_positives: float = 1e-3) -> None:
        """Make an empty filter.

        Args:
            capacity: How many texts will be added.
            false_positives: The probability that the full filter reports a text that was not added.
        """
        bits = max(64, math.ceil(-max(capacity, 1) * math.log(false_positives) / math.log(2) ** 2))
        self.bits = np.zeros(-(-bits // 8), dtype=np.uint8)
        self.hashes = max(1, round(-math.log2(false_positives)))
        self.false_positives = false_positives
        self.texts = 0

    def add(self, text: str) -> None:
        """Add a text; one without a letter or digit is ignored."""
        positions = self._positions(text)
        if positions is not None:
            np.bitwise_or.at(self.bits, positions >> 3, (1 << (positions & 7)).astype(np.uint8))
            self.texts += 1

    def __contains__(self, text: str) -> bool:
        """Whether the text was added; also true of another text with the probability `false_positives`."""
        positions = self._positions(text)
        if positions is None:
            return False
        return bool(np.all(self.bits[positions >> 3] >> (positions & 7).astype(np.uint8) & 1))

    def save(self, file: Path) -> None:
        """Write the filter as a safetensors file."""
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
        """Read a filter that `save` wrote.

        Raises:
            DataError: The file is something else, or damaged.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "np") as opened:
                facts = opened.metadata() or {}
                if facts.get("format") != _FORMAT:
                    raise DataError(f"{file}: not a record of seen texts: give one that `lusifer train` wrote")
                made = cls(1, float(facts["false_positives"]))
                made.bits, made.hashes = opened.get_tensor("bits"), int(facts["hashes"])
                made.texts = int(facts["texts"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise DataError(f"{file}: cannot be read ({error}): restore it from a copy, or train again") from error
        return made

    def _positions(self, text: str) -> np.ndarray | None:
        """The k positions (int64) of a text; None if it has no letter or digit."""
        key = text_key(text)
        if not key:
            return None
        digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
        one, two = (int.from_bytes(digest[start : start + 8], "little") for start in (0, 8))
        size = 8 * len(self.bits)
        return np.array([(one + number * (two | 1)) % size for number in range(self.hashes)], dtype=np.int64)


class SeenTexts:
    """The texts that several stages were trained on."""

    def __init__(self, filters: Iterable[BloomFilter]) -> None:
        """Take one filter per stage."""
        self.filters = list(filters)

    def __contains__(self, text: str) -> bool:
        """Whether a stage was trained on the text; wrong for about one other text in a thousand, per stage."""
        return any(text in each for each in self.filters)


def of_run(run: Path) -> SeenTexts:
    """Read the texts that a training run has seen, from its folder.

    Raises:
        UsageError: The folder has no record, or an incomplete one.
        DataError: The record is damaged.
    """
    if (run / _START / _UNKNOWN).exists():
        words = "the run started from a model without a record of its training texts"
        raise UsageError(f"{run}: {words}: name a run that started from its bases")
    files = next((found for place in _PLACES if (found := sorted(run.glob(place)))), None)
    if not files:
        raise UsageError(f"{run}: no {SEEN} there: name the folder of a training run (`lusifer train --output`)")
    return SeenTexts(map(BloomFilter.load, files))


def of_model(folder: Path) -> SeenTexts | None:
    """Read the texts that a model was trained on, if it is still in the folder of its run.

    Returns:
        The texts; None if the model is elsewhere, or its run started from a model without a record: a count would be
        too low.
    """
    run = folder.resolve().parent
    return of_run(run) if any(run.glob(_PLACES[0])) and not (run / _START / _UNKNOWN).exists() else None


def take_over(model: Path, run: Path) -> None:
    """Copy the record of the model that a run starts from into the run; a second call does nothing.

    Args:
        model: The folder of the model. If it has no record, the run notes that.
        run: The folder of the run.
    """
    if (run / _START).is_dir() or any(run.glob(f"{_START}-*")):
        return
    # A model is in the folder of its run, or in a stage's folder under `checkpoints` there.
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
    """Yield the texts of a table, row blocks in order.

    Args:
        table: The table; only its selected rows are read.
        columns: The columns to read; their values are texts or lists of texts.
    """
    for start in range(0, len(table), _CHUNK):
        part = table[start : start + _CHUNK]  # slicing respects the selection of rows, which the Arrow table does not
        for column in columns:
            for value in part[column]:
                yield from [value] if isinstance(value, str) else value or []


def write(folder: Path, texts: Iterable[str], count: int) -> None:
    """Write the record of a stage into its folder.

    Args:
        folder: The folder of the stage.
        texts: Every text that the stage trains on.
        count: The most texts there can be.
    """
    made = BloomFilter(count)
    for text in texts:
        made.add(text)
    made.save(folder / SEEN)
