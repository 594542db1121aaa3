"""Rows of a file, each with its place: JSON lines, CSV, Parquet and lines of text, packed by gzip or not.

This is the only reader of rows in the library. What cannot be read is a `DataError` that names file, line and what to
do; `rows` gives it in the place of the row, so that the caller decides whether a bad row ends the work.
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
from lusifer.io.files import first_twice, parse_json, refuse_pointer

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
MOST_IN_A_LINE = 64 * 2**20
"""Bytes, of CSV characters: rows of many texts have a hundredth of it. A line is held in memory whole, and a small
packed file may hold an endless one."""
PARQUET_ROWS = 10_000  # in memory at once
BINARY_ROWS = 500  # where columns may hold pictures
BOM = b"\xef\xbb\xbf"
_UTF16, GZIP, PARQUET = (b"\xff\xfe", b"\xfe\xff"), b"\x1f\x8b", b"PAR1\x15"  # what such files begin with
_RETURNS = "a carriage return without a line feed behind it: save the file with line feeds"
_OTHER_SIGNS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # of files that are called CSV


@dataclass
class BadRows:
    """Rows that are left out instead of stopping the work: at most `limit`, each with its message."""

    limit: int = 0
    messages: list[str] = field(default_factory=list)

    def take(self, error: DataError) -> None:
        """Note a bad row; one more than `limit` is raised as a DataError with its message."""
        if len(self.messages) >= self.limit:
            if not self.limit:
                raise error
            raise DataError(f"{error} (bad row {self.limit + 1:,}, and no more than {self.limit:,} may be skipped)")
        self.messages.append(str(error))


def ending(file: Path) -> str:
    """The end of a file's name by which its form is known, in small letters: ".csv", ".jsonl.gz"."""
    name = file.name.lower()
    return Path(name.removesuffix(".gz")).suffix + (".gz" if name.endswith(".gz") else "")


