"""Read texts from a file, row by row, each with the place it comes from."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from lusifer.errors import DataError, UsageError
from lusifer.prompts import check_text

ENDINGS = (".txt", ".jsonl", ".parquet")
STDIN = "-"
BOM = b"\xef\xbb\xbf"
ROWS_AT_ONCE = 4096


class Source:
    """A file of texts: .txt (a text a line), .jsonl or .parquet (one field of each row), or standard input.

    Args:
        path: The file, or "-": standard input, a text a line, is read once and kept.
        field: Field or column that holds the text.

    Raises:
        UsageError: No such file, or an unknown ending.
    """

    def __init__(self, path: str, field: str = "text") -> None:
        self.path, self.field = Path(path).expanduser(), field
        self.name = "standard input" if path == STDIN else str(path)
        self.ending = ".txt" if path == STDIN else self.path.suffix.lower()
        self._lines: list[bytes] | None = sys.stdin.buffer.readlines() if path == STDIN else None
        if self.ending not in ENDINGS:
            raise UsageError(f"{path}: unknown ending {self.ending!r}: use {', '.join(ENDINGS)}, or - (standard input)")
        if self._lines is None and not self.path.is_file():
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
        for where, text in self._raw():
            yield where, check_text(text, where)

    def _raw(self) -> Iterator[tuple[str, object]]:
        if self.ending == ".parquet":
            yield from self._parquet()
        elif self._lines is not None:
            yield from self._each_line(self._lines)
        else:
            with self.path.open("rb") as lines:
                yield from self._each_line(lines)

    def _each_line(self, lines: Iterable[bytes]) -> Iterator[tuple[str, object]]:
        """Bytes: text mode would end lines at more than the line feed, and hide where UTF-8 breaks."""
        for number, line in enumerate(lines, start=1):
            where = f"{self.name} line {number}"
            text = _decode(line.removeprefix(BOM) if number == 1 else line, where).removesuffix("\n").removesuffix("\r")
            yield where, self._json_field(text, where) if self.ending == ".jsonl" else text

    def _json_field(self, line: str, where: str) -> object:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno}): one object a line") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
            raise DataError(f"{where}: JSON that cannot be read ({error}): one plain object a line") from None
        if not isinstance(row, dict) or self.field not in row:
            has = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
            raise DataError(f"{where}: no field {self.field!r} (found {has or 'none'}): name it with --field")
        return row[self.field]

    def _parquet(self) -> Iterator[tuple[str, object]]:
        import pyarrow
        import pyarrow.parquet as parquet

        try:
            file = parquet.ParquetFile(self.path)
        except pyarrow.ArrowInvalid as error:
            raise DataError(f"{self.name}: no readable Parquet file ({str(error).splitlines()[0]})") from None
        with file:
            if self.field not in file.schema_arrow.names:
                names = ", ".join(file.schema_arrow.names)
                raise DataError(f"{self.name}: no column {self.field!r} (found {names}): name it with --field")
            number = 0
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=[self.field]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    yield f"{self.name} row {number}", text


def _decode(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        try:
            # Half a surrogate pair written as if it were a character: the check behind this says so by its name.
            return line.decode("utf-8", errors="surrogatepass")
        except UnicodeDecodeError:
            raise DataError(f"{where}: not UTF-8 at byte {error.start}: save the file as UTF-8") from None
