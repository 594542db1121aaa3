"""Check rows of training data.

- A pair has `query`, `positive` (a list of at least one text), `negative` (a list, may be empty), and optionally
  `instruction` or `task` (a name in `prompts.toml`), `label`, `cluster` and `source`.
- A passage has `text` and optionally `source`.
- A labelled text has `text`, `label` and optionally `source`. Labels are comparable within one source.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Literal

from lusifer.errors import DataError
from lusifer.io.rows import columns, kind_of_value, refuse_no_object
from lusifer.prompts import INVISIBLE, check_text

Row = dict[str, Any]
Lists = Literal["spelled", "refused", "texts"]
"""How a text in place of a list is read. "spelled": as JSON if it is a JSON list, as in CSV. "refused": as one text,
but refused if it looks like a Python list, as pandas writes it. "texts": always as one text."""

_TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PYTHON_LIST = re.compile(rf"\[\s*{_TEXT}(?:[\s,]+{_TEXT})*\s*\]", re.DOTALL)  # numpy writes no commas
_SPACES = re.compile(r"[^\S\n]+")
_UNSEEN = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe]|{INVISIBLE}")
_WHOLE = re.compile(r"-?\d{1,18}")
MAX_CHARACTERS = 200_000  # of one text: a book in one row is probably an error, and would block a run for minutes


def check(
    kind: str,
    row: Any,
    where: str,
    fields: Mapping[str, str] | None = None,
    lists: Lists = "texts",
    rename: str | None = None,
) -> Row:
    """Check a row of a file.

    Args:
        kind: "pairs", "passages" or "labelled".
        row: Column -> value, as read from a file. One text in place of a list is a list of one.
        where: Its place, the start of the message, such as "pairs.jsonl line 3".
        fields: Our column -> the row's column, where the names differ.
        lists: How a text in place of a list is read.
        rename: What messages advise in front of "COLUMN=NAME"; None is a recipe's `fields`.

    Returns:
        A row with all columns of its kind. A missing `negative` is [], other missing values are None.

    Raises:
        DataError: The message names the place, the column, what was expected and what was found.
    """
    names = fields or {}
    for column in REQUIRED[kind]:
        _refuse_missing(row, where, column, names.get(column, column), rename)
    checked = {}
    for column, parse in _COLUMNS[kind].items():
        value, place = row.get(names.get(column, column)), f"{where}: column {column}"
        checked[column] = _texts(value, place, lists) if parse is _texts else parse(value, place)
        if checked[column] in (None, []) and column in REQUIRED[kind]:
            raise DataError(f"{place}: {REQUIRED[kind][column]}")
    return checked


def normalise(text: str) -> str:
    """Normalise a text: Unicode NFC, single spaces, no invisible characters, no space at the start and end.

    Line breaks stay, and so do the joiners of Persian and of Indic scripts.
    """
    return _SPACES.sub(" ", _composed(text.replace("\r\n", "\n"))).strip()


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", _UNSEEN.sub("", text))  # NFC last: it composes across removed characters


# Punctuation that ends a sentence or a clause, in all scripts that have signs of their own
_STOPS = (
    ".,;:?!\u2026\u037e\u0589\u060c\u061b\u061f\u06d4\u0964\u0965\u104b\u1362\u17d4"
    "\u3001\u3002\uff01\uff0c\uff0e\uff1a\uff1b\uff1f\uff61"
)
_QUOTES = '"\u00ab\u00bb\u201c-\u201f\u300c-\u300f'
_QUOTED = re.compile(rf"[{_QUOTES}]\s*([^{_QUOTES}]+?)\s*[{_QUOTES}]")
# 5!, n!; not in 1998!, at 7:30!
_FACTORIAL = re.compile(r"(?:(?<![\w.,:/$\u00a3\u20ac])(?<!\d-)\d{1,3}|(?<!\w)[^\W\d])!\Z")


def same_text(text: str) -> str:
    """Return the key by which two texts count as the same.

    The key leaves out case, the width of spaces, punctuation at the end and quotation marks around the text. Everything
    else counts: signs, symbols, emoji, and punctuation inside the text. An exclamation mark after a number below 1000
    or a single letter stays (5!, n!), and so does a text of punctuation only.
    """
    key = plain = " ".join(unicodedata.normalize("NFC", _composed(text).casefold()).split())
    while True:
        shorter = key.rstrip(_STOPS + " ")
        if _FACTORIAL.search(key[max(len(shorter) - 6, 0) : len(shorter) + 1]):
            shorter = key[: len(shorter) + 1]
        if quoted := _QUOTED.fullmatch(shorter):
            shorter = quoted[1]
        if shorter == key:
            return key or plain
        key = shorter


def text_hash(*texts: str) -> int:
    """Return a 64-bit hash of one text, or of several in order; equal for texts that are the same by `same_text`."""
    joined = "\x00".join(map(same_text, texts))
    return int.from_bytes(hashlib.blake2b(joined.encode(), digest_size=8).digest(), "little")


def kind_of(row: Any, where: str) -> str:
    """Return the kind of a row by its columns: "pairs", "passages" or "labelled".

    Args:
        row: The row.
        where: Its place, the start of the message.

    Raises:
        DataError: The row has neither `query` nor `text`, or is no object.
    """
    refuse_no_object(row, where)
    if "query" in row:
        return "pairs"
    if "text" in row:
        return "labelled" if "label" in row else "passages"
    words = "neither a column query (pairs) nor text (passages)"
    raise DataError(f"{where}: {words} (found {columns(row)}): rename the columns, or map them with fields")


def _refuse_missing(row: Any, where: str, column: str, name: str, rename: str | None) -> None:
    refuse_no_object(row, where)
    if name not in row:
        how = f"{rename}{column}=NAME" if rename else f"fields: {{{column}: NAME}} in the recipe"
        raise DataError(f"{where}: column {name} is missing (found {columns(row)}): add it, or give its name: {how}")


def _texts(value: Any, where: str, lists: Lists) -> list[str]:
    """A list of texts. Null is an empty list; a text is a list of one or, in CSV, may be a JSON list."""
    if value is None or value == "":
        return []
    if isinstance(value, str) and lists != "texts" and value.lstrip().startswith("["):
        value = _list(value.strip(), where, lists)
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{where}: expected a list of texts, found {kind_of_value(value)}: correct it")
    return [_text(text, f"{where}, item {number}") for number, text in enumerate(value, start=1)]


def _text(value: Any, where: str) -> str:
    """A text that can be trained on."""
    text = check_text(value, where)
    if len(text) > MAX_CHARACTERS:
        words = f"the text has {len(text):,} characters (at most {MAX_CHARACTERS:,})"
        raise DataError(f"{where}: {words}: split it into passages")
    return text


def _list(text: str, where: str, lists: Lists) -> Any:
    """The JSON list in a cell of CSV, or the text itself: prose may begin with a bracket."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and brackets in brackets
        if _PYTHON_LIST.fullmatch(text):
            raise DataError(
                f'{where}: a Python list ({_start(text)}): write a JSON list such as ["a", "b"] (json.dumps); if it is '
                "one text, write a JSON list of this text"
            ) from None
        if lists == "spelled" and isinstance(error, json.JSONDecodeError) and _damaged(text, error):
            problem = f"a damaged JSON list ({_start(text)}): {error.msg}, character {error.pos + 1}"
            raise DataError(f'{where}: {problem}: complete it, as in ["a", "b"]') from None
        return text
    return value if lists == "spelled" and isinstance(value, list) else text


