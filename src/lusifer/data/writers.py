"""Rows to a file, whole or not at all; the same rows give the same bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from lusifer.data import store
from lusifer.data.schema import Row
from lusifer.errors import UsageError
from lusifer.io.atomic import refuse_unwritable, write_file

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


def check_output(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output that cannot be written, before the work.

    Args:
        path: Where rows will go.
        inputs: Files that are read meanwhile.

    Raises:
        UsageError: Unknown suffix, a folder, a place where nothing can be written, or one of the inputs.
    """
    if not path.name.endswith(SUFFIXES):
        raise UsageError(f"--output {path}: unknown kind of file: end it in one of {', '.join(SUFFIXES)}")
    if any(path.resolve() == file.resolve() for file in inputs):
        raise UsageError(f"--output {path}: is read as input: name another file")
    refuse_unwritable(path, "file")


def write(path: Path, rows: Iterable[Row], kind: str) -> int:
    """Write rows of a kind ("pairs", "passages", "labelled"); columns that are None are left out of JSON.

    Returns:
        How many there were.
    """
    count = 0
    with write_file(path) as temporary:
        if path.name.endswith(".parquet"):
            return _parquet(temporary, rows, kind)
        with _opened(temporary, path.name.endswith(".gz")) as stream:
            for row in rows:
                stream.write(line(row))
                count += 1
    return count


def line(row: Row) -> bytes:
    """Give a row as a line of JSON."""
    known = {column: value for column, value in row.items() if value is not None}
    return json.dumps(known, ensure_ascii=False).encode() + b"\n"


@contextmanager
def _opened(path: Path, packed: bool) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        if not packed:
            yield file
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as stream:
            yield stream


def _parquet(path: Path, rows: Iterable[Row], kind: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, rows, count = store.schema(kind), iter(rows), 0
    with pq.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(rows, store.CHUNK)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
            count += len(chunk)
    return count
