"""What a row of training data is, and the message that a row gets which is not.

A pair: `query`, `positive` (list of texts, at least one), `negative` (list, may be empty), and, where known,
`instruction` or `task` (a name of the prompt table), `label`, `cluster`, `source`. A passage: `text` and `source`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from lusifer.errors import DataError
from lusifer.prompts import check_text

Row = dict[str, Any]

PAIR_COLUMNS = ("query", "positive", "negative", "instruction", "task", "label", "cluster", "source")
PASSAGE_COLUMNS = ("text", "source")


def check_pair(row: Mapping[str, Any], where: str, fields: Mapping[str, str] | None = None) -> Row:
    """Check a row of a contrastive set, or of an alignment set of pairs.

    Args:
        row: Column -> value, as read from a file. A single text stands for a list of one.
        where: Where it comes from, for messages, as in "pairs.jsonl line 3".
        fields: Our column -> the row's column, where the names differ.

    Returns:
        A row with all of `PAIR_COLUMNS`; what is unknown is None, `negative` is [].

    Raises:
        DataError: The message names the place, the column, what was expected and what was found.
    """
    get = _getter(row, where, fields, required=("query", "positive"))
    positive = _texts(get("positive"), f"{where}: column positive")
    if not positive:
        raise DataError(f"{where}: column positive: expected at least one text, found an empty list: remove the row")
    return {
        "query": check_text(get("query"), f"{where}: column query"),
        "positive": positive,
        "negative": _texts(get("negative"), f"{where}: column negative"),
        "instruction": _word(get("instruction"), f"{where}: column instruction"),
        "task": _word(get("task"), f"{where}: column task"),
        "label": _label(get("label"), f"{where}: column label"),
        "cluster": _number(get("cluster"), f"{where}: column cluster"),
        "source": _word(get("source"), f"{where}: column source"),
    }


def check_passage(row: Mapping[str, Any], where: str, fields: Mapping[str, str] | None = None) -> Row:
    """Check a row of text for reconstruction or distillation; arguments and errors as for `check_pair`."""
    get = _getter(row, where, fields, required=("text",))
    return {
        "text": check_text(get("text"), f"{where}: column text"),
        "source": _word(get("source"), f"{where}: column source"),
    }


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
                f"add it, or name it in the recipe with fields: {{{column}: NAME}}"
            )
    return lambda column: row.get(names.get(column, column))


def _texts(value: Any, where: str) -> list[str]:
    """A list of texts; null is an empty one, a text a list of one, a text that spells a JSON list (CSV) that list."""
    if value is None or value == "":
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _json_list(value)
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{where}: expected a list of texts, found {_kind(value)}")
    return [check_text(text, f"{where}, item {number}") for number, text in enumerate(value, start=1)]


def _json_list(text: str) -> Any:
    """The list that a cell spells, or the text itself: prose may begin with a bracket."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, list) else text


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
    if isinstance(value, str) and value.lstrip("-").isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{where}: expected a whole number, found {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """What a value is, in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