def _damaged(text: str, error: json.JSONDecodeError) -> bool:
    """Whether a text is a broken or truncated JSON list of texts, and not prose that begins with a quote."""
    cut = error.pos >= len(text) or error.msg.startswith("Unterminated string")
    return text[1:].lstrip().startswith('"') and (cut or text.endswith('"]'))


def _start(text: str) -> str:
    flat = " ".join(text[:80].split())
    return flat if len(text) <= 40 else flat[:39] + "…"


def _word(value: Any, where: str) -> str | None:
    """A text; None if it is blank."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return check_text(value, where)


def _label(value: Any, where: str) -> str | None:
    """A label as text: only equality counts, and one column of a table has one type."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        whole = f" or {value:.0f}" if value.is_integer() else ""
        raise DataError(f'{where}: expected a text or an integer, found {value}: write "{value}"{whole}')
    return _word(value, where)


def _number(value: Any, where: str) -> int | None:
    """An integer, also from text as in CSV; None if it is empty."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        raise DataError(f"{where}: the number has more than 18 digits: number clusters from 0")
    if isinstance(value, bool) or not isinstance(value, int):
        found = {float: str, str: repr}.get(type(value), kind_of_value)(value)
        fix = f"write {value:.0f}" if isinstance(value, float) and value.is_integer() else "number clusters from 0"
        raise DataError(f"{where}: expected an integer, found {found:.40}: {fix}")
    return value


_COLUMNS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "pairs": {
        "query": _text, "positive": _texts, "negative": _texts, "instruction": _word, "task": _word, "label": _label,
        "cluster": _number, "source": _word,
    },
    "passages": {"text": _text, "source": _word},
    "labelled": {"text": _text, "label": _label, "source": _word},
}  # fmt: skip
REQUIRED: Mapping[str, Mapping[str, str]] = {
    "pairs": {"query": "", "positive": "expected at least one text, found an empty list: remove the row"},
    "passages": {"text": ""},
    "labelled": {"text": "", "label": "expected a text or an integer, found nothing: fill it"},
}
"""Kind -> columns that a row must have, each with the message if it is empty (`_text` has its own)."""
COLUMNS: Mapping[str, tuple[str, ...]] = {kind: tuple(columns) for kind, columns in _COLUMNS.items()}
"""Kind of rows -> the columns of a checked row."""
