"""What LanceDB raises, in our words: a wrong filter, a file that is lost, cut, damaged or of another version."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from lusifer.errors import LusiferError, UsageError
from lusifer.index.disk.filters import HOW

_LOST = re.compile(r"Not found: |LanceError\((?:IO|Arrow)\)|corrupt file|Protobuf message")
"""What LanceDB says of a file that is not there, ends too early, or has other bytes than were written."""
_LANCE = re.compile("lance error: |Invalid (?:user )?input")
"""How all begins that it says; where nobody gave it a filter, its files are to blame."""
_PAGE = re.compile(r"Column \d+ page \d+ has")
"""Likewise, in a ValueError."""
_PANICS = ("PanicException", "RustPanic")
"""How Python calls what LanceDB, written in Rust, did not expect at all; the first is no `Exception`."""
FIELDS = {"string": "text", "int64": "int", "double": "float", "bool": "bool"}
"""Type of a column -> kind of a field."""
_NO_FIELD = re.compile(r"No field named (.+?)\. Valid fields")
_SYSTEM = re.compile(r"\(os error (\d+)\)")
"""What it says where the system has refused; 2 is a file that is not there."""


def told(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method of a table say of what LanceDB raises that a file of it is lost or damaged, where it is that."""

    @wraps(call)
    def run(table: Any, *words: Any, **named: Any) -> Any:
        try:
            return call(table, *words, **named)
        except BaseException as error:
            if not isinstance(error, (ValueError, RuntimeError, OSError)) and type(error).__name__ not in _PANICS:
                raise
            if (number := _SYSTEM.search(str(error))) and number[1] != "2":
                why = os.strerror(int(number[1]))
                raise LusiferError(f"{table.folder}: {why}; the index is as it was: try again") from error
            if not _damaged(error) and not _LANCE.match(str(error)):
                raise
            if table.replaced:
                raise LusiferError(f"{table.folder}: was embedded anew while it was read: ask again") from error
            raise LusiferError(lost(table.folder, str(error))) from error

    return run


def _damaged(error: BaseException) -> bool:
    """Whether LanceDB could not read what it had written; of a wrong filter it says a ValueError, or names it."""
    said = str(error)
    if type(error).__name__ in _PANICS:
        return True
    if isinstance(error, ValueError):
        return (said.startswith("Table '") and said.endswith("was not found")) or bool(_PAGE.search(said))
    return bool(_LOST.search(said)) and "filter expression" not in said


def about(folder: Path, schema: Any, key: bytes, columns: Mapping[str, str]) -> dict[str, Any]:
    """What a table says, under `key`, of the model that made it; nothing where no `lusifer index` did.

    Args:
        folder: Of the index.
        schema: Of the table.
        key: In its metadata.
        columns: Those that it must have -> how their type is called.

    Raises:
        LusiferError: It cannot be read, or has other columns.
    """
    try:
        said = json.loads((schema.metadata or {}).get(key, "{}"))
    except ValueError as error:  # not UTF-8, or not JSON
        raise LusiferError(lost(folder, f"what it says of its model: {error}")) from error
    if said and not isinstance(said, dict):
        raise LusiferError(lost(folder, "what it says of its model is no object"))
    found = {one.name: re.sub(r"\[.*", "", str(one.type)) for one in schema}
    wrong = [f"{name} ({found.get(name, 'missing')})" for name, kind in columns.items() if found.get(name) != kind]
    wrong += [f"{name} ({kind})" for name, kind in found.items() if name not in columns and kind not in FIELDS]
    if said and wrong:
        how = "make it anew with this one, or use the version that made it"
        raise LusiferError(f"{folder}: has columns of another version of lusifer ({', '.join(wrong)}): {how}")
    return said


def lost(folder: Path, said: str) -> str:
    """What is said of a damaged file; `said` is what LanceDB says, with the lines of its own source."""
    file = re.search(r"\w+\.lance/[\w./-]*\w", said)
    what = file[0] if file else re.split(r", /\w+/", said.splitlines()[0])[0][:200]
    mend = "index the documents again into a new folder"
    if "/_indices/" in what:  # the words alone: texts and vectors are whole
        mend = f"make it from the texts: `lusifer reindex {shlex.quote(str(folder))} --model MODEL`"
    return f"{folder}: a file of the index is lost or damaged ({what}): put it back from a copy, or {mend}"


@contextmanager
def filtered(where: str | None, fields: Iterable[str]) -> Iterator[None]:
    """Say of what LanceDB raises that the filter is wrong, where there is one; `fields` are those of the documents."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        if where is None or _damaged(error):
            raise
        said = str(error).splitlines()[0].removeprefix("Invalid input, ")[:200].rstrip(".")
        if missing := _NO_FIELD.search(str(error)):
            said = f"no field {missing[1]}: there are id, text{''.join(f', {name}' for name in fields)}"
        raise UsageError(f"filter {where!r}: {said}: give {HOW}") from error
