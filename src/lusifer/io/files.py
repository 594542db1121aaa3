"""Write a folder or a file whole or not at all; read and write JSON; digests of files.

The new content is built beside the target, under a temporary name, and renamed onto it at the end. Whoever reads the
target sees the old content or the new one, never a half of either, also when the process is killed in the middle.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lusifer.errors import DataError, LusiferError, UsageError

AT_FDCWD = -100  # linux/fcntl.h: paths are relative to the working folder
RENAME_EXCHANGE = 2  # linux/fs.h: swap two names in one step
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WHOLE = "whole-"
KINDS = {list: "list", dict: "object"}
_LFS = b"version https://git-lfs.github.com/"  # the beginning of a pointer that stands in place of a file


def refuse_unwritable(
    target: str | os.PathLike[str], kind: str, option: str = "--output", replaces: str | None = None
) -> None:
    """Refuse a place that cannot be written to, before the work whose result belongs there; nothing is left there.

    Args:
        target: What will be written; missing folders above it are made only then.
        kind: "file" or "folder", what it will be.
        option: How the user gave it.
        replaces: A file by which a folder shows that an earlier result is in it, which may be replaced as a whole.

    Raises:
        UsageError: It is of the other kind, it is a folder that holds anything else, or nothing can be made in the
            nearest folder that exists.
    """
    path = _resolve(target)
    if path.exists() and path.is_dir() != (kind == "folder"):
        raise UsageError(f"{option} {target}: is a {'folder' if path.is_dir() else 'file'}: name a {kind}")
    if replaces and path.is_dir() and any(path.iterdir()) and not (path / replaces).is_file():
        raise UsageError(f"{option} {target}: holds files (no {replaces}) that would be lost: name a new folder")
    nearest = next(folder for folder in path.parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UsageError(
            f"{option} {target}: nothing can be written in {nearest} ({error.strerror}): name a {kind} elsewhere"
        ) from error


def refuse_output(path: Path, endings: tuple[str, ...], inputs: Iterable[Path] = (), option: str = "--output") -> None:
    """Refuse a file of another ending than `endings`, one that is read as input, and one that cannot be written.

    An ending may be in capitals.

    Raises:
        UsageError: The message lists the endings, or says why not.
    """
    if not path.name.lower().endswith(endings) or path.name.startswith(".") and path.suffix == "":
        raise UsageError(f"{option} {path}: unknown ending {path.suffix!r}: use {', '.join(endings)}")
    if _resolve(path) in set(map(_resolve, inputs)):
        raise UsageError(f"{option} {path}: is read as input, which would be lost: name another file")
    refuse_unwritable(path, "file", option)


@contextmanager
def write_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` when the block ends without an exception.

    An old folder at `target` stays in place until then and is replaced as a whole. Missing parents are made. What an
    earlier, killed writer of the same target left behind is removed.

    Raises:
        NotADirectoryError: `target` exists and is not a folder.
    """
    target = _resolve(target)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file: name a folder, or remove the file")
    _remove_leftovers(target)
    temporary = _sibling(target)
    try:
        with full_disk_named(target):
            temporary.mkdir(parents=True)
            yield temporary
            _settle(temporary)
        replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def write_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside `target`; what was written there becomes `target` when the block ends well.

    The temporary name keeps the suffix of `target`, because some writers choose their format by it.

    Raises:
        IsADirectoryError: `target` is a folder.
        FileNotFoundError: The block wrote nothing.
    """
    target = _resolve(target)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder: name a file")
    _remove_leftovers(target)
    temporary = _sibling(target)
    try:
        with full_disk_named(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _settle(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def full_disk_named(target: str | os.PathLike[str]) -> Iterator[None]:
    """Name what is written where a disk is full in the block: libraries say it in their own ways, without the name.

    Raises:
        LusiferError: There is no space left, or more than a quota or the file system allows.
    """
    try:
        yield
    except Exception as error:
        # safetensors gives an error of its own with the system's words or number in it, and torch does not say why.
        full = [code for code in FULL if getattr(error, "errno", None) == code or _said(code, str(error))]
        if isinstance(error, LusiferError) or not (full or "inline_container.cc" in str(error)):
            raise
        reason = os.strerror(full[0]) if full else "torch could not write it"
        words = f"{reason}: free some space, or name another place"
        raise LusiferError(f"{target}: cannot be written to its end: {words}") from error


def _said(code: int, message: str) -> bool:
    return os.strerror(code) in message or f"os error {code})" in message or f"[Errno {code}]" in message


@contextmanager
def locked(file: Path, refusal: str, *, remove: bool = False) -> Iterator[None]:
    """Hold a lock file while the block runs; the system lets go of it when the process ends, killed or not.

    The folder of `file` must be there; `remove` removes the file with the lock.

    Raises:
        UsageError: Another process holds it; the message is `refusal`.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(refusal) from None
    try:
        yield
    finally:
        if remove:
            # While it is held: afterwards the file of that name may be the lock of the next one. Who has opened this
            # one meanwhile finds that it has no name any more (filelock looks) and does not take it for a lock.
            file.unlink(missing_ok=True)
        lock.release()


def _resolve(target: str | os.PathLike[str]) -> Path:
    """Follow links, so that a link at `target` keeps pointing to the place that is rewritten."""
    return Path(target).expanduser().resolve()


