"""Rows on disk: Arrow tables that are mapped into memory, draws from them, and the files that commands write."""

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

CHUNK = 10_000  # rows turned into columns at once: as Python objects they take several times the memory
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")  # of files that are written
EXAMPLES = 20  # of each reason in a report
_LONGEST = 300  # characters of a text in a report


def schema(kind: str) -> pa.Schema:
    """Column types of "pairs", "passages" or "labelled" rows."""
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
    """Write checked rows to an anonymous temporary Arrow file, which is deleted with the last reference to the table.

    `kind` is as for `schema`, or the column types themselves. The file is in Python's folder for temporary files
    (TMPDIR).

    Raises:
        LusiferError: There is not enough space for them.
    """
    try:
        with tempfile.TemporaryFile() as file:  # what is left to write is tried again when it is closed
            _write(file, rows, kind)
            file.flush()
            return _mapped(file)
    except OSError as error:
        if error.errno not in FULL:
            raise
        place = tempfile.gettempdir()
        raise LusiferError(f"{place}: the rows do not fit there: set TMPDIR to a folder with more space") from error


def write_table(path: Path, rows: Iterable[Row], kind: str) -> None:
    """Write rows to an Arrow file, for `open_table`; the whole file or nothing."""
    with write_file(path) as temporary, temporary.open("wb") as file:
        _write(file, rows, kind)


def open_table(path: Path) -> Dataset:
    """Map an Arrow file of `write_table` into memory."""
    with path.open("rb") as file:
        return _mapped(file)


def values(table: Dataset, column: str, rows: Sequence[int] | slice) -> list:
    """Give the values of a column in some rows as Python objects, without reading the other columns."""
    column_values = table.data.column(column)
    if isinstance(rows, slice):
        return column_values[rows].to_pylist()
    # Not `take` of Arrow: of a table of several blocks it copies the whole column into memory first.
    return [column_values[int(number)].as_py() for number in rows]


def take(table: Dataset, numbers: Sequence[int], kind: str) -> Dataset:
    """Write some rows of a table to a table of their own: `Dataset.select` would leave all rows in `.data`."""
    columns = {name: table.data.column(name) for name in table.column_names}
    return collect(({name: values[each].as_py() for name, values in columns.items()} for each in numbers), kind)


def chunks(table: Dataset) -> Iterator[slice]:
    """Give slices that together are all rows of a table, `CHUNK` rows each."""
    return (slice(start, start + CHUNK) for start in range(0, len(table), CHUNK))


def check_output(path: Path, inputs: Iterable[Path] = ()) -> Path:
    """Refuse an output file, or the page of its counts, that cannot be written, before the work; return the page.

    `inputs` are files that are read meanwhile.

    Raises:
        UsageError: Unknown suffix, a folder, a place where nothing can be written, or one of the inputs.
    """
    page, inputs = path.with_name(path.name + ".report.md"), list(inputs)
    refuse_output(path, SUFFIXES, inputs)
    refuse_output(page, ("",), inputs, "the page of counts")
    return page


def write_rows(path: Path, rows: Iterable[Row], kind: str) -> None:
    """Write checked rows to a file of one of `SUFFIXES`, the whole file or nothing; the same rows give the same bytes.

    `kind` is as for `schema`. In JSON lines, columns that are None are left out.
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
    """Give a row as a line of JSON, without columns that are None."""
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
    # Without a fingerprint the library makes one of a pickle of all rows, which is several times the file in memory.
    return Dataset(pa.ipc.open_stream(pa.py_buffer(mapped)).read_all(), fingerprint=secrets.token_hex(8))


def draw(count: int, limit: int | None, seed: int) -> list[int] | None:
    """Draw `limit` of `count` row numbers, in ascending order; None means all rows."""
    if limit is None or count <= limit:
        return None
    return sorted(random.Random(seed).sample(range(count), limit))


@dataclass
class RowCounts:
    """Counts by reason, in the order in which reasons were first met, and the first examples of each."""

    title: str
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def count(self, reason: str, *example: str, by: int = 1) -> None:
        """Add `by` rows to a reason; `example` are texts that show it, of which the first 20 are kept."""
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
        """Give the counts as lines for a terminal."""
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
