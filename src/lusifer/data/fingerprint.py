"""What a model was trained on, kept beside it: which texts each stage has read, as a Bloom filter of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lusifer.bloom import BloomFilter
from lusifer.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

SEEN = "seen.safetensors"
_CHUNK = 1_000
_PLACES = (f"checkpoints/*/{SEEN}", f"*/{SEEN}", SEEN)  # in a run folder, in its checkpoints, in a stage's folder


class SeenTexts:
    """The texts of several stages."""

    def __init__(self, filters: Iterable[BloomFilter]) -> None:
        """Take a filter for each stage."""
        self.filters = list(filters)

    def __contains__(self, text: str) -> bool:
        """Whether a stage has read the text, or chance says so (once in a thousand texts and stage)."""
        return any(text in each for each in self.filters)

    @property
    def texts(self) -> int:
        """Texts that were read, those of several stages counted again."""
        return sum(each.texts for each in self.filters)


def texts(table: Dataset) -> Iterator[str]:
    """Yield the texts of a table, whatever its columns are called: columns of text, and of lists of texts."""
    import pyarrow as pa

    for field in table.data.schema:
        if field.name in ("source", "label", "task", "instruction"):
            continue
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            yield from _values(table, field.name)
        elif pa.types.is_list(field.type):
            for values in _values(table, field.name):
                yield from values


def keep(folder: Path, seen: Iterable[str], count: int) -> None:
    """Write a stage's filter into its folder.

    Args:
        folder: Of the stage.
        seen: Every text that it trains on.
        count: How many there are, or more.
    """
    made = BloomFilter(count)
    made.update(seen)
    made.save(folder / SEEN)


def seen(run: Path) -> SeenTexts:
    """Read the texts that a training run has seen.

    Args:
        run: Its folder.

    Raises:
        UsageError: There is no such record in it.
        DataError: The record is damaged.
    """
    files = next((found for place in _PLACES if (found := sorted(run.glob(place)))), None)
    if not files:
        raise UsageError(f"{run}: no {SEEN} in it: name the folder of a training run (`lusifer train --output`)")
    return SeenTexts(map(BloomFilter.load, files))


def _values(table: Dataset, column: str) -> Iterator:
    for start in range(0, len(table), _CHUNK):
        yield from table.data.column(column)[start : start + _CHUNK].to_pylist()
