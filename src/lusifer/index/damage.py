"""What LanceDB raises, in our words: a filter that is wrong, a file of an index that is lost or damaged."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from lusifer.errors import LusiferError, UsageError

_LOST = re.compile(r"Not found: |LanceError\((?:IO|Arrow)\)")
"""What LanceDB says of a file that is not there, or ends too early."""
_SYSTEM = re.compile(r"\(os error (\d+)\)")
"""What it says where the system has refused; 2 is a file that is not there."""


def told(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method of a table say of what LanceDB raises that a file of it is lost or damaged, where it is that."""

    @wraps(call)
    def run(table: Any, *words: Any, **named: Any) -> Any:
        try:
            return call(table, *words, **named)
        except (ValueError, RuntimeError, OSError) as error:
            if (number := _SYSTEM.search(str(error))) and number[1] != "2":
                why = os.strerror(int(number[1]))
                raise LusiferError(f"{table.folder}: {why}; the index is as it was: try again") from error
            if not _damaged(error):
                raise
            if table.replaced:
                raise LusiferError(f"{table.folder}: was embedded anew while it was read: ask again") from error
            raise LusiferError(_damage(table.folder, str(error))) from error

    return run


def _damaged(error: Exception) -> bool:
    """Whether LanceDB could not read what it had written; of a wrong filter it says a ValueError, or names it."""
    said = str(error)
    if isinstance(error, ValueError):
        return said.startswith("Table '") and said.endswith("was not found")
    return bool(_LOST.search(said)) and "filter expression" not in said


def _damage(folder: Path, said: str) -> str:
    """What to do about it; `said` is what LanceDB says, with the lines of its own source."""
    file = re.search(r"\w+\.lance/[\w./-]*\w", said)
    what = file[0] if file else re.split(r", /\w+/", said.splitlines()[0])[0][:200]
    mend = "index the documents again into a new folder"
    if "/_indices/" in what:  # the words alone: texts and vectors are whole
        mend = f"make it from the texts: `lusifer reindex {shlex.quote(str(folder))} --model MODEL`"
    return f"{folder}: a file of the index is lost or damaged ({what}): put it back from a copy, or {mend}"


@contextmanager
def filtered(where: str | None) -> Iterator[None]:
    """Say of what LanceDB raises that the filter is wrong, where there is one."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        if _damaged(error):
            raise
        if where is None:
            raise LusiferError(f"the index cannot be searched: {str(error).splitlines()[0]}") from error
        words = "an SQL condition on the fields, as in: lang = 'de' AND year > 2000"
        said = str(error).splitlines()[0].removeprefix("Invalid input, ")[:200].rstrip(".")
        raise UsageError(f"filter {where!r}: {said}: give {words}") from error
