"""Commits to a table: complete or rolled back, and with a checksum of each file.

LanceDB does not check its data, and silently reads changed bytes as other content. Its files are written once and never
changed, so their checksums are recorded with each commit. Files without a checksum (of an older version, or of a commit
that was killed) get one with the next commit.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lusifer.errors import LusiferError
from lusifer.index.disk import damage
from lusifer.io.files import full_disk_named, put_back, read_json, sha256, write_json

NAME = "documents"
CHECKSUMS = "checksums.json"
"""The file in the folder of the table: name of a file -> its SHA-256."""
AT_ONCE = 256 * 2**20
"""A table of at most so many bytes is checked whenever it is opened, in about a fifth of a second."""
ROWS = ("data", "_deletions", "_versions")
"""The folders of texts, vectors and versions; files are written once."""
INDICES = ("_indices",)
"""The folder of the search indexes, which can be made again from the rows; files are written once."""
_MAGIC = b"LANC"
"""The last bytes of every file in the Lance format."""


@contextmanager
def committed_whole(place: Path) -> Iterator[None]:
    """Run a block that commits to a table, roll back commits with truncated files, and record checksums.

    On a full disk LanceDB 0.40 may lose the error of the last bytes of a file, and commit an unreadable file.

    Args:
        place: The table itself, NAME.lance. The caller must hold the lock of the index.

    Raises:
        LusiferError: A commit was rolled back, or the disk is full.
    """
    before, raised = set(_files(place)), None
    try:
        with full_disk_named(place.parent):
            yield
    except BaseException as error:  # raised below: a second commit may fail because the first one is truncated
        raised = error
    if cut := _take_back(place, before):
        words = f"{cut.name} was truncated: free some space, or name another place"
        raise LusiferError(f"{place.parent}: cannot be written completely: {words}") from raised
    if raised is not None:
        raise raised
    _note(place)


def _files(place: Path, parts: Sequence[str] = ROWS + INDICES) -> list[Path]:
    """The files of a table that commits write."""
    return sorted(
        file for part in parts for file in (place / part).rglob("*.*") if file.is_file() and file.suffix != ".json"
    )


def _note(place: Path) -> None:
    """Record the checksums of files that have none yet, and drop those of removed files."""
    known = _noted(place)
    noted = {name: known.get(name) or sha256(file) for name, file in _named(place)}
    if noted != known:
        try:
            write_json(place / CHECKSUMS, noted)
        except OSError:  # the disk is full: the commit is valid, and the next one records these checksums
            return


def _noted(place: Path) -> dict[str, str]:
    file = place / CHECKSUMS
    if not file.is_file():
        return {}
    return read_json(file, "remove it: the next change writes it again, without this check", LusiferError, dict)


def _named(place: Path, parts: Sequence[str] = ROWS + INDICES) -> list[tuple[str, Path]]:
    return [(file.relative_to(place).as_posix(), file) for file in _files(place, parts)]


@dataclass(frozen=True)
class Checked:
    """The result of a check: how many files match their checksum (`whole`), and how many have none (`unknown`)."""

    whole: int
    unknown: int


def check(place: Path, parts: Sequence[str] = ROWS) -> Checked:
    """Compare the files of a table with their checksums.

    Missing files are not reported here, because a writer removes unneeded ones, and LanceDB reports those it needs. But
    if the newest version is missing, LanceDB silently reads the one before, so that is checked.

    Args:
        place: The table itself, NAME.lance.
        parts: The folders to check.

    Raises:
        LusiferError: A file has changed, the newest version is missing, or the checksums are damaged.
    """
    known, whole, unknown = _noted(place), 0, 0
    _refuse_older(place, known)
    for name, file in _named(place, parts):
        if name not in known:
            unknown += 1
            continue
        try:
            same = sha256(file) == known[name]
        except FileNotFoundError:
            continue
        if not same and _noted(place).get(name) == known[name]:
            raise LusiferError(damage.lost(place.parent, f"{place.name}/{name}"))
        whole += 1
    return Checked(whole, unknown)


def look(place: Path) -> bool:
    """Check a small table completely; of a larger one the list of versions, and the end of each file of the newest one.

    Other files do not count: a full disk may have truncated them, or a writer is at work on them.

    Returns:
        Whether it was checked completely.

    Raises:
        LusiferError: As `check`, or a file is truncated.
    """
    if is_small(place):
        check(place)
        return True
    _refuse_older(place, _noted(place))
    newest = max((place / "_versions").glob("*.manifest"), key=_version, default=None)
    said = newest.read_bytes() if newest else b""  # before the files, which are complete when a version names them
    for file in _files(place, ("data", *INDICES)):
        try:
            cut = file.suffix in (".lance", ".idx") and not _ends_well(file)
        except FileNotFoundError:  # a writer has just removed it
            continue
        if cut and _names(said, file):
            raise LusiferError(damage.lost(place.parent, file.relative_to(place.parent).as_posix()))
    return False


def ends(count: int, read: Callable[[Sequence[int]], Sequence[int]]) -> set[int]:
    """Find the first and the last row of each part by halving the ranges that have more than one part.

    For 100 million rows `read` is called 28 times, with at most two places per part.

    Args:
        count: How many rows there are.
        read: Returns the numbers of the rows at some places, one or more in ascending order; deleted rows have no
            place. The upper half of a number is that of the part. The rows of a part are next to each other; parts may
            be in any order.

    Returns:
        The numbers of the rows.
    """
    if not count:
        return set()
    rows: dict[int, int] = {}

    def known(places: set[int]) -> None:
        ordered = sorted(places)
        rows.update(zip(ordered, read(ordered), strict=True))

    known({0, count - 1})
    found, ranges = {0, count - 1}, [(0, count - 1)]
    while ranges := [(low, high) for low, high in ranges if rows[low] >> 32 != rows[high] >> 32]:
        found.update(place for low, high in ranges if high - low == 1 for place in (low, high))
        wide = [(low, (low + high) // 2, high) for low, high in ranges if high - low > 1]
        if not wide:
            break
        known({middle for _, middle, _ in wide})
        ranges = [half for low, middle, high in wide for half in ((low, middle), (middle, high))]
    return {rows[place] for place in found}


def _refuse_older(place: Path, known: Mapping[str, str]) -> None:
    """Refuse a table whose newest version is missing; `known` are its checksums."""
    written = max((Path(name) for name in known if name.endswith(".manifest")), key=_version, default=None)
    there = max((_version(file) for file in (place / "_versions").glob("*.manifest")), default=0)
    # Here and in `check` the checksums are read again: `reindex` may have replaced the table, and its versions restart.
    if written is not None and there < _version(written) and _noted(place) == known:
        raise LusiferError(damage.lost(place.parent, f"{place.name}/{written}"))


def is_table(folder: Path, name: str = NAME) -> bool:
    """Whether a folder has a table of that name, with a commit or data.

    A table that a killed `reindex` had moved away is restored first.

    Args:
        folder: The folder of the index.
        name: The name of the table.
    """
    place = folder / f"{name}.lance"
    with suppress(OSError):  # without permission to write it cannot be restored, and is not found
        put_back(place)
    return any(any((place / part).glob("*")) for part in ("_versions", "data"))


def is_small(place: Path) -> bool:
    """Whether a table has at most `AT_ONCE` bytes."""
    size = 0
    for file in _files(place):
        try:
            size += file.stat().st_size
        except FileNotFoundError:  # a writer has just removed it
            continue
    return size <= AT_ONCE


def _take_back(place: Path, before: set[Path]) -> Path | None:
    """Remove versions that are newer than the files `before` and have a truncated file; return one such file.

    Their other files are removed when the table is tidied.
    """
    new = set(_files(place)) - before
    versions = sorted((file for file in new if file.suffix == ".manifest"), key=_version)
    bad = [file for file in new if file.suffix in (".lance", ".idx") and not _ends_well(file)]
    for number, version in enumerate(versions):
        said = version.read_bytes()
        cut = [file for file in bad if _names(said, file)]
        if cut:
            for each in reversed(versions[number:]):
                each.unlink()
            return cut[0]
    return None


def _ends_well(file: Path) -> bool:
    with file.open("rb") as stream:
        return file.stat().st_size > len(_MAGIC) and stream.seek(-len(_MAGIC), os.SEEK_END) and stream.read() == _MAGIC


def _names(manifest: bytes, file: Path) -> bool:
    """Whether a version has a file: the name of a data file, or the bytes of the UUID of a search index's folder."""
    try:
        return uuid.UUID(file.parent.name).bytes in manifest
    except ValueError:
        return file.name.encode() in manifest


def _version(manifest: Path) -> int:
    """The number of a version; in newer tables the numbers in names count down."""
    number = int(manifest.stem)
    return number if number < 2**63 else 2**64 - 1 - number
