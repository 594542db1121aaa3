"""What a row of training data is, and what is said of a row that is wrong.

A pair: `query`, `positive` (list of texts, at least one), `negative` (list, may be empty), and, where known,
`instruction` or `task` (a name of the prompt table), `label`, `cluster`, `source`. A passage: `text` and `source`. A
labelled text: `text`, `label` and `source`; labels are comparable within one source.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Literal

from lusifer.errors import DataError
from lusifer.io.rows import kind_of_value, refuse_no_object
from lusifer.prompts import INVISIBLE, check_text

Row = dict[str, Any]
Lists = Literal["spelled", "refused", "texts"]
"""What a text in place of a list may be: one that spells a JSON list, as in CSV; refused where it spells a list of
Python's, as pandas writes it; or always one text."""

_TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PYTHON_LIST = re.compile(rf"\[\s*{_TEXT}(?:[\s,]+{_TEXT})*\s*\]", re.DOTALL)  # numpy prints no commas
_SPACES = re.compile(r"[^\S\n]+")
_UNSEEN = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe]|{INVISIBLE}")
_WHOLE = re.compile(r"-?\d{1,18}")
MAX_CHARACTERS = 200_000  # of one text: a book in one row is a broken file, and would stop a run for minutes


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
        row: Column -> value, as read from a file. In place of a list, one text stands for a list of one.
        where: Its place, for messages, as in "pairs.jsonl line 3".
        fields: Our column -> the row's column, where the names differ.
        lists: What a text in place of a list of texts may be.
        rename: What the user writes before "COLUMN=NAME" to give another column; None is a recipe's `fields`.

    Returns:
        A row with all columns of its kind: an unknown `negative` is [], another unknown value None.

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
    """Give a text in Unicode NFC, runs of spaces as one, without characters that nobody sees and space around it.

    Joiners of Persian and of Indic scripts stay, and so do line breaks.
    """
    return _SPACES.sub(" ", _composed(text.replace("\r\n", "\n"))).strip()


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", _UNSEEN.sub("", text))  # what stood around an unseen character is composed


# That end a sentence or a part of it in the scripts that have signs of their own
_STOPS = (
    ".,;:?!\u2026\u037e\u0589\u060c\u061b\u061f\u06d4\u0964\u0965\u104b\u1362\u17d4"
    "\u3001\u3002\uff01\uff0c\uff0e\uff1a\uff1b\uff1f\uff61"
)
_QUOTES = '"\u00ab\u00bb\u201c-\u201f\u300c-\u300f'
_QUOTED = re.compile(rf"[{_QUOTES}]\s*([^{_QUOTES}]+?)\s*[{_QUOTES}]")
# 5!, n!; not in 1998!, at 7:30!
_FACTORIAL = re.compile(r"(?:(?<![\w.,:/$\u00a3\u20ac])(?<!\d-)\d{1,3}|(?<!\w)[^\W\d])!\Z")


