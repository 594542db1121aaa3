"""Files of texts in, files of vectors out: read row by row, written as they come, whole or not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lusifer.errors import DataError, UsageError
from lusifer.io import rows
from lusifer.io.atomic import refuse_unwritable, write_file
from lusifer.prompts import check_text

ENDINGS = (".txt", *rows.SUFFIXES)
STDIN = "-"


class TextSource:
    """A file of texts: .txt (a text a line), .jsonl, .csv or .parquet (one field of each row), or standard input.

    Args:
        path: The file, or "-": standard input, a text a line, is read once and kept.
        field: Field or column that holds the text.

    Raises:
        UsageError: No such file, or an unknown ending.
    """

    def __init__(self, path: str, field: str = "text") -> None:
        self.path, self.field, self.name = Path(path).expanduser(), field, str(path)
        self._lines: list[bytes] | None = None
        if path == STDIN:
            self.name, self._lines = "standard input", sys.stdin.buffer.readlines()
        elif not self.path.name.endswith(ENDINGS):
            words = f"use {', '.join(ENDINGS)}, or - (standard input)"
            raise UsageError(f"{path}: unknown ending {self.path.suffix!r}: {words}")
        elif not self.path.is_file():
            raise UsageError(f"{path}: no such file")

    def check(self) -> int:
        """Read every text once.

        Returns:
            How many there are, at least one.

        Raises:
            DataError: There is none, or one cannot be embedded; the message names file and line.
        """
        count = sum(1 for _ in self.rows())
        if not count:
            raise DataError(f"{self.name}: no texts in it")
        return count

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield (place, text) of every row in order, as in ("texts.txt line 3", "...").

        Raises:
            DataError: A row holds no text that can be embedded.
        """
        for where, row in self._rows():
            if isinstance(row, DataError):
                raise row
            yield where, check_text(row, where)

    def _rows(self) -> Iterator[tuple[str, Any]]:
        if self._lines is not None:
            yield from rows.text_lines(self._lines, self.name)
        elif self.path.name.endswith(".txt"):
            with rows.open_bytes(self.path) as lines:
                yield from rows.text_lines(lines, self.name)
        else:
            for where, row in rows.rows(self.path, [self.field], keep_blank=True):
                if not isinstance(row, DataError | dict) or (isinstance(row, dict) and self.field not in row):
                    has = (", ".join(map(str, row)) or "none") if isinstance(row, dict) else type(row).__name__
                    raise DataError(f"{where}: no field {self.field!r} (found {has}): name it with --field")
                yield where, row[self.field] if isinstance(row, dict) else row


class NumpyWriter:
    """An array (rows, d) of float32; the texts are not kept."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count, self._written = path, count, 0
        self._array: np.ndarray | None = None

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Write the next `vectors` (n, d)."""
        if self._array is None:
            shape = (self._count, vectors.shape[1])
            self._array = np.lib.format.open_memmap(self._path, mode="w+", dtype="<f4", shape=shape)
        end = self._written + len(vectors)
        if end > self._count:
            raise DataError(f"more than the {self._count:,} texts that were counted: the input changed; run it again")
        self._array[self._written : end] = vectors
        self._written = end

    def close(self) -> None:
        """Write what is still in memory."""
        if self._array is not None:
            self._array.flush()
            self._array = None


class ParquetWriter:
    """Columns `text` and `embedding` (a list of d float32)."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._file = path, None

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Append rows with `vectors` (n, d)."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        numbers = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])
        table = pa.table({"text": pa.array(texts, pa.string()), "embedding": column})
        if self._file is None:
            self._file = parquet.ParquetWriter(self._path, table.schema)
        self._file.write_table(table)

    def close(self) -> None:
        """Write the footer."""
        if self._file is not None:
            self._file.close()


class JsonWriter:
    """One object a line: `text` and `embedding`, with as many digits as float32 has."""

    def __init__(self, path: Path, count: int) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Append lines with `vectors` (n, d)."""
        for text, vector in zip(texts, np.asarray(vectors, dtype=np.float32), strict=True):
            numbers = ", ".join(str(number) for number in vector)
            self._file.write(f'{{"text": {json.dumps(text, ensure_ascii=False)}, "embedding": [{numbers}]}}\n')

    def close(self) -> None:
        """Close the file."""
        self._file.close()


VectorWriter = NumpyWriter | ParquetWriter | JsonWriter
WRITERS: dict[str, type[VectorWriter]] = {".npy": NumpyWriter, ".parquet": ParquetWriter, ".jsonl": JsonWriter}


def check_output(path: Path, source: Path | None = None) -> None:
    """Refuse an output whose ending is unknown, that cannot be written or that is the input `source`.

    Raises:
        UsageError: The message lists the endings, or says why not.
    """
    if path.suffix.lower() not in WRITERS:
        raise UsageError(f"--output {path}: unknown ending {path.suffix!r}: use {', '.join(WRITERS)}")
    refuse_unwritable(path, "file")
    if source is not None and source.exists() and path.expanduser().exists() and path.expanduser().samefile(source):
        raise UsageError(f"--output {path}: is the input, which would be lost: name another file")


@contextmanager
def writer(path: Path, count: int) -> Iterator[VectorWriter]:
    """Yield a writer for `count` vectors, chosen by the ending; the file appears when the block ends well."""
    check_output(path)
    with write_file(path) as temporary, closing(WRITERS[path.suffix.lower()](temporary, count)) as chosen:
        yield chosen
