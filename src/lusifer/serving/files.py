"""Files of texts in, files of vectors out: read row by row, written as they come, whole or not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from lusifer.errors import DataError, UsageError
from lusifer.io import rows
from lusifer.io.files import refuse_output, write_file
from lusifer.prompts import check_text

ENDINGS = (".txt", *rows.SUFFIXES)
STDIN = "-"
Batches = Iterable[tuple[Sequence[str], np.ndarray]]


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


def _write_numpy(path: Path, count: int, batches: Batches) -> None:
    """An array (count, d) of float32; the texts are not kept."""
    array, end = None, 0
    for _, vectors in batches:
        if array is None:
            array = np.lib.format.open_memmap(path, mode="w+", dtype="<f4", shape=(count, vectors.shape[1]))
        start, end = end, end + len(vectors)
        array[start:end] = vectors
    if array is not None:
        array.flush()


def _write_parquet(path: Path, count: int, batches: Batches) -> None:
    """Columns `text` and `embedding` (a list of d float32)."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    with ExitStack() as stack:
        file = None
        for texts, vectors in batches:
            numbers = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])
            table = pa.table({"text": pa.array(texts, pa.string()), "embedding": column})
            file = file or stack.enter_context(parquet.ParquetWriter(path, table.schema))
            file.write_table(table)


def _write_json(path: Path, count: int, batches: Batches) -> None:
    """One object a line: `text` and `embedding`, with as many digits as float32 has."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for texts, vectors in batches:
            for text, vector in zip(texts, np.asarray(vectors, dtype=np.float32), strict=True):
                numbers = ", ".join(str(number) for number in vector)
                file.write(f'{{"text": {json.dumps(text, ensure_ascii=False)}, "embedding": [{numbers}]}}\n')


WRITERS = {".npy": _write_numpy, ".parquet": _write_parquet, ".jsonl": _write_json}


def write_vectors(path: Path, count: int, batches: Batches) -> None:
    """Write vectors in the form that the ending names; the file appears when all are written.

    `batches` are texts and their vectors (n, d), in order, `count` in all.

    Raises:
        UsageError: An unknown ending, or a place where nothing can be written.
        DataError: There are more or fewer than `count`.
    """
    refuse_output(path, tuple(WRITERS))
    with write_file(path) as temporary:
        WRITERS[path.suffix](temporary, count, _counted(count, batches))


def _counted(count: int, batches: Batches) -> Batches:
    """The same batches, refused unless there are `count` vectors in them."""
    end = 0
    for texts, vectors in batches:
        end += len(vectors)
        if end > count:
            break
        yield texts, vectors
    if end != count:
        found = "more" if end > count else f"{end:,}"
        raise DataError(f"{count:,} texts were counted and {found} read: the input changed; run it again")
