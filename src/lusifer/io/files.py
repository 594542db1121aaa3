"""Write folders and files atomically; read and write JSON; compute digests of files.

New content is written next to the target under a temporary name, and renamed onto it at the end. A reader sees the old
content or the new one, never a mix, also if the process is killed in between.
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
A_PIPE = "is a pipe or a device, not a file"
_LFS = b"version https://git-lfs.github.com/"  # the first bytes of a Git LFS pointer


def refuse_unwritable(
    target: str | os.PathLike[str], kind: str, option: str = "--output", replaces: str | None = None
) -> None:
    """Refuse an output path that cannot be written, before the work starts; nothing is created.

    Args:
        target: The output. Missing parent folders are no error.
        kind: "file" or "folder".
        option: The option that names it, for the message.
        replaces: The file that marks a folder as an earlier result. Such a folder may be replaced; any other folder
            that is not empty is refused. None: any folder passes.

    Raises:
        UsageError: The target is of the other kind, is a folder with other files, or its nearest existing parent
            cannot be written to.
    """
    path = _resolve(target)
    if path.exists() and path.is_dir() != (kind == "folder"):
        raise UsageError(f"{option} {target}: is a {'folder' if path.is_dir() else 'file'}: name a {kind}")
    if replaces and path.is_dir() and any(path.iterdir()) and not (path / replaces).is_file():
        raise UsageError(f"{option} {target}: has files that would be lost (no {replaces}): name a new folder")
    nearest = next(folder for folder in path.parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UsageError(
            f"{option} {target}: cannot write to {nearest} ({error.strerror}): name a {kind} elsewhere"
        ) from error


def refuse_output(path: Path, endings: tuple[str, ...], inputs: Iterable[Path] = (), option: str = "--output") -> None:
    """Refuse an output file with another ending, one that is also an input, and one that cannot be written.

    Args:
        path: The output file.
        endings: The endings that are allowed, in lower case; capitals in `path` pass.
        inputs: The files that are read.
        option: The option that names it, for the message.

    Raises:
        UsageError: One of these; for an unknown ending the message lists the allowed ones.
    """
    if not path.name.lower().endswith(endings) or path.name.startswith(".") and path.suffix == "":
        raise UsageError(f"{option} {path}: unknown ending {path.suffix!r}: use {', '.join(endings)}")
    if _resolve(path) in set(map(_resolve, inputs)):
        raise UsageError(f"{option} {path}: is also an input, which would be lost: name another file")
    refuse_unwritable(path, "file", option)


@contextmanager
def write_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` when the block ends without an exception.

    An old folder at `target` stays until then and is replaced completely. Missing parents are made. Temporary files of
    an earlier writer of the same target that was killed are removed.

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


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Return a path with `~` replaced by the home folder; `~NAME` of an unknown user stays, as in a shell."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (pathlib's own raises a RuntimeError)


@contextmanager
def write_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path; the file written there becomes `target` when the block ends without an exception.

    The path has the suffix of `target`, because some writers choose their format by it.

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
    """Raise an error that names `target` if the disk gets full in the block; the errors of libraries do not name it.

    Raises:
        LusiferError: There is no space left, or a quota or the file system allows no more.
    """
    try:
        yield
    except Exception as error:
        # safetensors raises its own error with the system's message or number in it; torch does not give the reason.
        full = [code for code in FULL if getattr(error, "errno", None) == code or _said(code, str(error))]
        if isinstance(error, LusiferError) or not (full or "inline_container.cc" in str(error)):
            raise
        reason = os.strerror(full[0]) if full else "torch could not write it"
        words = f"{reason}: free some space, or name another place"
        raise LusiferError(f"{target}: cannot be written completely: {words}") from error


def _said(code: int, message: str) -> bool:
    return os.strerror(code) in message or f"os error {code})" in message or f"[Errno {code}]" in message


@contextmanager
def locked(file: Path, refusal: str, *, remove: bool = False, wait: float = 0) -> Iterator[None]:
    """Hold a lock while the block runs; the system releases it when the process ends, also if it is killed.

    Args:
        file: The lock file; its folder must exist.
        refusal: The message if another process holds the lock.
        remove: Whether to remove the file at the end.
        wait: How many seconds to wait for another process.

    Raises:
        UsageError: Another process holds the lock.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise UsageError(refusal) from None
    try:
        yield
    finally:
        if remove:
            # Remove it while the lock is held: afterwards the file may be the lock of the next process. A process that
            # has opened this file meanwhile sees that it has no name anymore (filelock checks) and opens a new one.
            file.unlink(missing_ok=True)
        lock.release()


def _resolve(target: str | os.PathLike[str]) -> Path:
    """Follow links, so that a link at `target` stays a link and its destination is rewritten."""
    return expand_user(target).resolve()


