"""What a model was trained on, kept beside it: which texts each stage has read, as a Bloom filter of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lusifer.io.bloom import BloomFilter
from lusifer.io.seen import SEEN

if TYPE_CHECKING:
    from datasets import Dataset

_CHUNK = 1_000


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


def _values(table: Dataset, column: str) -> Iterator:
    for start in range(0, len(table), _CHUNK):
        yield from table.data.column(column)[start : start + _CHUNK].to_pylist()