def read(
    file: Path,
    check: Callable[[Any, str], Any],
    bad: BadRows | None = None,
    columns: Collection[str] | None = None,
) -> Iterator[Any]:
    """Yield the checked rows of a file, in order.

    `check` makes of a row and its place the row as it should be, or raises a DataError. `bad` takes such rows;
    `columns` is as for `rows`.

    Raises:
        DataError: A bad row more than `bad` takes, or a file that cannot be read to its end.
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
        file: `.parquet`, `.csv`, and JSON lines by any other name; `.gz` behind the last two.
        columns: Of a Parquet file, the ones that are read; the others have only a name in each row, and None. Without
            it all texts and binary values are read, wherever they stand in a row, and no other values.

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
    """Yield (place, row) as `rows` does, of an open file: CSV where `form` is ".csv", else JSON lines."""
    yield from (_csv if form == ".csv" else json_lines)(stream, name)


@contextmanager
def open_bytes(file: Path) -> Iterator[BinaryIO]:
    """Open a file to read bytes, unpacked if its name ends in .gz.

    Raises:
        DataError: There is no such file, it is Parquet, or it cannot be read to its end; raised from the block as well.
    """
    refuse_pointer(file)
    try:
        with gzip.open(file, "rb") if ending(file).endswith(".gz") else file.open("rb") as stream:
            if stream.peek(len(PARQUET)).startswith(PARQUET):
                named = ending(file) == ".parquet"
                mend = "do not name another format" if named else "end its name in .parquet"
                raise DataError(f"{file}: is Parquet, not text: {mend}")
            yield stream
    except FileNotFoundError:
        raise DataError(f"{file}: no such file: correct the name") from None
    except gzip.BadGzipFile as error:
        with file.open("rb") as stream:
            if stream.read(2) == GZIP:
                raise DataError(f"{file}: bytes that are not gzip follow its packed data: copy it again") from error
        raise DataError(f"{file}: is not gzip ({error}): take .gz off its name, or copy it again") from error
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read to its end ({error}): copy or download it again") from error


def lines(stream: BinaryIO | TextIO, name: str) -> Iterator[Any]:
    """Yield each line of a file, with its end.

    Raises:
        DataError: A line is longer than a row can be; the rest of the file is not looked at.
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

    Lines are bytes: text mode would end lines at more than the line feed, and hide where UTF-8 breaks. `name` is the
    file's, for places; a blank line is passed over.

    Raises:
        DataError: As `lines`.
    """
    for number, line in enumerate(lines(stream, name), start=1):
        if (line.removeprefix(BOM) if number == 1 else line).strip():
            where = f"{name} line {number}"
            yield where, _json(line, where, first=number == 1)


def text_lines(stream: BinaryIO, name: str) -> Iterator[tuple[str, str | DataError]]:
    """Yield (place, text) of each line, ended by a line feed only; one not in UTF-8 is a DataError in its place.

    Raises:
        DataError: As `lines`.
    """
    for number, line in enumerate(lines(stream, name), start=1):
        where = f"{name} line {number}"
        text = line.removeprefix(BOM) if number == 1 else line
        if b"\r" in line.removesuffix(b"\r\n"):
            yield where, DataError(f"{where}: {_RETURNS}")
            continue
        try:
            # Half of a surrogate pair passes: whoever checks the text names it.
            yield where, text.decode("utf-8", "surrogatepass").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            yield where, DataError(f"{where}: not UTF-8 (byte {error.start}): {_hint(line)}")


def _json(line: bytes, where: str, first: bool) -> Any:
    """The value of a line, or what is wrong with the line."""
    if not first and line.startswith(BOM):
        return DataError(f"{where}: a byte-order mark inside the file: files were joined: remove it")
    try:
        return parse_json(line)
    except UnicodeDecodeError as error:
        return DataError(f"{where}: not UTF-8 (byte {error.start}): {_hint(line)}")
    except json.JSONDecodeError as error:
        if b"\r" in line.strip():
            return DataError(f"{where}: {_RETURNS}")
        if first and line.removeprefix(BOM).lstrip()[:1] == b"[":
            return DataError(f"{where}: begins a JSON array over several lines: write one object a line (jq -c '.[]')")
        return DataError(f"{where}: not JSON ({error.msg}, column {error.colno}): one object a line is expected")
    except ValueError as error:
        return DataError(f"{where}: JSON that cannot be read ({error}): one plain object a line is expected")


def refuse_no_object(row: Any, where: str) -> None:
    """Refuse a row that has no columns: a DataError says what it is."""
    if not isinstance(row, Mapping):
        hint = ": write one object a line (jq -c '.[]')" if isinstance(row, list) else ""
        raise DataError(f"{where}: expected an object with columns, found {kind_of_value(row)}{hint}")


def kind_of_value(value: Any) -> str:
    """What a value is, in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


def strings(value: Any) -> Iterator[Any]:
    """Yield the texts and bytes in a value, however deep, and those in a list or an object that one of them spells."""
    left = [value]  # and no recursion: JSON may nest deeper than Python calls
    while left:
        value = left.pop()
        if isinstance(value, (str, bytes)):
            yield value
            value = _spelled(value)
        if isinstance(value, (dict, list, tuple)):  # Parquet's maps are lists of tuples
            left += reversed(value.values() if isinstance(value, dict) else value)


def _spelled(text: str | bytes) -> Any:
    """The list or object of JSON that a text is, as in cells of CSV; None if it is none."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if data.lstrip()[:1] in (b"[", b"{"):
        with suppress(ValueError):
            return parse_json(data)
    return None


def _csv(stream: BinaryIO, file: str) -> Iterator[tuple[str, Any]]:
    """Rows of a CSV file; one whose quotes are broken, or with a cell over the limit of Python's reader, ends it."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(lines(text, file), strict=True)
    start = 1
    try:
        names = next((row for row in reader.reader if "".join(row).strip()), [])
        reader.fieldnames = names  # before it blank lines, or commas alone as Excel writes them, are passed over
        _check_header(f"{file} line {reader.reader.line_num}", names)
        while True:
            start = reader.reader.line_num + 1
            row = next(reader, None)
            if row is None:
                return
            where = f"{file} line {reader.line_num}"
            if None in row or None in row.values():
                yield where, DataError(f"{where}: expected {len(names)} columns as the header has: fix its commas")
            else:
                yield where, row
    except UnicodeDecodeError as error:
        hint = _hint(bytes(error.object))
        raise DataError(f"{file} after line {reader.line_num}: not UTF-8 ({error.reason}): {hint}") from None
    except csv.Error as error:
        if "limit" in str(error):
            words = f"a cell of more than {csv.field_size_limit():,} characters: close its quote, or split the text"
        else:
            words = f"not a CSV file ({error}): fix its quotes"
        raise DataError(f"{file} line {start}: {words}") from None


