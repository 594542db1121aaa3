"""Commits to a table: whole or taken back, and with a checksum of each file.

LanceDB checks no byte of its data, and reads another bit as other content, without a word. Its files are written once
and never changed, so their checksums are noted when they are committed. Files that have none (those of an index of an
earlier version, or of a commit that was killed) are noted by the next commit, as they are then.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lusifer.errors import LusiferError
from lusifer.index.disk import damage
from lusifer.io.files import full_disk_named, put_back, read_json, sha256, write_json

NAME = "documents"
CHECKSUMS = "checksums.json"
"""In the folder of the table: name of a file -> its SHA-256."""
AT_ONCE = 256 * 2**20
"""Bytes up to which a table is checked whenever it is opened: about a fifth of a second."""
ROWS = ("data", "_deletions", "_versions")
"""Folders with what was given: files that are written once."""
INDICES = ("_indices",)
"""Likewise what is made of it, and can be made again."""
_MAGIC = b"LANC"
"""How every file of the Lance format ends."""


@contextmanager
def committed_whole(place: Path) -> Iterator[None]:
    """Run a block that commits to a table; take back what it committed with a file that was not written to its end.

    Where a disk is full LanceDB 0.40 may lose the error of the last bytes of a file, and commits what cannot be read.

    Args:
        place: The table itself, NAME.lance; who calls is the one that writes.

    The checksums of its new files are noted.

    Raises:
        LusiferError: Something was taken back, or the disk is full.
    """
    before, raised = set(_files(place)), None
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
    _note(place)


def _files(place: Path, parts: Sequence[str] = ROWS + INDICES) -> list[Path]:
    """The files of a table that commits bring."""
    return sorted(
        file for part in parts for file in (place / part).rglob("*.*") if file.is_file() and file.suffix != ".json"
    )


def _note(place: Path) -> None:
    """Note the checksums of files that have none yet, and forget those of files that are gone."""
    known = _noted(place)
    noted = {name: known.get(name) or sha256(file) for name, file in _named(place)}
    if noted != known:
        try:
            write_json(place / CHECKSUMS, noted)
        except OSError:  # a full disk: the commit stands all the same, and the next one notes these files too
            return


def _noted(place: Path) -> dict[str, str]:
    file = place / CHECKSUMS
    if not file.is_file():
        return {}
    return read_json(file, "remove it: the next change notes the files as they are then", LusiferError, dict)


def _named(place: Path, parts: Sequence[str] = ROWS + INDICES) -> list[tuple[str, Path]]:
    return [(file.relative_to(place).as_posix(), file) for file in _files(place, parts)]


@dataclass(frozen=True)
class Checked:
    """How many files of a table have the bytes that were written, and how many have no checksum."""

    whole: int
    unknown: int


def check(place: Path, parts: Sequence[str] = ROWS) -> Checked:
    """Compare the files of a table with their checksums.

    A writer removes files that no version needs, and LanceDB names those that it misses; but where the newest version
    is gone it reads the one before, without a word.

    Args:
        place: The table itself, NAME.lance.
        parts: Its folders that are looked into.

    Raises:
        LusiferError: A file has other bytes than were written, the newest version is gone, or the checksums are
            damaged.
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
    """Check a small table whole; of a larger one look at the list of versions, and at the end of each file.

    Returns:
        Whether it was checked whole.

    Raises:
        LusiferError: As `check`, or a file does not end as it was written.
    """
    if is_small(place):
        check(place)
        return True
    _refuse_older(place, _noted(place))
    for file in _files(place, ("data", *INDICES)):
        try:
            cut = file.suffix in (".lance", ".idx") and not _ends_well(file)
        except FileNotFoundError:  # a writer has just removed it
            continue
        if cut:
            raise LusiferError(damage.lost(place.parent, file.relative_to(place.parent).as_posix()))
    return False


def _refuse_older(place: Path, known: Mapping[str, str]) -> None:
    """Refuse a table whose newest version is gone, by the checksums `known` of it."""
    written = max((Path(name) for name in known if name.endswith(".manifest")), key=_version, default=None)
    there = max((_version(file) for file in (place / "_versions").glob("*.manifest")), default=0)
    # Here and in `check` read once more: `reindex` may have put another table there, whose versions begin anew.
    if written is not None and there < _version(written) and _noted(place) == known:
        raise LusiferError(damage.lost(place.parent, f"{place.name}/{written}"))


def is_table(folder: Path, name: str = NAME) -> bool:
    """Whether a folder has a table of that name: something committed, or data. A kill may leave less of a new one.

    One that a `reindex` had moved away when it was killed is put back first.
    """
    place = folder / f"{name}.lance"
    with suppress(OSError):  # who may only read here finds none, as before
        put_back(place)
    return any(any((place / part).glob("*")) for part in ("_versions", "data"))


def is_small(place: Path) -> bool:
    """Whether a table is checked whenever it is opened."""
    size = 0
    for file in _files(place):
        try:
            size += file.stat().st_size
        except FileNotFoundError:  # a writer has just removed it
            continue
    return size <= AT_ONCE


def _take_back(place: Path, before: set[Path]) -> Path | None:
    """Remove the versions, younger than the files `before`, with a file that was cut; give one such file.

    What it left is removed when the table is tidied.
    """
    new = set(_files(place)) - before
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
