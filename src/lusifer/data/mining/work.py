"""A folder of half-done work: what it is for, how far each phase is, so that the same call goes on with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from lusifer.errors import UsageError
from lusifer.io.atomic import write_file

PLAN = "plan.json"


class Work:
    """The folder, held by one process at a time.

    Args:
        folder: Where; made if it is not there.
        plan: What the result depends on, as JSON.

    Raises:
        UsageError: Another process works there, or the folder was begun with another plan.
    """

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        self.folder, self.plan = folder, plan
        # Beside the folder, which is removed when the work is done.
        self._lock = FileLock(folder.with_name(folder.name + ".lock"))

    def __enter__(self) -> Work:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"{self.folder}: another process works there: wait for it, or name another output"
            ) from None
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not any(self.folder.glob("*.done")):
            shutil.rmtree(self.folder, ignore_errors=True)  # nothing is lost, and the mended call may be another one
        # While it is held: afterwards the file of that name may be the lock of the next one (see folders.locked).
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def _begin(self) -> None:
        file = self.folder / PLAN
        if file.is_file():
            old = json.loads(file.read_text("utf-8"))
            changed = sorted(name for name in {*old, *self.plan} if old.get(name) != self.plan.get(name))
            if changed:
                raise UsageError(
                    f"{self.folder}: holds the work of another call (other {', '.join(changed)}): repeat that call to "
                    "go on with it, or remove the folder to begin anew"
                )
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise UsageError(f"{self.folder}: holds files but no {PLAN}: remove the folder, or name another output")
        self.folder.mkdir(exist_ok=True)
        with self.write(file) as temporary:
            temporary.write_text(json.dumps(self.plan, indent=1), encoding="utf-8")

    @contextmanager
    def write(self, file: Path) -> Iterator[Path]:
        """Write a file whole or not at all."""
        with write_file(file) as temporary:
            yield temporary

    def done(self, phase: str) -> int:
        """Pieces of a phase that are done."""
        file = self.folder / f"{phase}.done"
        return int(file.read_text("utf-8")) if file.is_file() else 0

    def mark(self, phase: str, done: int) -> None:
        """Say that `done` pieces of a phase are done."""
        with self.write(self.folder / f"{phase}.done") as temporary:
            temporary.write_text(str(done), encoding="utf-8")

    def array(self, name: str, dtype: type, shape: tuple[int, ...]) -> np.memmap:
        """An array on disk, made when it is not there."""
        file = self.folder / f"{name}.array"
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        new = not file.is_file() or file.stat().st_size != size
        return np.memmap(file, dtype=dtype, mode="w+" if new else "r+", shape=shape)

    def vectors(self, name: str, count: int) -> np.ndarray:
        """Vectors that were embedded under this name."""
        file = self.folder / f"{name}.f16"
        return np.memmap(file, dtype=np.float16, mode="r").reshape(count, -1)
