"""Rows on disk: as Arrow, mapped into memory, so that a set may be larger than what is free."""

from __future__ import annotations

import errno
import mmap
import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lusifer.data.schema import Row
from lusifer.errors import LusiferError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

CHUNK = 10_000  # rows turned into columns at once: as Python objects they take several times the memory


def schema(kind: str) -> pa.Schema:
    """Column types of "pairs", "passages" or "labelled" rows, or of the "candidates" that mining chooses from."""
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    pairs = {"query": text, "positive": texts, "negative": texts, "instruction": text, "task": text, "label": text}
    columns = {
        "passages": {"text": text, "source": text},
        "labelled": {"text": text, "label": text, "source": text},
        "candidates": {"text": text, "written": text, "source": text, "label": text},
        "pairs": pairs | {"cluster": pa.int64(), "source": text},
    }
    return pa.schema(columns[kind])


def collect(rows: Iterable[Row], kind: str) -> Dataset:
    """Put rows into a file without a name, which goes when nobody holds them any more.

    Args:
        rows: Checked rows; read once.
        kind: As for `schema`.

    Returns:
        The rows in their order. The file lies where Python keeps temporary files (TMPDIR).

    Raises:
        LusiferError: There is no space for them.
    """
    with tempfile.TemporaryFile() as file:
        try:
            _write(file, rows, kind)
            file.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            place = tempfile.gettempdir()
            raise LusiferError(f"{place}: the rows do not fit there: set TMPDIR to a folder with more space") from error
        return _dataset(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def write(path: Path, rows: Iterable[Row], kind: str) -> None:
    """Write rows to an Arrow file, for `read`."""
    with path.open("wb") as file:
        _write(file, rows, kind)


def read(path: Path) -> Dataset:
    """Open what `write` wrote, without reading it."""
    with path.open("rb") as file:
        return _dataset(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def texts(rows: Dataset, column: str, numbers: Sequence[int] | slice) -> list:
    """Some values of a column as Python objects, without copies of the others."""
    import pyarrow as pa

    values = rows.data.column(column)
    if isinstance(numbers, slice):
        return values[numbers].to_pylist()
    return values.take(pa.array(map(int, numbers), pa.int64())).to_pylist()


def _write(file: object, rows: Iterable[Row], kind: str) -> None:
    import pyarrow as pa

    columns = schema(kind)
    with pa.ipc.new_stream(file, columns) as writer:
        rows = iter(rows)
        while chunk := list(islice(rows, CHUNK)):
            writer.write_batch(pa.RecordBatch.from_pylist(chunk, schema=columns))


def _dataset(mapped: mmap.mmap) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    return Dataset(pa.ipc.open_stream(pa.py_buffer(mapped)).read_all())
