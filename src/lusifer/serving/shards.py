"""A folder of shards: one file of vectors per window, a log with a line per shard, and at the end a manifest.

A shard counts when its line is in the log. The line is written after the shard is complete and on the disk. If the
process is killed, a shard without a line is written again, and an incomplete line is removed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lusifer.errors import DataError, UsageError
from lusifer.io.files import full_disk_named, locked, read_json, sha256, write_json
from lusifer.serving.encode import EmbedReport
from lusifer.serving.files import TextRow, write_vectors
from lusifer.serving.forms import VectorForm, read_calibration

JOB, LOG, MANIFEST, LOCK = "_job.json", "_shards.jsonl", "_manifest.json", ".lock"
"""Names that readers of a folder of Parquet files ignore."""
BUSY = "another process embeds into it: wait for it, or name another output"
_ADVICE = "remove the folder, and run the call again"


def read_settings(path: Path) -> dict[str, Any] | None:
    """The settings of the job that was done or begun in a folder; None where there is none that can be read."""
    for name in (MANIFEST, JOB):
        if (path / name).is_file():
            try:
                said = read_json(path / name, _ADVICE, DataError, dict).get("settings")
            except DataError:  # whoever opens the folder says what is wrong
                return None
            return said if isinstance(said, dict) else None
    return None


def refuse_other(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder with the work of a job with other settings, before a model is loaded.

    Args:
        path: The folder.
        settings: Those settings of this job that are known without the model.

    Raises:
        UsageError: The message names the settings. If another process works there, it only says that.
    """
    before, path = read_settings(path), path.resolve()
    if before is not None and (other := [key for key, value in settings.items() if before.get(key) != value]):
        if (path / LOCK).is_file():
            with suppress(OSError), locked(path / LOCK, f"{path}: {BUSY}"):  # OSError: no permission to write
                pass
        raise UsageError(_other_work(path, before, settings, other))


def _other_work(path: Path, before: Mapping[str, Any], now: Mapping[str, Any], other: Sequence[str]) -> str:
    """The message for the work of another job; `other` are the settings that differ."""
    was = ", ".join(
        "another input" if key == "input" else f"{key} {before.get(key)!r}, now {now.get(key)!r}" for key in other[:2]
    )
    state = "made" if (path / MANIFEST).is_file() else "begun"
    return f"{path}: was {state} by another call ({was}): repeat that call to continue it, or add --fresh to discard it"


