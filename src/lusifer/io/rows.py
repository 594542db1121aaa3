"""Read the rows of a file, each with its place: JSON lines, CSV, Parquet and lines of text, compressed by gzip or not.

This is the only reader of rows in the library. A row that cannot be read becomes a `DataError` that names the file, the
line and the fix. `rows` yields it in the place of the row, so that the caller decides whether a bad row ends the work.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from lusifer.errors import DataError
from lusifer.io.files import first_twice, parse_json, refuse_no_file, refuse_pointer

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
MOST_IN_A_LINE = 64 * 2**20
"""The longest line in bytes (CSV: characters); long rows have a hundredth of it. A line must fit into memory, and a
small compressed file could have an endless one."""
PARQUET_ROWS = 10_000  # in memory at once
BINARY_ROWS = 500  # the same where all columns are read, which may have pictures
HEAD = 8192  # so many first bytes of a file that is not UTF-8 tell whether it is binary
BOM = b"\xef\xbb\xbf"
_UTF16, GZIP, PARQUET = (b"\xff\xfe", b"\xfe\xff"), b"\x1f\x8b", b"PAR1\x15"  # the first bytes of such files
_BINARY = {
    b"%PDF-": "PDF", b"PK\x03\x04": "a ZIP archive (so are .docx and .xlsx)", b"\xd0\xcf\x11\xe0": "an Office file",
    b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"\x93NUMPY": "a NumPy array",
}  # fmt: skip
"""The first bytes of files that are often taken for texts -> their kind."""
_RETURNS = "a carriage return without a line feed after it: save the file with line feeds"
_OTHER_SIGNS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # separators of files that are called CSV


class CsvRow(dict[str, Any]):
    """A row of CSV; its keys are the first line of the file, which may be no header."""


@dataclass
class BadRows:
    """The messages of rows that are skipped, at most `limit`, instead of stopping the work."""

    limit: int = 0
    messages: list[str] = field(default_factory=list)

    def take(self, error: DataError) -> None:
        """Record a bad row.

        Raises:
            DataError: There are more than `limit`; the message is that of this row.
        """
        if len(self.messages) >= self.limit:
            if not self.limit:
                raise error
            raise DataError(f"{error} (bad row {self.limit + 1:,}; at most {self.limit:,} may be skipped)")
        self.messages.append(str(error))


def ending(file: Path) -> str:
    """Return the ending of a file's name that tells its format, in lower case, such as ".csv" or ".jsonl.gz"."""
    name = file.name.lower()
    return Path(name.removesuffix(".gz")).suffix + (".gz" if name.endswith(".gz") else "")


def read(
    file: Path,
    check: Callable[[Any, str], Any],
    bad: BadRows | None = None,
    columns: Collection[str] | None = None,
) -> Iterator[Any]:
    """Yield the checked rows of a file, in order.

    Args:
        file: As for `rows`.
        check: Row and place -> the row as it is yielded; raises a DataError for a bad row.
        bad: Records bad rows; None: the first bad row is raised.
        columns: As for `rows`.

    Raises:
        DataError: There are more bad rows than `bad` allows, or the file cannot be read to its end.
    """
    bad = bad if bad is not None else BadRows()
    for where, row in rows(file, columns):
        try:
            if isinstance(row, DataError):
                raise row
            checked = check(row, where)
        except DataError as error:
            bad.take(error)
        else:
            yield checked