def _prefix(target: Path) -> str:
    """The start of the temporary names of `target` on this machine; hidden, so that listings do not show them.

    Only the first 100 bytes of a long name are used: file systems allow 255 bytes. A character that does not fit is
    dropped completely: some libraries refuse a name that is not UTF-8.
    """
    return f".{os.fsencode(target.name)[:100].decode(errors='ignore')}.{socket.gethostname()}-"


def _sibling(target: Path, mark: str = "") -> Path:
    """A free path next to `target`, with the machine and process that writes it in its name."""
    return target.with_name(f"{_prefix(target)}{os.getpid()}-{mark}{secrets.token_hex(4)}{target.suffix}")


def _remove_leftovers(target: Path) -> None:
    """Remove temporary folders and files of writers of `target` that are no longer alive on this machine."""
    put_back(target)
    for path, _ in _leftovers(target):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def put_back(target: Path) -> None:
    """If `target` is absent, restore the newest old folder that a killed writer had moved away.

    This is needed only where two names cannot be swapped in one step (`replace_folder`).

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
    """Temporary paths of writers of `target` that no longer run on this machine, each with the end of its name."""
    prefix, found = _prefix(target), []
    for path in target.parent.iterdir() if target.parent.is_dir() else ():
        process, _, rest = path.name.removeprefix(prefix).partition("-")
        if path.name.startswith(prefix) and process.isdecimal() and not _alive(int(process)):
            found.append((path, rest))
    return found


def _alive(process: int) -> bool:
    """Whether a process of this machine still runs; signal 0 only asks."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def replace_folder(new: Path, target: Path) -> None:
    """Move the folder `new` to `target`; an old `target` gets the name of `new`, and the caller removes it."""
    if not target.exists():
        os.rename(new, target)
    elif not _exchange(new, target):
        # Two names cannot be swapped in one step here, so `target` is absent between two renames. The name of the old
        # folder has a mark, by which `put_back` tells it from folders that were not written completely.
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
    """Force the content to the disk before the rename: otherwise a renamed file may be empty after a power cut.

    Files get the permissions of a new file: safetensors writes weights that only their owner may read, so a server
    under another user could not load the folder.
    """
    probe = path.with_name(f"{path.name}.rights")  # its name marks it as a leftover, if this process is killed
    probe.touch()
    usual = probe.stat().st_mode & 0o666
    probe.unlink()
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    for file in files:
        mode = file.stat().st_mode
        if mode | usual != mode and not file.is_symlink():  # the target of a link belongs to somebody else
            file.chmod(mode | usual)
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def refuse_no_file(
    path: str | os.PathLike[str], fix: str = "correct the name", raises: type[Exception] = DataError, option: str = ""
) -> None:
    """Refuse a path of an input that is no file: a pipe would be empty when it is read a second time.

    Args:
        path: The path.
        fix: The advice if nothing is there.
        raises: The error to raise.
        option: The option that names the path, for the message.
    """
    place = expand_user(path)
    if place.is_file():
        return
    wrong = "is a folder: name a file in it" if place.is_dir() else f"{A_PIPE}: save its content as a file"
    raise raises(f"{option} {path}: {wrong if place.exists() else f'no such file: {fix}'}".lstrip())


def refuse_pointer(file: Path, raises: type[LusiferError] = DataError) -> None:
    """Refuse a Git LFS pointer in place of a file; a missing file passes.

    Args:
        file: The file.
        raises: The error to raise.

    Raises:
        LusiferError: Of the kind `raises`.
    """
    if file.is_file():
        with file.open("rb") as stream:
            if stream.read(len(_LFS)) == _LFS:
                raise raises(f"{file}: is a Git LFS pointer, not the file itself: fetch it (git lfs pull)")


def parse_json(data: bytes) -> Any:
    """Parse JSON in UTF-8; a byte-order mark at the start is skipped.

    Raises:
        UnicodeDecodeError: The data are not UTF-8.
        JSONDecodeError: The data are not JSON.
        ValueError: An object has a key twice, a number has thousands of digits, or brackets nest too deep.
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
        raise ValueError(f"duplicate key {first_twice(key for key, _ in pairs)!r} in one object")
    return found


def first_twice(names: Iterable[Hashable]) -> Any:
    """Return the first name that occurs a second time, or None."""
    seen: set[Hashable] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)


def read_json(file: Path, advice: str, raises: type[LusiferError] = DataError, kind: type | None = None) -> Any:
    """Read a JSON file.

    Args:
        file: The file.
        advice: What to do if it cannot be read, the end of the message.
        raises: The error to raise.
        kind: `dict` or `list` if the value must be one; None allows any value.

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
    """Write a value as indented JSON, atomically."""
    with write_file(file) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
