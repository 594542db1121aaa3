"""Rows on disk: Arrow tables that are mapped into memory, samples of them, and the files that commands write."""

from __future__ import annotations

import gzip
import json
import mmap
import random
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lusifer.data.schema import Row
from lusifer.errors import LusiferError
from lusifer.io import markdown
from lusifer.io.files import FULL, refuse_output, write_file

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

CHUNK = 10_000  # rows that are Python objects at once: as such they take several times the memory
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")  # the formats that commands write
EXAMPLES = 20  # examples of each reason in a report
_LONGEST = 300  # characters of a text in a report


def schema(kind: str) -> pa.Schema:
    """Return the column types of "pairs", "passages" or "labelled" rows."""
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    pairs = {"query": text, "positive": texts, "negative": texts, "instruction": text, "task": text, "label": text}
    columns = {
        "passages": {"text": text, "source": text},
        "labelled": {"text": text, "label": text, "source": text},
        "pairs": pairs | {"cluster": pa.int64(), "source": text},
    }
    return pa.schema(columns[kind])


def collect(rows: Iterable[Row], kind: str | pa.Schema) -> Dataset:
    """Write checked rows to a temporary Arrow file and map it into memory.

    The file is in Python's folder for temporary files (TMPDIR). It is deleted with the last reference to the table.

    Args:
        rows: The rows.
        kind: As for `schema`, or the column types.

    Raises:
        LusiferError: There is not enough space for them.
    """
    try:
        with tempfile.TemporaryFile() as file:  # closing it flushes again, so an error may be raised there as well
            _write(file, rows, kind)
            file.flush()
            return _mapped(file)
    except OSError as error:
        if error.errno not in FULL:
            raise
        place = tempfile.gettempdir()
        raise LusiferError(f"{place}: no space for the rows: set TMPDIR to a folder with more space") from error


def write_table(path: Path, rows: Iterable[Row], kind: str) -> None:
    """Write rows to an Arrow file for `open_table`, atomically.

    Args:
        path: The file.
        rows: The rows.
        kind: As for `schema`.
    """
    with write_file(path) as temporary, temporary.open("wb") as file:
        _write(file, rows, kind)


def open_table(path: Path) -> Dataset:
    """Map an Arrow file of `write_table` into memory."""
    with path.open("rb") as file:
        return _mapped(file)


def values(table: Dataset, column: str, rows: Sequence[int] | slice) -> list:
    """Read one column of some rows as Python objects, without reading the other columns.

    Args:
        table: The table.
        column: The name of the column.
        rows: Row numbers, or a slice.
    """
    column_values = table.data.column(column)
    if isinstance(rows, slice):
        return column_values[rows].to_pylist()
    # Not Arrow's `take`: with a table of several blocks it first copies the entire column into memory.
    return [column_values[int(number)].as_py() for number in rows]


def take(table: Dataset, numbers: Sequence[int], kind: str) -> Dataset:
    """Copy some rows into a new table on disk; `Dataset.select` would leave all rows in `.data`.

    Args:
        table: The table.
        numbers: Row numbers.
        kind: As for `schema`.
    """
    columns = {name: table.data.column(name) for name in table.column_names}
    return collect(({name: values[each].as_py() for name, values in columns.items()} for each in numbers), kind)


def chunks(table: Dataset) -> Iterator[slice]:
    """Yield slices of `CHUNK` rows that cover a table."""
    return (slice(start, start + CHUNK) for start in range(0, len(table), CHUNK))


def check_output(path: Path, inputs: Iterable[Path] = ()) -> Path:
    """Refuse an output file that cannot be written, before the work starts; the same for its report.

    Args:
        path: The output file.
        inputs: The files that are read meanwhile.

    Returns:
        The file of the report (counts), a Markdown page next to the output.

    Raises:
        UsageError: The suffix is unknown, or the file is a folder, one of the inputs or cannot be written.
    """
    page, inputs = path.with_name(path.name + ".report.md"), list(inputs)
    refuse_output(path, SUFFIXES, inputs)
    refuse_output(page, ("",), inputs, "the page of counts")
    return page


def write_rows(path: Path, rows: Iterable[Row], kind: str) -> None:
    """Write checked rows to a file, atomically; the same rows give the same bytes.

    Args:
        path: The file, with one of `SUFFIXES`. In JSON lines, columns that are None are left out.
        rows: The rows.
        kind: As for `schema`.
    """
    with write_file(path) as temporary:
        with temporary.open("wb") as file:
            if path.name.lower().endswith(".parquet"):
                _write(file, rows, kind, parquet=True)
            elif path.name.lower().endswith(".gz"):
                with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as stream:
                    stream.writelines(map(json_line, rows))
            else:
                file.writelines(map(json_line, rows))


def json_line(row: Row) -> bytes:
    """Return a row as a line of JSON, without columns that are None."""
    known = {column: value for column, value in row.items() if value is not None}
    return json.dumps(known, ensure_ascii=False).encode() + b"\n"


def _write(file: Any, rows: Iterable[Row], kind: str | pa.Schema, parquet: bool = False) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, rows = schema(kind) if isinstance(kind, str) else kind, iter(rows)
    with pq.ParquetWriter(file, columns) if parquet else pa.ipc.new_stream(file, columns) as writer:
        while chunk := list(islice(rows, CHUNK)):
            writer.write_batch(pa.RecordBatch.from_pylist(chunk, schema=columns))


def _mapped(file: Any) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Without a fingerprint the library pickles all rows to make one, which takes several times the file in memory.
    return Dataset(pa.ipc.open_stream(pa.py_buffer(mapped)).read_all(), fingerprint=secrets.token_hex(8))


def draw(count: int, limit: int | None, seed: int) -> list[int] | None:
    """Sample row numbers.

    Args:
        count: How many rows there are.
        limit: How many to sample; None samples nothing.
        seed: The seed.

    Returns:
        The row numbers, ascending; None if all rows are used.
    """
    if limit is None or count <= limit:
        return None
    return sorted(random.Random(seed).sample(range(count), limit))


@dataclass
class RowCounts:
    """Counts by reason, in the order in which the reasons first occurred, with the first examples of each."""

    title: str
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def count(self, reason: str, *example: str, by: int = 1) -> None:
        """Add rows to a reason.

        Args:
            reason: The reason, as the report shows it.
            example: Texts of one example. The first 20 examples of a reason are stored.
            by: How many rows.
        """
        self.counts[reason] = self.counts.get(reason, 0) + by
        shown = self.examples.setdefault(reason, [])
        if example and len(shown) < EXAMPLES:
            shown.append(" | ".join(map(_one_line, example)))

    def merge(self, counts: dict[str, int], examples: dict[str, list[str]]) -> None:
        """Add the counts and examples of another report."""
        for reason, number in counts.items():
            self.count(reason, by=number)
            self.examples[reason] = [*self.examples[reason], *examples.get(reason, ())][:EXAMPLES]

    def lines(self) -> list[str]:
        """Return the counts as lines for a terminal."""
        width = max(map(len, self.counts), default=0)
        return [f"{reason:<{width}}  {number:>12,}" for reason, number in self.counts.items()]

    def write(self, file: Path) -> None:
        """Write counts and examples as a Markdown page."""
        rows = [(reason, f"{number:,}") for reason, number in self.counts.items()]
        lines = [f"# {self.title}", "", markdown.table(("what", "how many"), rows)]
        for reason, shown in self.examples.items():
            if shown:
                lines += ["", f"## {reason}", "", markdown.bullets(shown)]
        with write_file(file) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"