def rows(file: Path, columns: Collection[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield (place, row) in order; a row that cannot be read is a DataError in its place.

    Args:
        file: `.parquet`, `.csv`, or JSON lines under any other name; the last two may end in `.gz`.
        columns: The columns of a Parquet file to read; the others are None in each row. Without it all texts and binary
            values are read, also nested ones, and no other values. Other formats are read completely.

    Yields:
        The place ("FILE line 3", "FILE row 3") and the row: a dict from CSV and Parquet, any value from JSON.

    Raises:
        DataError: The file is missing, or cannot be read to its end.
    """
    if ending(file) == ".parquet":
        yield from _parquet(file, columns)
        return
    with open_bytes(file) as stream:
        yield from parse(stream, str(file), ending(file).removesuffix(".gz"))


def parse(stream: BinaryIO, name: str, form: str) -> Iterator[tuple[str, Any]]:
    """Yield (place, row) of an open file, as `rows` does.

    Args:
        stream: The file.
        name: Its name, for places.
        form: ".csv" for CSV; anything else is read as JSON lines.
    """
    yield from (_csv if form == ".csv" else json_lines)(stream, name)


@contextmanager
def open_bytes(file: Path) -> Iterator[BinaryIO]:
    """Open a file to read bytes, decompressed if its name ends in .gz.

    Raises:
        DataError: The file is missing, is Parquet or cannot be read to its end; the last may be raised from the block.
    """
    refuse_no_file(file)
    refuse_pointer(file)
    try:
        with gzip.open(file, "rb") if ending(file).endswith(".gz") else file.open("rb") as stream:
            if stream.peek(len(PARQUET)).startswith(PARQUET):
                named = ending(file) == ".parquet"
                fix = "leave out the option for the format" if named else "rename it to end in .parquet"
                raise DataError(f"{file}: is Parquet, not text: {fix}")
            if kind := next((kind for start, kind in _BINARY.items() if stream.peek(8).startswith(start)), None):
                raise DataError(f"{file}: is {kind}, not text: give a text file ({', '.join(SUFFIXES)} or .txt)")
            yield stream
    except gzip.BadGzipFile as error:
        with file.open("rb") as stream:
            if stream.read(2) == GZIP:
                raise DataError(f"{file}: bytes that are not gzip follow the gzip data: copy it again") from error
        raise DataError(f"{file}: is not gzip ({error}): remove .gz from its name, or copy it again") from error
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read to its end ({error}): copy or download it again") from error


def lines(stream: BinaryIO | TextIO, name: str) -> Iterator[Any]:
    """Yield each line of a file, with its line end; `name` is the file's, for messages.

    Raises:
        DataError: A line is longer than `MOST_IN_A_LINE`; the rest of the file is not read.
    """
    number = 0
    while line := stream.readline(MOST_IN_A_LINE + 1):
        number += 1
        if len(line) > MOST_IN_A_LINE:
            words = f"longer than {MOST_IN_A_LINE:,} bytes: end each row with a line feed"
            raise DataError(f"{name} line {number}: {words}")
        yield line


def json_lines(stream: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) of each line of JSON lines; a line that cannot be read is a DataError in its place.

    Lines are read as bytes: text mode would end lines at other characters too, and hide where UTF-8 is broken. Blank
    lines are skipped. `name` is the file's, for places.

    Raises:
        DataError: As `lines`.
    """
    head = _head(stream)
    for number, line in enumerate(lines(stream, name), start=1):
        if (line.removeprefix(BOM) if number == 1 else line).strip():
            where = f"{name} line {number}"
            yield where, _json(line, where, head, first=number == 1)


def text_lines(stream: BinaryIO, name: str) -> Iterator[tuple[str, str | DataError]]:
    """Yield (place, text) of each line; a line that is not UTF-8 is a DataError in its place.

    Only a line feed ends a line. `name` is the file's, for places.

    Raises:
        DataError: As `lines`.
    """
    head = _head(stream)
    for number, line in enumerate(lines(stream, name), start=1):
        where = f"{name} line {number}"
        text = line.removeprefix(BOM) if number == 1 else line
        try:
            # Lone surrogates pass here: `check_text` names them.
            words: str | DataError = text.decode("utf-8", "surrogatepass").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            words = DataError(f"{where}: not UTF-8 (byte {error.start}): {not_utf8(head, line)}")
        if isinstance(words, str) and b"\r" in line.removesuffix(b"\r\n"):
            words = DataError(f"{where}: {_RETURNS}")
        yield where, words


def _json(line: bytes, where: str, head: bytes, first: bool) -> Any:
    """The value of a line, or what is wrong with the line."""
    if not first and line.startswith(BOM):
        return DataError(f"{where}: a byte-order mark inside the file, as after joining files: remove it")
    try:
        return parse_json(line)
    except UnicodeDecodeError as error:
        return DataError(f"{where}: not UTF-8 (byte {error.start}): {not_utf8(head, line)}")
    except json.JSONDecodeError as error:
        if b"\r" in line.strip():
            return DataError(f"{where}: {_RETURNS}")
        if first and line.removeprefix(BOM).lstrip()[:1] == b"[":
            return DataError(f"{where}: a JSON array over several lines: write one object per line (jq -c '.[]')")
        said = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        return DataError(f"{where}: not JSON ({said}): write one object per line")
    except ValueError as error:
        return DataError(f"{where}: JSON that cannot be read ({error}): write one plain object per line")


def columns(row: Mapping[Any, Any]) -> str:
    """Return the names of a row's columns, for messages; for CSV with the reminder that line 1 is the header."""
    return (", ".join(map(str, row)) or "none") + header_hint(row)


def header_hint(row: Any) -> str:
    """Return the reminder that line 1 of a CSV file is the header, for messages about columns; empty for other rows."""
    return "; line 1 must be the header" if isinstance(row, CsvRow) else ""


def refuse_no_object(row: Any, where: str) -> None:
    """Refuse a row that is not an object.

    Args:
        row: The row.
        where: Its place, at the start of the message.

    Raises:
        DataError: The message names the kind of the value.
    """
    if not isinstance(row, Mapping):
        hint = " (jq -c '.[]')" if isinstance(row, list) else ""
        words = f"expected an object with columns, found {kind_of_value(row)}"
        raise DataError(f"{where}: {words}: write one object per line{hint}")


def kind_of_value(value: Any) -> str:
    """Return the kind of a value in the terms of JSON, such as "a list"."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


def strings(value: Any) -> Iterator[Any]:
    """Yield all texts and bytes in a nested value, also those inside a text that is itself a JSON list or object."""
    left = [value]  # a stack instead of recursion: JSON may nest deeper than Python calls
    while left:
        value = left.pop()
        if isinstance(value, (str, bytes)):
            yield value
            value = _spelled(value)
        if isinstance(value, (dict, list, tuple)):  # Parquet's maps are lists of tuples
            left += reversed(value.values() if isinstance(value, dict) else value)


def _spelled(text: str | bytes) -> Any:
    """The JSON list or object that a text encodes, as in cells of CSV; None if it encodes none."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if data.lstrip()[:1] in (b"[", b"{"):
        with suppress(ValueError):
            return parse_json(data)
    return None


def _csv(stream: BinaryIO, file: str) -> Iterator[tuple[str, Any]]:
    """Rows of a CSV file; broken quotes or a cell over the limit of Python's reader end the reading."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(lines(text, file), strict=True)
    start, head = 1, _head(stream)
    try:
        names = next((row for row in reader.reader if "".join(row).strip()), [])
        reader.fieldnames = names  # blank lines, and lines of commas as Excel writes them, may come before the header
        _check_header(f"{file} line {reader.reader.line_num}", names)
        while True:
            start = reader.reader.line_num + 1
            row = next(reader, None)
            if row is None:
                return
            where = f"{file} line {reader.line_num}"
            cells = len(names) + len(row.get(None, ())) - list(row.values()).count(None)
            words = f"{where}: expected {len(names)} columns as in the header, found {cells}: fix the commas"
            yield where, CsvRow(row) if cells == len(names) else DataError(words)
    except UnicodeDecodeError as error:
        read = bytes(error.object)  # the block behind the last complete line and the start of the next one
        where = f"{file} line {reader.reader.line_num + 1 + read.count(10, 0, error.start)}"
        raise DataError(f"{where}: not UTF-8 ({error.reason}): {not_utf8(head, read)}") from None
    except csv.Error as error:
        if "limit" in str(error):
            words = f"a cell of more than {csv.field_size_limit():,} characters: close its quote, or split the text"
        else:
            words = f"not CSV ({error}): fix its quotes"
        raise DataError(f"{file} line {start}: {words}") from None


def _refuse_twice(where: str, names: Sequence[str]) -> None:
    twice = first_twice(names)
    if twice is not None:
        raise DataError(f"{where}: duplicate column {twice!r}: rename one of the two")


def _check_header(where: str, names: Sequence[str]) -> None:
    _refuse_twice(where, names)
    if names[:1] == ["sep="]:
        raise DataError(f"{where}: a setting of Excel (sep=,), not column names: remove the line")
    sign = next((sign for sign in _OTHER_SIGNS if len(names) == 1 and sign in names[0]), None)
    if sign is not None:
        words = f"the file seems to use {_OTHER_SIGNS[sign]}: save it with commas"
        raise DataError(f"{where}: one column {names[0]!r}: {words}")


def _parquet(file: Path, columns: Collection[str] | None) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_no_file(file)
    refuse_pointer(file)
    number = 0
    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            _refuse_twice(str(file), names)
            asked = _texts_of(opened.schema) if columns is None else [name for name in names if name in columns]
            unread = dict.fromkeys(names)
            for batch in opened.iter_batches(BINARY_ROWS if columns is None else PARQUET_ROWS, columns=asked):
                # pyarrow reads "a.b" as a path: it also returns the column "a".
                read = [name for name in batch.schema.names if columns is None or name in asked]
                values = {name: _values(batch, name, file) for name in read}
                for place in range(batch.num_rows):
                    number += 1
                    yield f"{file} row {number}", unread | {name: column[place] for name, column in values.items()}
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} after row {number}: a text is not UTF-8 ({error.reason}): write the file again"
        ) from None
    except (pa.ArrowException, OSError) as error:
        with file.open("rb") as stream:
            start = stream.read(len(PARQUET))
        if start and not PARQUET.startswith(start[:4]):
            named = "gzip: decompress it" if start.startswith(GZIP) else "another format: rename it"
            raise DataError(f"{file}: is not Parquet but {named} ({', '.join(SUFFIXES[:-1])})") from error
        raise DataError(f"{file} after row {number}: not a readable Parquet file ({error}): copy it again") from error


def _texts_of(schema: Any) -> list[str]:
    """Paths of the columns of a Parquet schema that may have texts, also inside lists, maps and objects.

    Binary columns are among them: some writers, such as pandas with bytes, store texts as binary values.
    """
    leaves = [schema.column(number) for number in range(len(schema))]
    leaves = [leaf for leaf in leaves if leaf.physical_type.endswith("BYTE_ARRAY")]
    return [leaf.path for leaf in leaves if leaf.logical_type.type in ("STRING", "JSON", "ENUM", "NONE")]


def _values(batch: Any, name: str, file: Path) -> list[Any]:
    """A column as Python values; Python has no value for some dates and time zones."""
    try:
        return batch.column(name).to_pylist()
    except UnicodeDecodeError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        kind = batch.schema.field(name).type
        raise DataError(f"{file}: column {name!r} ({kind}) cannot be read ({error}): write it as text") from error


def _head(stream: BinaryIO) -> bytes:
    """At most `HEAD` first bytes of a stream that was not read yet; they stay unread."""
    if isinstance(stream, io.BytesIO):
        return bytes(stream.getbuffer()[:HEAD])
    return stream.peek(HEAD)[:HEAD]  # type: ignore[attr-defined]


def not_utf8(start: bytes, line: bytes = b"") -> str:
    """Return the fix for a file that is not UTF-8, by its first bytes and the line that cannot be read."""
    if start.startswith(GZIP):
        return "the file is gzip: rename it to end in .gz"
    if start.startswith(_UTF16):
        return "the file is UTF-16: save it as UTF-8"
    if b"\0" in start or b"\0" in line:
        return "the file is binary, not text: give a text file"
    return "save the file as UTF-8"
