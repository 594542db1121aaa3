"""Parallel text: the same sentences in several languages, from a file or from the sample in the package.

A file has one row (JSON lines, CSV or Parquet) for a sentence by language code, `{"en": "...", "sw": "..."}`, the same
codes in every row, and perhaps its `topic`.

The sample, `parallel.jsonl` beside this file: 28 sentences on seven topics, each in the 14 languages of the paper.
Written for this project, under its licence (Apache-2.0). They are few and easy: good for a look, not for a score. The
models that come along were not trained on them, and nothing of those models was tuned by them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from lusifer.errors import DataError
from lusifer.io.rows import SUFFIXES, ending, json_lines
from lusifer.io.rows import rows as read_rows

SAMPLE = "sample"
ENGLISH, TOPIC = "en", "topic"
_CODE = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]+)*")
_ROW_NAME = re.compile(r"[\x21-\x7e]*[0-9][\x21-\x7e]*")
"""How a number or a name of a row looks, as in 12, r1, doc-7 or 9f3c-0b: no space, and a digit."""
_EXPECTED = "rows of a sentence by language code are expected"


@dataclass(frozen=True)
class Parallel:
    """`texts[code][i]` says the same in every language; `topics[i]` is what it is about, None where a file has none."""

    texts: dict[str, tuple[str, ...]]
    topics: tuple[str, ...] | None = None

    @property
    def sentences(self) -> int:
        """How many there are in each language."""
        return len(self.texts[ENGLISH])


def sample() -> Parallel:
    """Read the sentences in the package."""
    file = resources.files("lusifer.io").joinpath("parallel.jsonl")
    return _parse(json_lines(io.BytesIO(file.read_bytes()), "the sample"), "the sample")


def read(source: str | Path) -> Parallel:
    """Read parallel text from a file of rows or "sample"; languages in the order of the first row.

    Raises:
        DataError: The file cannot be read, or a line is not like the others; the message has the file, the line, the
            key and what to do.
    """
    if str(source) == SAMPLE:
        return sample()
    file = Path(source).expanduser()
    if ending(file) not in SUFFIXES:
        raise DataError(f"{file}: give a file of rows ({', '.join(SUFFIXES)}), or `{SAMPLE}`")
    if not file.is_file():
        raise DataError(f"{file}: no such file: correct the name, or give `{SAMPLE}`")
    return _parse(read_rows(file), str(file))


def _parse(found: Iterable[tuple[str, Any]], name: str) -> Parallel:
    """The sentences of a file by its rows, each with its place."""
    rows: list[dict[str, str]] = []
    for where, value in found:
        rows.append(_row(value, where, rows[0] if rows else None))
    if not rows:
        raise DataError(f"{name}: holds no row: {_EXPECTED}")
    texts = {code: tuple(row[code] for row in rows) for code in rows[0] if code != TOPIC}
    for code, said in texts.items():
        if _names_rows(code, said):
            words = f"is the code of a language, and its texts, as {said[0]!r:.40}, look like names of the rows"
            raise DataError(f"{name}: key {code}: {words}, not like sentences: take the key out")
    return Parallel(texts, tuple(row[TOPIC] for row in rows) if TOPIC in rows[0] else None)


def _names_rows(code: str, texts: tuple[str, ...]) -> bool:
    """Whether a column that is called like a language names the rows: `id` is Indonesian as well, `no` Norwegian.

    One is where at least half of its texts have no space and a digit; of `id` also where no text has a space.
    """
    named = sum(_ROW_NAME.fullmatch(text.strip()) is not None for text in texts)
    return 2 * named >= len(texts) or (code.lower() == "id" and not any(len(text.split()) > 1 for text in texts))


def _row(row: Any, where: str, first: dict[str, str] | None) -> dict[str, str]:
    """One line, checked by itself and against the first."""
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, dict):
        raise DataError(f"{where}: found {type(row).__name__}: {_EXPECTED}")
    for key, text in row.items():
        if key != TOPIC and not _CODE.fullmatch(key):
            raise DataError(f"{where}: key {key!r} is no language code: name it as in en or zh-Hans, or take it out")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: key {key}: expected a sentence, found {text!r:.40}: write it, or drop the line")
        if not text.isascii() and re.search(r"[\ud800-\udfff]", text):
            raise DataError(f"{where}: key {key}: half a surrogate pair, which is no character: correct the text")
    if first is None:
        if ENGLISH not in row or len(row.keys() - {TOPIC}) < 2:
            raise DataError(f"{where}: key {ENGLISH} and at least one other language are needed: add them")
    elif row.keys() != first.keys():
        key = min(row.keys() ^ first.keys())
        state = "is missing" if key in first else "is not in the lines before"
        raise DataError(f"{where}: key {key} {state}: every line needs the same keys; correct it, or take the line out")
    return row
