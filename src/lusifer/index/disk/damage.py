"""Translate errors of LanceDB into messages: a wrong filter, or a file that is lost, truncated, damaged or too new."""

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
"""LanceDB's messages about a file that is missing, truncated or changed."""
_LANCE = re.compile("lance error: |Invalid (?:user )?input")
"""The beginning of its other messages; without a filter they mean a damaged file."""
_PAGE = re.compile(r"Column \d+ page \d+ has")
"""A damaged file, reported as a ValueError."""
_PANICS = ("PanicException", "RustPanic")
"""The Python names of panics in Rust; the first is no subclass of `Exception`."""
FIELDS = {"string": "text", "int64": "int", "double": "float", "bool": "bool"}
"""Type of a column -> kind of a field."""
_NO_FIELD = re.compile(r"No field named (.+?)\. Valid fields")
_SYSTEM = re.compile(r"\(os error (\d+)\)")
"""An error of the operating system; number 2 is a missing file."""


def told(call: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a method of a table so that LanceDB's errors about its files become a LusiferError with a fix."""

    @wraps(call)
    def run(table: Any, *words: Any, **named: Any) -> Any:
        try:
            return call(table, *words, **named)
        except BaseException as error:
            if not isinstance(error, (ValueError, RuntimeError, OSError)) and type(error).__name__ not in _PANICS:
                raise
            if (number := _SYSTEM.search(str(error))) and number[1] != "2":
                why = os.strerror(int(number[1]))
                raise LusiferError(f"{table.folder}: {why}; the index is unchanged: try again") from error
            if not _damaged(error) and not _LANCE.match(str(error)):
                raise
            if table.replaced:
                raise LusiferError(f"{table.folder}: was embedded again while it was read: try again") from error
            raise LusiferError(lost(table.folder, str(error))) from error

    return run


def _damaged(error: BaseException) -> bool:
    """Whether an error of LanceDB means a damaged file, and not a wrong filter."""
    said = str(error)
    if type(error).__name__ in _PANICS:
        return True
    if isinstance(error, ValueError):
        return (said.startswith("Table '") and said.endswith("was not found")) or bool(_PAGE.search(said))
    return bool(_LOST.search(said)) and "filter expression" not in said


def about(folder: Path, schema: Any, key: bytes, columns: Mapping[str, str]) -> dict[str, Any]:
    """Read the record of the model from the metadata of a table, and check its columns.

    Args:
        folder: The folder of the index.
        schema: The schema of the table.
        key: The key in its metadata.
        columns: Required column -> the name of its type.

    Returns:
        The record; empty if `lusifer index` did not make the table.

    Raises:
        LusiferError: The record cannot be read, or the table has other columns.
    """
    try:
        said = json.loads((schema.metadata or {}).get(key, "{}"))
    except ValueError as error:  # not UTF-8, or not JSON
        raise LusiferError(lost(folder, f"its record of the model: {error}")) from error
    if said and not isinstance(said, dict):
        raise LusiferError(lost(folder, "its record of the model is no object"))
    found = {one.name: re.sub(r"\[.*", "", str(one.type)) for one in schema}
    wrong = [f"{name} ({found.get(name, 'missing')})" for name, kind in columns.items() if found.get(name) != kind]
    wrong += [f"{name} ({kind})" for name, kind in found.items() if name not in columns and kind not in FIELDS]
    if said and wrong:
        how = "make it again with this one, or use the version that made it"
        raise LusiferError(f"{folder}: has columns of another version of lusifer ({', '.join(wrong)}): {how}")
    return said


def lost(folder: Path, said: str) -> str:
    """Return the message for a damaged file.

    Args:
        folder: The folder of the index.
        said: The error of LanceDB, which may have lines of its source code.
    """
    file = re.search(r"\w+\.lance/[\w./-]*\w", said)
    what = file[0] if file else re.split(r", /\w+/", said.splitlines()[0])[0][:200]
    fix = "index the documents again into a new folder"
    if "/_indices/" in what:  # only the full-text index: texts and vectors are undamaged
        fix = f"make it from the texts: `lusifer reindex {shlex.quote(str(folder))} --model MODEL`"
    return f"{folder}: a file of the index is lost or damaged ({what}): restore it from a copy, or {fix}"


@contextmanager
def filtered(where: str | None, fields: Iterable[str]) -> Iterator[None]:
    """Raise errors of LanceDB in the block as errors of the filter.

    Args:
        where: The filter; with None errors pass through.
        fields: The fields of the documents, for the message.

    Raises:
        UsageError: The filter is wrong.
    """
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        if where is None or _damaged(error):
            raise
        said = str(error).splitlines()[0].removeprefix("Invalid input, ")[:200].rstrip(".")
        if missing := _NO_FIELD.search(str(error)):
            said = f"no field {missing[1]}: there are id, text{''.join(f', {name}' for name in fields)}"
        raise UsageError(f"filter {where!r}: {said}: give {HOW}") from error