def _prefix(target: Path) -> str:
    """Name what this machine writes for `target`; hidden, so that listings of the parent do not show it.

    Of a long name the beginning is enough, and leaves room for the rest of a name: a disk allows 255 bytes. It is not
    cut inside a character: some libraries take no name of which a part is no UTF-8.
    """
    return f".{os.fsencode(target.name)[:100].decode(errors='ignore')}.{socket.gethostname()}-"


def _sibling(target: Path, mark: str = "") -> Path:
    """Name a free path beside `target` that tells which process of which machine writes it."""
    return target.with_name(f"{_prefix(target)}{os.getpid()}-{mark}{secrets.token_hex(4)}{target.suffix}")


def _remove_leftovers(target: Path) -> None:
    """Remove temporary folders and files of writers of `target` that are no longer alive on this machine."""
    put_back(target)
    for path, _ in _leftovers(target):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def put_back(target: Path) -> None:
    """Where `target` is absent, give it back the newest old folder that a writer had moved away when it was killed.

    That happens only where two names cannot be swapped in one step (`replace_folder`).

    Raises:
        OSError: It cannot be renamed here.
    """
    if target.exists():
        return
    old = [path for path, rest in _leftovers(target) if rest.startswith(_WHOLE)]
    if old:
        with suppress(FileNotFoundError):  # another process has just put it back
            os.rename(max(old, key=lambda path: path.stat().st_mtime_ns), target)


def _leftovers(target: Path) -> list[tuple[Path, str]]:
    """What writers of `target` left that are no longer alive on this machine, with the end of its name."""
    prefix, found = _prefix(target), []
    for path in target.parent.iterdir() if target.parent.is_dir() else ():
        process, _, rest = path.name.removeprefix(prefix).partition("-")
        if path.name.startswith(prefix) and process.isdecimal() and not _alive(int(process)):
            found.append((path, rest))
    return found


def _alive(process: int) -> bool:
    """Tell whether a process of this machine still runs; signal 0 asks without disturbing it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def replace_folder(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`; an old `target` ends under the name of `new`, which the caller removes."""
    if not target.exists():
        os.rename(new, target)
    elif not _exchange(new, target):
        # Where two names cannot be swapped in one step, `target` is absent for the moment between two renames. The old
        # folder has a name then by which `put_back` knows it from those that were not written to their ends.
        _remove_leftovers(target)
        old = _sibling(target, _WHOLE)
        os.rename(target, old)
        try:
            os.rename(new, target)
        except OSError:
            os.rename(old, target)
            raise
        os.rename(old, new)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step where the system and the file system can (Linux, most local ones)."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    return swap is not None and swap(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE) == 0


def _settle(path: Path) -> None:
    """Force the content to the disk before the rename: after a power cut a renamed file may otherwise be empty.

    Files get the rights that a new file has here: safetensors writes weights that nobody but their owner may read, and
    a server under another user, or a colleague, could not load the folder.
    """
    probe = path.with_name(f"{path.name}.rights")  # known by its name as a leftover, should this process be killed
    probe.touch()
    usual = probe.stat().st_mode & 0o666
    probe.unlink()
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    for file in files:
        mode = file.stat().st_mode
        if mode | usual != mode and not file.is_symlink():  # what a link points to is not ours to change
            file.chmod(mode | usual)
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def refuse_pointer(file: Path, raises: type[LusiferError] = DataError) -> None:
    """Refuse a pointer of Git LFS that stands in place of a file; a file that is missing passes.

    Raises:
        LusiferError: Of the kind `raises`.
    """
    if file.is_file():
        with file.open("rb") as stream:
            if stream.read(len(_LFS)) == _LFS:
                raise raises(f"{file}: is a Git LFS pointer, not the file itself: fetch it (git lfs pull)")


def parse_json(data: bytes) -> Any:
    """Give the value that JSON in UTF-8 spells; a byte-order mark in front is passed over.

    Raises:
        UnicodeDecodeError: It is not UTF-8.
        JSONDecodeError: It is not JSON.
        ValueError: A key stands twice in an object, a number has thousands of digits, or brackets nest too deep.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_distinct)
    except RecursionError:
        raise ValueError("brackets nest too deep") from None
    except ValueError as error:
        if "integer string conversion" in str(error):
            raise ValueError("a number has thousands of digits") from None
        raise


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"key {first_twice(key for key, _ in pairs)!r} is there twice in one object")
    return found


def first_twice(names: Iterable[Hashable]) -> Any:
    """The first name that came before, or None: in one pass, for a file may have as many as it likes."""
    seen: set[Hashable] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)


def read_json(file: Path, advice: str, raises: type[LusiferError] = DataError, kind: type | None = None) -> Any:
    """Read a JSON file.

    Args:
        file: The file.
        advice: What to do if it cannot be read, the end of the message.
        raises: The error to raise.
        kind: `dict` or `list`, if the value must be one.

    Raises:
        LusiferError: Of the kind `raises`: the file is missing, damaged or holds another kind of value.
    """
    try:
        refuse_pointer(file, raises)
        value = parse_json(file.read_bytes())
    except FileNotFoundError:
        raise raises(f"{file}: missing; {advice}") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or not JSON
        raise raises(f"{file}: damaged ({error}); {advice}") from error
    if kind is not None and not isinstance(value, kind):
        raise raises(f"{file}: damaged, not a JSON {KINDS[kind]}; {advice}")
    return value


def write_json(file: Path, value: Any) -> None:
    """Write a value as JSON, indented, the whole file or nothing."""
    with write_file(file) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
