"""Read texts from files or standard input, row by row, and write vectors to files, atomically."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lusifer.errors import DataError, UsageError
from lusifer.io import rows
from lusifer.io.files import A_PIPE, expand_user, refuse_output, write_file
from lusifer.prompts import check_text

ENDINGS = (".txt", ".txt.gz", *rows.SUFFIXES)
STDIN = "-"
WITH_IDS = (".parquet", ".jsonl")
"""Formats of outputs whose rows can have an id."""


@dataclass(frozen=True)
class TextRow:
    """A text, its place ("texts.txt line 3") and its id, if its row has one."""

    place: str
    text: str
    id: int | str | None = None


Batches = Iterable[tuple[Sequence[TextRow], np.ndarray]]
"""Rows (n) with their vectors, (n, d)."""


class TextSource:
    """A file of texts, or standard input: lines of text, or one field of each row (JSON lines, CSV, Parquet).

    Args:
        path: The file, or "-" for standard input, compressed by gzip or not; it is read once and stays in memory.
        field: The field or column of the text; None is "text".
        form: "txt", "jsonl" or "csv". None: by the ending of the name; standard input has one text per line.
        id_field: The field or column with the id of the row; None is "id", and rows may lack it.

    Raises:
        UsageError: There is no such file, it is a folder or a pipe, the ending is unknown, lines of text have no
            fields, or standard input is closed.
        DataError: Standard input cannot be decompressed, or is Parquet.
    """

    def __init__(
        self, path: str, field: str | None = None, form: str | None = None, id_field: str | None = None
    ) -> None:
        self.path, self.name = expand_user(path), str(path)
        self._data: bytes | None = None
        if path == STDIN:
            self.name = "standard input"
            self._data = _standard_input()
        elif not self.path.exists():
            raise UsageError(f"{path}: no such file or folder: correct the name")
        elif self.path.is_dir():
            raise UsageError(f"{path}: is a folder: name a file in it (only `lusifer index` reads folders)")
        elif not self.path.is_file():
            words = "give - and send the texts to standard input (COMMAND | lusifer ... --input -)"
            raise UsageError(f"{path}: {A_PIPE}: {words}")
        elif form is None and rows.ending(self.path) not in ENDINGS:
            words = f"use {', '.join(ENDINGS)}, give the format (--input-format), or - (standard input)"
            raise UsageError(f"{path}: unknown ending {self.path.suffix!r}: {words}")
        self.form = f".{form}" if form else ".txt" if path == STDIN else rows.ending(self.path).removesuffix(".gz")
        for option, name in (("--field", field), ("--id", id_field)):
            if name is not None and self.form == ".txt":
                words = "lines of text have no fields: leave it out, or give the format (--input-format jsonl)"
                raise UsageError(f"{option} {name}: {self.name}: {words}")
        self.field, self.id_field, self.needs_id = field or "text", id_field or "id", id_field is not None

    def check(self) -> int:
        """Read every text once.

        Returns:
            The number of texts, at least one.

        Raises:
            DataError: There is no text, or one cannot be embedded; the message names the file and the line.
        """
        count = sum(1 for _ in self.records())
        if not count:
            raise DataError(f"{self.name}: no texts: give an input with at least one")
        return count

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield (place, text) of every row, as `records` does."""
        return ((row.place, row.text) for row in self.records())

    def records(self) -> Iterator[TextRow]:
        """Yield every row in order. An id is a 64-bit integer or a text; any other value counts as no id.

        Raises:
            DataError: A row has no text that can be embedded, or lacks the id of a given `id_field`.
        """
        if self.form == ".txt":
            with self._opened() as stream:
                for where, text in rows.text_lines(stream, self.name):
                    if isinstance(text, DataError):
                        raise text
                    yield TextRow(where, check_text(text, where))
            return
        for where, row in self._found():
            if isinstance(row, DataError):
                raise row
            rows.refuse_no_object(row, where)
            for field, option in ((self.field, "--field"), *(((self.id_field, "--id"),) if self.needs_id else ())):
                if field not in row:
                    raise DataError(f"{where}: no field {field!r} (found {rows.columns(row)}): name it with {option}")
            yield TextRow(where, check_text(row[self.field], where), self._id(row.get(self.id_field), where))

    def _id(self, value: Any, where: str) -> int | str | None:
        if (type(value) is int and -(2**63) <= value < 2**63) or (isinstance(value, str) and value):
            return value
        if self.needs_id:
            kind = "an empty text" if value == "" else rows.kind_of_value(value)
            raise DataError(f"{where}: its {self.id_field!r} is {kind}: give a text or an integer as id")
        return None

    def _found(self) -> Iterator[tuple[str, Any]]:
        if self.form == ".parquet":
            yield from rows.rows(self.path, [self.field, self.id_field])
            return
        with self._opened() as stream:
            yield from rows.parse(stream, self.name, self.form)

    def _opened(self) -> AbstractContextManager[BinaryIO]:
        return rows.open_bytes(self.path) if self._data is None else _unpacked(self._data)