def _refuse_twice(where: str, names: Sequence[str]) -> None:
    twice = first_twice(names)
    if twice is not None:
        raise DataError(f"{where}: column {twice!r} is there twice: rename one of the two")


def _check_header(where: str, names: Sequence[str]) -> None:
    _refuse_twice(where, names)
    if names[:1] == ["sep="]:
        raise DataError(f"{where}: is a note for Excel (sep=,), not the names of columns: remove the line")
    sign = next((sign for sign in _OTHER_SIGNS if len(names) == 1 and sign in names[0]), None)
    if sign is not None:
        words = f"the file seems to be separated by {_OTHER_SIGNS[sign]}: save it separated by commas"
        raise DataError(f"{where}: one column {names[0]!r}: {words}")


def _parquet(file: Path, columns: Collection[str] | None) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_pointer(file)
    number = 0
    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            _refuse_twice(str(file), names)
            asked = _texts_of(opened.schema) if columns is None else [name for name in names if name in columns]
            unread = dict.fromkeys(names)
            for batch in opened.iter_batches(BINARY_ROWS if columns is None else PARQUET_ROWS, columns=asked):
                # A name with a dot brings along what has its beginning as a name.
                read = [name for name in batch.schema.names if columns is None or name in asked]
                values = {name: _values(batch, name, file) for name in read}
                for place in range(batch.num_rows):
                    number += 1
                    yield f"{file} row {number}", unread | {name: column[place] for name, column in values.items()}
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} after row {number}: a text is not UTF-8 ({error.reason}): write the file anew"
        ) from None
    except FileNotFoundError:
        raise DataError(f"{file}: no such file: correct the name") from None
    except (pa.ArrowException, OSError) as error:
        with file.open("rb") as stream:
            start = stream.read(len(PARQUET))
        if start and not PARQUET.startswith(start[:4]):
            named = "gzip: unpack it" if start.startswith(GZIP) else "another format: end its name as that is named"
            raise DataError(f"{file}: is not Parquet but {named} ({', '.join(SUFFIXES[:-1])})") from error
        raise DataError(f"{file} after row {number}: not a readable Parquet file ({error}): copy it again") from error


def _texts_of(schema: Any) -> list[str]:
    """Paths of the columns that may hold texts in a Parquet schema, inside lists, maps and objects as well.

    Some writers, pandas with bytes among them, call a text a binary value.
    """
    leaves = [schema.column(number) for number in range(len(schema))]
    leaves = [leaf for leaf in leaves if leaf.physical_type.endswith("BYTE_ARRAY")]
    return [leaf.path for leaf in leaves if leaf.logical_type.type in ("STRING", "JSON", "ENUM", "NONE")]


def _values(batch: Any, name: str, file: Path) -> list[Any]:
    """A column as Python has it; a far date or an unknown time zone is nothing that Python has."""
    try:
        return batch.column(name).to_pylist()
    except UnicodeDecodeError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        kind = batch.schema.field(name).type
        raise DataError(f"{file}: column {name!r} ({kind}) cannot be read ({error}): write it as text") from error


def _hint(start: bytes) -> str:
    """What a file is that is not UTF-8, by its first bytes, and what to do."""
    if start.startswith(GZIP):
        return "the file is gzip: end its name in .gz"
    if start.startswith(_UTF16):
        return "the file is UTF-16: save it as UTF-8"
    return "save the file as UTF-8"
