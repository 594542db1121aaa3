"""Read parallel text: the same sentences in several languages, from a file or from the sample in the package.

A file (JSON lines, CSV or Parquet) has one row per sentence, with a key per language code, `{"en": "...", "sw":
"..."}`. Every row has the same keys. A key `topic` is optional.

The sample is `parallel.jsonl`, next to this file: 28 sentences on seven topics, each in the 14 languages of the paper.
It was written for this project, under its licence (Apache-2.0). The sentences are few and easy: good for a first look,
not for a score. The models of the package were neither trained nor tuned on them.
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
from lusifer.io.files import expand_user, refuse_no_file
from lusifer.io.rows import SUFFIXES, ending, header_hint, json_lines
from lusifer.io.rows import rows as read_rows

SAMPLE = "sample"
ENGLISH, TOPIC = "en", "topic"
_CODE = re.compile(r"[a-z]{2,3}([-_][A-Za-z0-9]+)*")
_ROW_NAME = re.compile(r"[\x21-\x7e]*[0-9][\x21-\x7e]*")
"""The form of a row's number or name, such as 12, r1, doc-7 or 9f3c-0b: no space, and a digit."""
_EXPECTED = 'write one object per row, such as {"en": "...", "sw": "..."}'


@dataclass(frozen=True)
class Parallel:
    """Sentences in several languages.

    texts: Language code -> sentences; number i is the same sentence in every language.
    topics: The topic of each sentence; None if the file has no topics.
    """

    texts: dict[str, tuple[str, ...]]
    topics: tuple[str, ...] | None = None

    @property
    def sentences(self) -> int:
        """The number of sentences in each language."""
        return len(self.texts[ENGLISH])


def sample() -> Parallel:
    """Read the sample of the package."""
    file = resources.files("lusifer.io").joinpath("parallel.jsonl")
    return _parse(json_lines(io.BytesIO(file.read_bytes()), "the sample"), "the sample")


def read(source: str | Path) -> Parallel:
    """Read parallel text from a file, or the sample ("sample"); languages are in the order of the first row.

    Raises:
        DataError: The file cannot be read, or a row is invalid or has other keys than the first one. The message names
            the file, the line and the key.
    """
    if str(source) == SAMPLE:
        return sample()
    file = expand_user(source)
    refuse_no_file(file, f"correct the name, or give `{SAMPLE}`")
    if ending(file) not in SUFFIXES:
        raise DataError(f"{file}: unknown ending: give a file ({', '.join(SUFFIXES)}), or `{SAMPLE}`")
    return _parse(read_rows(file), str(file))


def _parse(found: Iterable[tuple[str, Any]], name: str) -> Parallel:
    """Parallel text from (place, row) pairs; `name` is the file's, for messages."""
    rows: list[dict[str, str]] = []
    for where, value in found:
        rows.append(_row(value, where, rows[0] if rows else None))
    if not rows:
        raise DataError(f"{name}: no rows: {_EXPECTED}")
    texts = {code: tuple(row[code] for row in rows) for code in rows[0] if code != TOPIC}
    for code, said in texts.items():
        if _names_rows(code, said):
            words = f"its values, such as {said[0]!r:.40}, look like names of rows, not like sentences in a language"
            raise DataError(f"{name}: key {code}: {words}: remove or rename the key")
    return Parallel(texts, tuple(row[TOPIC] for row in rows) if TOPIC in rows[0] else None)


def _names_rows(code: str, texts: tuple[str, ...]) -> bool:
    """Whether a column with the name of a language has names of rows: `id` is also Indonesian, `no` Norwegian.

    That is so if at least half of its texts have a digit and no space. For `id` also if no text has a space.
    """
    named = sum(_ROW_NAME.fullmatch(text.strip()) is not None for text in texts)
    return 2 * named >= len(texts) or (code.lower() == "id" and not any(len(text.split()) > 1 for text in texts))


def _row(row: Any, where: str, first: dict[str, str] | None) -> dict[str, str]:
    """Check a row, by itself and against the first one."""
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, dict):
        raise DataError(f"{where}: found {type(row).__name__}: {_EXPECTED}")
    for key, text in row.items():
        if key != TOPIC and not _CODE.fullmatch(key):
            words = f"key {key!r} is no language code{header_hint(row)}"
            raise DataError(f"{where}: {words}: use codes such as en, zh-Hans, or remove it")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: key {key}: expected a sentence, found {text!r:.40}: add it, or remove the row")
        if not text.isascii() and re.search(r"[\ud800-\udfff]", text):
            raise DataError(f"{where}: key {key}: lone surrogate in the text: remove it")
    if first is None:
        if ENGLISH not in row or len(row.keys() - {TOPIC}) < 2:
            words = f"key {ENGLISH} and at least one other language are needed{header_hint(row)}"
            raise DataError(f"{where}: {words}: add them")
    elif row.keys() != first.keys():
        key = min(row.keys() ^ first.keys())
        state = "is missing" if key in first else "is not in the rows before"
        raise DataError(f"{where}: key {key} {state}: give every row the same keys, or remove the row")
    return row