def _unpacked(data: bytes) -> BinaryIO:
    """Standard input as a stream, decompressed if its first bytes are those of gzip."""
    return gzip.open(io.BytesIO(data)) if data.startswith(rows.GZIP) else io.BytesIO(data)


def _standard_input() -> bytes:
    """All of standard input, still compressed: it may be many times larger, and is decompressed line by line."""
    if sys.stdin is None:
        raise UsageError("standard input is closed: give a file, or connect it (< FILE)")
    data = sys.stdin.buffer.read()
    if data.startswith(rows.PARQUET):
        raise DataError("standard input: is Parquet, which can only be read from a file: give its name")
    try:
        with _unpacked(data) as stream:
            while stream.read(io.DEFAULT_BUFFER_SIZE):
                pass
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"standard input: is damaged gzip ({error}): compress it again") from error
    return data


def _write_numpy(path: Path, count: int, batches: Batches) -> None:
    """An array (count, d) that can be mapped into memory, without the texts."""
    with path.open("wb") as file:  # not a memory map: on a full disk it would end the process without a message
        for number, (_, vectors) in enumerate(batches):
            array = np.ascontiguousarray(vectors)
            if number == 0:
                form = {"descr": array.dtype.newbyteorder("<").str, "fortran_order": False}
                np.lib.format.write_array_header_1_0(file, form | {"shape": (count, array.shape[1])})
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)


def _write_parquet(path: Path, count: int, batches: Batches) -> None:
    """Columns `id` (if the rows have one), `text` and `embedding` (a list of d numbers)."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    with ExitStack() as stack:
        file = None
        for texts, vectors in batches:
            numbers = pa.array(np.ascontiguousarray(vectors).reshape(-1))
            columns = {"id": pa.array([row.id for row in texts])} if texts[0].id is not None else {}
            columns |= {"text": pa.array([row.text for row in texts], pa.string())}
            columns |= {"embedding": pa.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])}
            table = pa.table(columns)
            file = file or stack.enter_context(parquet.ParquetWriter(path, table.schema, use_dictionary=["text"]))
            file.write_table(table)


def _write_json(path: Path, count: int, batches: Batches) -> None:
    """One object per line: `id` if there is one, `text` and `embedding`, with the digits of float32."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for texts, vectors in batches:
            for row, vector in zip(texts, vectors, strict=True):
                about = ({} if row.id is None else {"id": row.id}) | {"text": row.text}
                numbers = ", ".join(str(number) for number in vector)
                file.write(f'{json.dumps(about, ensure_ascii=False)[:-1]}, "embedding": [{numbers}]}}\n')


WRITERS = {".npy": _write_numpy, ".parquet": _write_parquet, ".jsonl": _write_json}


def write_vectors(path: Path, count: int, batches: Batches) -> None:
    """Write vectors in the format of the file's ending, atomically.

    Args:
        path: A .npy, .parquet or .jsonl file.
        count: The number of rows.
        batches: Rows and their vectors (n, d), in order. All rows have an id of one kind, or none has one.

    Raises:
        UsageError: The ending is unknown, or the file cannot be written.
        DataError: There are more or fewer rows than `count`.
    """
    refuse_output(path, tuple(WRITERS))
    with write_file(path) as temporary:
        WRITERS[path.suffix.lower()](temporary, count, _counted(count, batches))


def _counted(count: int, batches: Batches) -> Batches:
    """Yield the batches, and refuse them if they do not have `count` vectors."""
    end = 0
    for texts, vectors in batches:
        end += len(vectors)
        if end > count:
            break
        yield texts, vectors
    if end != count:
        found = "more" if end > count else f"{end:,}"
        raise DataError(f"{count:,} texts were counted and {found} read: the input has changed: run the call again")