def same_text(text: str) -> str:
    """Give the key by which two texts are the same.

    It leaves out case, the width of spaces, punctuation at the end of the text and quotation marks around all of it,
    and nothing else: a sign, a symbol, an emoji or a point inside makes another text. An exclamation mark behind a
    number below 1000 or a single letter stays (5!, n!), and so does a text of nothing but punctuation.
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
    """Give 64 bits of one text or of several in their order; equal for texts that are the same by `same_text`."""
    joined = "\x00".join(map(same_text, texts))
    return int.from_bytes(hashlib.blake2b(joined.encode(), digest_size=8).digest(), "little")


def kind_of(row: Any, where: str) -> str:
    """Tell the kind of rows ("pairs", "passages" or "labelled") of a file by the columns of its first one.

    Raises:
        DataError: It has neither `query` nor `text`, or is no object; the message begins with `where`.
    """
    refuse_no_object(row, where)
    if "query" in row:
        return "pairs"
    if "text" in row:
        return "labelled" if "label" in row else "passages"
    found = ", ".join(map(str, row)) or "none"
    raise DataError(
        f"{where}: neither a column query (pairs) nor text (passages) in it (found {found}): rename the columns, "
        "or name them with fields"
    )


def _refuse_missing(row: Any, where: str, column: str, name: str, rename: str | None) -> None:
    refuse_no_object(row, where)
    if name not in row:
        there = ", ".join(map(str, row)) or "none"
        how = f"{rename}{column}=NAME" if rename else f"fields: {{{column}: NAME}} in the recipe"
        raise DataError(f"{where}: column {name} is missing (the row has {there}): add it, or say its name: {how}")


def _texts(value: Any, where: str, lists: Lists) -> list[str]:
    """A list of texts; null is an empty one, a text a list of one or, in CSV, the JSON list that it spells."""
    if value is None or value == "":
        return []
    if isinstance(value, str) and lists != "texts" and value.lstrip().startswith("["):
        value = _list(value.strip(), where, lists)
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{where}: expected a list of texts, found {kind_of_value(value)}")
    return [_text(text, f"{where}, item {number}") for number, text in enumerate(value, start=1)]


def _text(value: Any, where: str) -> str:
    """A text that can be trained on."""
    text = check_text(value, where)
    if len(text) > MAX_CHARACTERS:
        limit = f"more than the {MAX_CHARACTERS:,} that one row may have"
        raise DataError(f"{where}: the text has {len(text):,} characters, {limit}: split it into passages")
    return text


def _list(text: str, where: str, lists: Lists) -> Any:
    """The list that a cell of CSV spells, or the text itself: prose may begin with a bracket."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and brackets in brackets
        if _PYTHON_LIST.fullmatch(text):
            raise DataError(
                f'{where}: a list as Python writes it ({_start(text)}): write a JSON list, ["a", "b"] (json.dumps '
                "gives it); a text that looks so must stand in a list of one"
            ) from None
        if lists == "spelled" and isinstance(error, json.JSONDecodeError) and _damaged(text, error):
            problem = f"begins as a JSON list ({_start(text)}) and is none: {error.msg}, character {error.pos + 1}"
            raise DataError(f'{where}: {problem}: complete it, as in ["a", "b"]') from None
        return text
    return value if lists == "spelled" and isinstance(value, list) else text


def _damaged(text: str, error: json.JSONDecodeError) -> bool:
    """Whether a text is a JSON list of texts with a fault in it or cut off, and not prose that begins with a quote."""
    cut = error.pos >= len(text) or error.msg.startswith("Unterminated string")
    return text[1:].lstrip().startswith('"') and (cut or text.endswith('"]'))


def _start(text: str) -> str:
    flat = " ".join(text[:80].split())
    return flat if len(text) <= 40 else flat[:39] + "…"


def _word(value: Any, where: str) -> str | None:
    """A text or nothing; blank is nothing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return check_text(value, where)


def _label(value: Any, where: str) -> str | None:
    """A label as text: only equality counts, and one column of a table has one type."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        whole = f" or {value:.0f}" if value.is_integer() else ""
        raise DataError(f'{where}: expected a text or a whole number, found {value}: write "{value}"{whole}')
    return _word(value, where)


def _number(value: Any, where: str) -> int | None:
    """A whole number or nothing; CSV gives it as text."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        raise DataError(f"{where}: the number has more than 18 digits: number clusters from 0")
    if isinstance(value, bool) or not isinstance(value, int):
        found = {float: str, str: repr}.get(type(value), kind_of_value)(value)
        mend = f"write {value:.0f}" if isinstance(value, float) and value.is_integer() else "number clusters from 0"
        raise DataError(f"{where}: expected a whole number, found {found:.40}: {mend}")
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
    "labelled": {"text": "", "label": "expected a text or a whole number, found nothing: fill it"},
}
"""Kind -> columns that a row must have, each with what is said where nothing stands in it (`_text` refuses itself)."""
COLUMNS: Mapping[str, tuple[str, ...]] = {kind: tuple(columns) for kind, columns in _COLUMNS.items()}
"""Kind of rows -> the columns of a checked row."""
