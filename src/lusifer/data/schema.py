"""What a row of training data is, and the message that a row gets which is not.

A pair: `query`, `positive` (list of texts, at least one), `negative` (list, may be empty), and, where known,
`instruction` or `task` (a name of the prompt table), `label`, `cluster`, `source`. A passage: `text` and `source`. A
labelled text: `text`, `label` and `source`; labels are comparable within one source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from lusifer.errors import DataError
from lusifer.prompts import check_text

Row = dict[str, Any]
Lists = Literal["spelled", "refused", "texts"]
"""What a text in place of a list may be: one that spells a JSON list, as in CSV; refused where it spells a list of
Python's, as pandas writes it; or always one text."""

PAIR_COLUMNS = ("query", "positive", "negative", "instruction", "task", "label", "cluster", "source")
PASSAGE_COLUMNS = ("text", "source")
LABELLED_COLUMNS = ("text", "label", "source")
_TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PYTHON_LIST = re.compile(rf"\[\s*{_TEXT}(?:[\s,]+{_TEXT})*\s*\]", re.DOTALL)  # numpy prints no commas
_WHOLE = re.compile(r"-?\d{1,18}")
MAX_CHARACTERS = 200_000  # of one text: a book in one row is a broken file, and would stop a run for minutes


def check_pair(
    row: Mapping[str, Any], where: str, fields: Mapping[str, str] | None = None, lists: Lists = "texts"
) -> Row:
    """Check a row of a contrastive set, or of an alignment set of pairs.

    Args:
        row: Column -> value, as read from a file. A single text stands for a list of one.
        where: Where it comes from, for messages, as in "pairs.jsonl line 3".
        fields: Our column -> the row's column, where the names differ.
        lists: What a text in place of a list of texts may be.

    Returns:
        A row with all of `PAIR_COLUMNS`; what is unknown is None, `negative` is [].

    Raises:
        DataError: The message names the place, the column, what was expected and what was found.
    """
    get = _getter(row, where, fields, required=("query", "positive"))
    positive = _texts(get("positive"), f"{where}: column positive", lists)
    if not positive:
        raise DataError(f"{where}: column positive: expected at least one text, found an empty list: remove the row")
    return {
        "query": _text(get("query"), f"{where}: column query"),
        "positive": positive,
        "negative": _texts(get("negative"), f"{where}: column negative", lists),
        "instruction": _word(get("instruction"), f"{where}: column instruction"),
        "task": _word(get("task"), f"{where}: column task"),
        "label": _label(get("label"), f"{where}: column label"),
        "cluster": _number(get("cluster"), f"{where}: column cluster"),
        "source": _word(get("source"), f"{where}: column source"),
    }


def check_passage(
    row: Mapping[str, Any], where: str, fields: Mapping[str, str] | None = None, lists: Lists = "texts"
) -> Row:
    """Check a row of text for reconstruction or distillation; arguments and errors as for `check_pair`."""
    get = _getter(row, where, fields, required=("text",))
    return {
        "text": _text(get("text"), f"{where}: column text"),
        "source": _word(get("source"), f"{where}: column source"),
    }


def check_labelled(
    row: Mapping[str, Any], where: str, fields: Mapping[str, str] | None = None, lists: Lists = "texts"
) -> Row:
    """Check a row of a classification or clustering set; arguments and errors as for `check_pair`."""
    get = _getter(row, where, fields, required=("text", "label"))
    label = _label(get("label"), f"{where}: column label")
    if label is None:
        raise DataError(f"{where}: column label: expected a text or a whole number, found nothing: fill it")
    return {
        "text": _text(get("text"), f"{where}: column text"),
        "label": label,
        "source": _word(get("source"), f"{where}: column source"),
    }


CHECKS: Mapping[str, Callable[..., Row]] = {
    "pairs": check_pair,
    "passages": check_passage,
    "labelled": check_labelled,
}
"""Kind of rows -> what checks one of them."""


def kind_of(row: Any, where: str) -> str:
    """Tell the kind of rows of a file by its first one.

    Raises:
        DataError: It has neither `query` nor `text`.
    """
    columns = set(row) if isinstance(row, Mapping) else set()
    if "query" in columns:
        return "pairs"
    if "text" in columns:
        return "labelled" if "label" in columns else "passages"
    found = ", ".join(map(str, row)) if columns else _kind(row)
    raise DataError(
        f"{where}: neither a column query (pairs) nor text (passages) in it (found {found}): rename the columns, "
        "or name them with fields"
    )


def _getter(
    row: Mapping[str, Any], where: str, fields: Mapping[str, str] | None, required: tuple[str, ...]
) -> Callable[[str], Any]:
    """Give access by our column names, after a look at whether the required ones are there."""
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected an object with columns, found {_kind(row)}")
    names = fields or {}
    for column in required:
        if names.get(column, column) not in row:
            there = ", ".join(map(str, row)) or "none"
            raise DataError(
                f"{where}: column {names.get(column, column)} is missing (the row has {there}): "
                f"add it, or name it in the recipe with fields: {{{column}: NAME}} (--field {column}=NAME)"
            )
    return lambda column: row.get(names.get(column, column))


def _texts(value: Any, where: str, lists: Lists) -> list[str]:
    """A list of texts; null is an empty one, a text a list of one or, in CSV, the JSON list that it spells."""
    if value is None or value == "":
        return []
    if isinstance(value, str) and lists != "texts" and value.lstrip().startswith("["):
        value = _list(value.strip(), where, lists)
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{where}: expected a list of texts, found {_kind(value)}")
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
        raise DataError(f"{where}: expected a whole number, found {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """What a value is, in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)


def text_column(row: Mapping[str, Any], where: str, column: str) -> str:
    """Check one text of a row, in a column of any name; errors as for `check_pair`."""
    return _text(_getter(row, where, None, required=(column,))(column), f"{where}: column {column}")
