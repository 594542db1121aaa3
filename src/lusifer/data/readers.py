"""Rows as they stand in a file, each with its place; what cannot be read is said with the place and the mend."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from lusifer.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
_ROWS = 10_000  # of a Parquet file in memory at once
_UTF16, _GZIP = (b"\xff\xfe", b"\xfe\xff"), b"\x1f\x8b"  # what such files begin with
_OTHER_SIGNS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # of files that are called CSV


@dataclass
class BadRows:
    """Rows that are left out instead of stopping the work: at most `limit`, each with its message."""

    limit: int = 0
    messages: list[str] = field(default_factory=list)

    def take(self, error: DataError) -> None:
        """Note a bad row.

        Raises:
            DataError: It is one more than allowed; the message is that of the row.
        """
        if len(self.messages) >= self.limit:
            if not self.limit:
                raise error
            raise DataError(f"{error} (bad row {self.limit + 1:,}, and no more than {self.limit:,} may be skipped)")
        self.messages.append(str(error))


def read(file: Path, check: Callable[[Any, str], Any], bad: BadRows | None = None) -> Iterator[Any]:
    """Yield the checked rows of a file, in order.

    Args:
        file: Of one of `SUFFIXES`.
        check: Row, place -> the row as it should be; raises DataError.
        bad: Takes rows that are not what they should be. A file that cannot be read to its end is no bad row.

    Raises:
        DataError: A bad row more than `bad` takes, or a damaged file.
    """
    bad = bad if bad is not None else BadRows()
    for where, row in _raw(file):
        try:
            if isinstance(row, DataError):
                raise row
            checked = check(row, where)
        except DataError as error:
            bad.take(error)
        else:
            yield checked


def _raw(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield (place, row) from a file of any kind; a row that cannot be read is a DataError in its place."""
    if file.name.endswith(".parquet"):
        yield from _parquet(file)
        return
    try:
        with gzip.open(file, "rb") if file.name.endswith(".gz") else file.open("rb") as stream:
            yield from (_jsonl if file.name.removesuffix(".gz").endswith(".jsonl") else _csv)(file, stream)
    except gzip.BadGzipFile as error:
        raise DataError(f"{file}: is not gzip ({error}): take .gz off its name, or copy it again") from error
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read to its end ({error}): copy or download it again") from error


def _jsonl(file: Path, stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(stream, start=1):
        where = f"{file} line {number}"
        if line.strip():
            yield where, _object(line, where, first=number == 1)


def _object(line: bytes, where: str, first: bool) -> Any:
    """The object of a line, or what is wrong with the line."""
    try:
        return json.loads(line.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError as error:
        return DataError(f"{where}: not UTF-8 (byte {error.start}): {_hint(line)}")
    except json.JSONDecodeError as error:
        if first and line.lstrip()[:1] == b"[":
            return DataError(f"{where}: begins a JSON array over several lines: write one object a line (jq -c '.[]')")
        problem = f"not JSON ({error.msg}, column {error.colno})"
        return DataError(f"{where}: {problem}: one object a line is expected")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
        return DataError(f"{where}: JSON that cannot be read ({error}): one plain object a line")


def _csv(file: Path, stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    lines: list[str] = []  # of the row that is being read
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(_remembering(text, lines), strict=True)
    try:
        names = reader.fieldnames or ()
        _check_header(file, names)
        while True:
            lines.clear()
            start = reader.reader.line_num + 1  # that of the DictReader stays behind after a bad row
            try:
                row = next(reader, None)
            except csv.Error as error:
                if (found := _large(lines, names)) is None:
                    raise
                blank = next(number for number, line in enumerate(lines) if line.strip("\r\n"))
                del lines[:blank]
                where = f"{file} line {start + blank}"
                if len(lines) > 1 or lines[0].count('"') % 2:  # who knows where the next row begins
                    raise DataError(f"{where}: {found}") from error
                yield where, DataError(f"{where}: {found}")
                continue
            if row is None:
                return
            where = f"{file} line {reader.line_num}"
            if None in row or None in row.values():
                yield where, DataError(f"{where}: expected {len(names)} columns as in the first line: mend its commas")
            else:
                yield where, row
    except UnicodeDecodeError as error:
        hint = _hint(bytes(error.object))
        raise DataError(f"{file} after line {reader.line_num}: not UTF-8 ({error.reason}): {hint}") from None
    except csv.Error as error:
        raise DataError(f"{file} after line {reader.line_num}: not a CSV file ({error}): mend its quotes") from None


def _check_header(file: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{file} line 1: column {twice[0]!r} is there twice: rename one of the two")
    sign = next((sign for sign in _OTHER_SIGNS if len(names) == 1 and sign in names[0]), None)
    if sign is not None:
        raise DataError(
            f"{file} line 1: one column {names[0]!r}: the file seems to be separated by {_OTHER_SIGNS[sign]}: "
            "save it separated by commas"
        )


def _remembering(stream: Iterable[str], lines: list[str]) -> Iterator[str]:
    """The lines of a file, each put into `lines` too."""
    for line in stream:
        lines.append(line)
        yield line


def _large(lines: Sequence[str], names: Sequence[str]) -> str | None:
    """What is wrong with a row that has a cell of more characters than Python's CSV reader takes; None if none has."""
    limit = csv.field_size_limit()
    place = length = 0
    quoted = False
    for character in "".join(lines):
        quoted ^= character == '"'
        if character == "," and not quoted:
            place, length = place + 1, 0
        elif (length := length + 1) > limit:
            name = names[place] if place < len(names) else place + 1
            mend = "close its quote, or split the text into passages"
            return f"column {name}: a cell of more than {limit:,} characters: {mend}"
    return None


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield f"{file} row {number}", row
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} after row {number}: a text is not UTF-8 ({error.reason}): write the file anew"
        ) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file} after row {number}: not a readable Parquet file ({error}): copy it again") from error


def _hint(start: bytes) -> str:
    """What a file is that is not UTF-8, by its first bytes, and the mend."""
    if start.startswith(_GZIP):
        return "the file is gzip: end its name in .gz"
    if start.startswith(_UTF16):
        return "the file is UTF-16: save it as UTF-8"
    return "save the file as UTF-8"