class ShardFolder:
    """The shards of one job, some of which may be done; made by `opened`.

    Args:
        path: The folder.
        settings: The settings of the job, which those of the work in the folder must equal.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.done: dict[int, dict[str, Any]] = {}
        self.finished = False

    @classmethod
    @contextmanager
    def opened(cls, path: Path, settings: dict[str, Any], *, fresh: bool = False) -> Iterator[ShardFolder]:
        """Open a folder, or create it, and lock it for this process.

        Args:
            path: The folder.
            settings: The settings of the job.
            fresh: Whether to discard the work of another job.

        Raises:
            UsageError: The folder has the work of another job or other files, or another process works there.
            DataError: The work there is damaged.
        """
        path = path.resolve()
        known = [name for name in (JOB, MANIFEST) if (path / name).is_file()]
        # Names with a dot are the lock and temporary files of a killed process.
        others = [file.name for file in path.iterdir() if file.name[0] != "."] if path.is_dir() else []
        # An empty log means that its shards were being discarded. A log with lines but no job is not ours to remove.
        ours = known or ((path / LOG).is_file() and (fresh or not (path / LOG).stat().st_size))
        if others and not ours:
            raise UsageError(f"--output {path}: has other files (no {MANIFEST}): name a new folder")
        path.mkdir(parents=True, exist_ok=True)
        with locked(path / LOCK, f"{path}: {BUSY}"):
            shards = cls(path, settings)
            shards._begin(fresh)
            yield shards
            if shards.finished or not path.is_dir():
                (path / LOCK).unlink(missing_ok=True)

    def _begin(self, fresh: bool) -> None:
        known = [name for name in (MANIFEST, JOB) if (self.path / name).is_file()]
        if not known and (self.path / LOG).is_file():  # a call was killed while it discarded the shards
            self.restart()
        for name in (MANIFEST, JOB):
            if not (self.path / name).is_file():
                continue
            before = read_json(self.path / name, _ADVICE, DataError, dict).get("settings") or {}
            before.pop("refuse_long", None)  # earlier versions stored it, though no vector depends on it
            other = [key for key in {**before, **self.settings} if before.get(key) != self.settings.get(key)]
            if other and not fresh:
                raise UsageError(_other_work(self.path, before, self.settings, other))
            if other:
                self.restart()
                return
        self._read_log()
        self.finished = (self.path / MANIFEST).is_file()
        if self.finished:
            for name in (LOG, JOB):  # a killed call may have left them
                (self.path / name).unlink(missing_ok=True)
            for row in read_json(self.path / MANIFEST, _ADVICE, DataError, dict)["shards"]:
                self.done[row["number"]] = row

    def restart(self) -> None:
        """Discard all shards and start again."""
        self.done, self.finished = {}, False
        # Empty the log first, so that no shard counts. Remove it last: it marks the folder as ours.
        (self.path / LOG).write_bytes(b"")
        for name in (MANIFEST, JOB):
            (self.path / name).unlink(missing_ok=True)
        for file in self.path.glob("shard-*"):
            file.unlink()
        (self.path / LOG).unlink()

    def _read_log(self) -> None:
        """Read the lines of complete shards, and remove an incomplete last line."""
        file = self.path / LOG
        if not file.is_file():
            return
        data = file.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(file, len(whole))
        for line in whole.splitlines():
            try:
                row = json.loads(line)
                shard = self.path / row["file"]
                if shard.is_file() and shard.stat().st_size == row["bytes"]:
                    self.done[row["number"]] = row
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{file}: damaged ({error}): {_ADVICE}") from error

    def form(self, asked: VectorForm, calibrate: Callable[[], VectorForm]) -> VectorForm:
        """Return the form of the vectors, with the ranges that the job began with, if it needs them.

        Args:
            asked: The form of this call.
            calibrate: Returns the form with ranges, for a new job.
        """
        if (self.path / JOB).is_file():
            return read_calibration(self.path / JOB, asked) if asked.needs_ranges else asked
        form = calibrate()
        write_json(self.path / JOB, {"settings": self.settings} | form.said())
        return form

    def file(self, number: int) -> Path:
        """Return the path of the shard of a window."""
        return self.path / f"shard-{number:07d}{self.settings['format']}"

    def add(self, number: int, first: int, rows: Sequence[TextRow], vectors: np.ndarray, report: EmbedReport) -> None:
        """Write the shard of a window, and then its line in the log.

        Args:
            number: The number of the window.
            first: The number of its first row in the input.
            rows: Its rows.
            vectors: Their vectors (n, d), in the form in which they are stored.
            report: Its counts.
        """
        file = self.file(number)
        write_vectors(file, len(rows), [(rows, vectors)])
        about = {"number": number, "file": file.name, "first": first, "bytes": file.stat().st_size}
        row = about | {"sha256": sha256(file)} | asdict(report)
        with full_disk_named(self.path / LOG), (self.path / LOG).open("ab") as log:
            log.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            log.flush()
            os.fsync(log.fileno())
        self.done[number] = row

    def report(self, windows: int) -> EmbedReport:
        """Sum the counts of all finished shards of a job with so many windows."""
        total = EmbedReport()
        names = total.__dataclass_fields__
        for number in sorted(self.done):
            if number < windows:
                total.add(EmbedReport(**{key: self.done[number][key] for key in names}))
        return total

    def finish(self, form: dict[str, Any]) -> None:
        """Write the manifest, which marks the folder as complete, and remove the log; `form` is `VectorForm.said()`."""
        rows = [self.done[number] for number in sorted(self.done)]
        counts = asdict(self.report(len(rows)))
        write_json(self.path / MANIFEST, {"settings": self.settings} | form | counts | {"shards": rows})
        self.finished = True
        (self.path / LOG).unlink(missing_ok=True)
        (self.path / JOB).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder after the shards were joined into one file; the manifest is removed last."""
        for file in self.path.glob("shard-*"):
            file.unlink()
        (self.path / MANIFEST).unlink()
        shutil.rmtree(self.path)
