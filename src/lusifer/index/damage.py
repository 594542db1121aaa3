"""What LanceDB raises, in our words: a wrong filter, a file that is lost, cut, damaged or of another version."""

from __future__ import annotations

import json
import os
import re
import shlex
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from lusifer.errors import LusiferError, UsageError
from lusifer.io.files import full_disk_named

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
_MAGIC = b"LANC"
"""How every file of the Lance format ends."""
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
            raise LusiferError(_damage(table.folder, str(error))) from error

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
        raise LusiferError(_damage(folder, f"what it says of its model: {error}")) from error
    if said and not isinstance(said, dict):
        raise LusiferError(_damage(folder, "what it says of its model is no object"))
    found = {one.name: re.sub(r"\[.*", "", str(one.type)) for one in schema}
    wrong = [f"{name} ({found.get(name, 'missing')})" for name, kind in columns.items() if found.get(name) != kind]
    wrong += [f"{name} ({kind})" for name, kind in found.items() if name not in columns and kind not in FIELDS]
    if said and wrong:
        words = "make it anew with this one, or use the version that made it"
        raise LusiferError(f"{folder}: has columns of another version of lusifer ({', '.join(wrong)}): {words}")
    return said


def _damage(folder: Path, said: str) -> str:
    """What to do about it; `said` is what LanceDB says, with the lines of its own source."""
    file = re.search(r"\w+\.lance/[\w./-]*\w", said)
    what = file[0] if file else re.split(r", /\w+/", said.splitlines()[0])[0][:200]
    mend = "index the documents again into a new folder"
    if "/_indices/" in what:  # the words alone: texts and vectors are whole
        mend = f"make it from the texts: `lusifer reindex {shlex.quote(str(folder))} --model MODEL`"
    return f"{folder}: a file of the index is lost or damaged ({what}): put it back from a copy, or {mend}"


@contextmanager
def committed_whole(place: Path) -> Iterator[None]:
    """Run a block that commits to a table; take back what it committed with a file that was not written to its end.

    Where a disk is full LanceDB 0.40 may lose the error of the last bytes of a file, and commits what cannot be read.

    Args:
        place: The table itself, NAME.lance; who calls is the one that writes.

    Raises:
        LusiferError: Something was taken back, or the disk is full.
    """
    before, raised = _files(place), None
    try:
        with full_disk_named(place.parent):
            yield
    except BaseException as error:  # of several commits it may be the second that cannot read what the first wrote
        raised = error
    if cut := _take_back(place, before):
        words = f"{cut.name} was cut: free some space, or name another place"
        raise LusiferError(f"{place.parent}: cannot be written to its end: {words}") from raised
    if raised is not None:
        raise raised


def _files(place: Path) -> set[Path]:
    """The files of a table that commits bring."""
    return {
        file for part in ("data", "_indices", "_versions") for file in (place / part).rglob("*.*") if file.is_file()
    }


def _take_back(place: Path, before: set[Path]) -> Path | None:
    """Remove the versions, younger than the files `before`, with a file that was cut; give one such file.

    What it left is removed when the table is tidied.
    """
    new = _files(place) - before
    versions = sorted((file for file in new if file.suffix == ".manifest"), key=_version)
    bad = [file for file in new if file.suffix in (".lance", ".idx") and not _ends_well(file)]
    for number, version in enumerate(versions):
        said = version.read_bytes()
        # A manifest has the names of data files, and the bytes of the number that names the folder of an index.
        cut = [file for file in bad if file.name.encode() in said or _folder_number(file) in said]
        if cut:
            for each in reversed(versions[number:]):
                each.unlink()
            return cut[0]
    return None


def _ends_well(file: Path) -> bool:
    with file.open("rb") as stream:
        return file.stat().st_size > len(_MAGIC) and stream.seek(-len(_MAGIC), os.SEEK_END) and stream.read() == _MAGIC


def _folder_number(file: Path) -> bytes:
    try:
        return uuid.UUID(file.parent.name).bytes
    except ValueError:
        return file.name.encode()


def _version(manifest: Path) -> int:
    """The number of a version; newer tables count names down, so that the last version comes first."""
    number = int(manifest.stem)
    return number if number < 2**63 else 2**64 - 1 - number


@contextmanager
def filtered(where: str | None) -> Iterator[None]:
    """Say of what LanceDB raises that the filter is wrong, where there is one."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        if where is None or _damaged(error):
            raise
        words = "an SQL condition on the fields, as in: lang = 'de' AND year > 2000"
        said = str(error).splitlines()[0].removeprefix("Invalid input, ")[:200].rstrip(".")
        raise UsageError(f"filter {where!r}: {said}: give {words}") from error
