"""Write vectors as they come: .npy, .parquet or .jsonl, whole or not at all, without holding all of them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from lusifer.errors import UsageError
from lusifer.io.atomic import refuse_unwritable, write_file


class Writer(ABC):
    """Takes vectors in order, a chunk at a time; the file is complete when the `with` block ends."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Append `vectors` (n, d) float32 of `texts`; d is the same in every call."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NumpyWriter(Writer):
    """An array (rows, d) of float32."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file, self._shape = path.open("wb"), (0, 0)

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Append the numbers; the texts are not kept."""
        if not self._shape[0]:
            self._header((0, vectors.shape[1]))
        self._file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
        self._shape = (self._shape[0] + len(vectors), vectors.shape[1])

    def close(self) -> None:
        """Write the number of rows, known only now: numpy leaves room for it in the header."""
        self._file.seek(0)
        self._header(self._shape)
        self._file.close()

    def _header(self, shape: tuple[int, int]) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


class ParquetWriter(Writer):
    """Columns `text` and `embedding` (a list of d float32)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = None

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Append rows."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        numbers = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])
        table = pa.table({"text": pa.array(texts, pa.string()), "embedding": column})
        if self._file is None:
            self._file = parquet.ParquetWriter(self.path, table.schema)
        self._file.write_table(table)

    def close(self) -> None:
        """Write the footer."""
        if self._file is not None:
            self._file.close()


class JsonWriter(Writer):
    """One object a line: `text` and `embedding`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Append lines; numbers are written with as many digits as float32 has."""
        for text, vector in zip(texts, np.asarray(vectors, dtype=np.float32), strict=True):
            numbers = ", ".join(str(number) for number in vector)
            self._file.write(f'{{"text": {json.dumps(text, ensure_ascii=False)}, "embedding": [{numbers}]}}\n')

    def close(self) -> None:
        """Close the file."""
        self._file.close()


WRITERS: dict[str, type[Writer]] = {".npy": NumpyWriter, ".parquet": ParquetWriter, ".jsonl": JsonWriter}


def check_output(path: Path, source: Path | None = None) -> None:
    """Refuse an output whose ending is unknown, that cannot be written or that is the input; nothing is left there.

    Args:
        path: The file to write.
        source: The file that is read.

    Raises:
        UsageError: The message lists the endings, or says why not.
    """
    if path.suffix.lower() not in WRITERS:
        raise UsageError(f"--output {path}: unknown ending {path.suffix!r}: use {', '.join(WRITERS)}")
    refuse_unwritable(path, "file")
    if source is not None and source.exists() and path.expanduser().exists() and path.expanduser().samefile(source):
        raise UsageError(f"--output {path}: is the input, which would be lost: name another file")


@contextmanager
def writer(path: Path) -> Iterator[Writer]:
    """Yield a writer for `path`, chosen by its ending; the file appears when the block ends well."""
    check_output(path)
    with write_file(path) as temporary, WRITERS[path.suffix.lower()](temporary) as chosen:
        yield chosen
