"""Several devices, a process each; every process takes whole tasks and writes into the same folder."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lusifer.embedder import folder as model_folder
from lusifer.errors import LusiferError, UsageError
from lusifer.evaluation.run.encoder import Encoder, model_meta
from lusifer.evaluation.run.folder import VECTORS, Folder
from lusifer.evaluation.run.runner import Done, Plan, cost
from lusifer.evaluation.run.runner import run as run_here
from lusifer.evaluation.run.runner import tasks as grouped
from lusifer.evaluation.suites.rows import LOCAL, Row
from lusifer.io import seen

SECONDS_BETWEEN_LOOKS = 1.0


def make(suite: str, data: Path | None, rows: list[Row]) -> Any:
    """Make mteb's task of rows that share it, its data not yet loaded.

    Args:
        suite: "offline" and "sample" have tasks of ours; all others have mteb's.
        data: Folder with the files of the offline suite.
        rows: Rows of one task.
    """
    if suite in LOCAL:
        from lusifer.evaluation.suites import local_tasks

        return local_tasks.make(rows, data)
    import mteb

    task = mteb.get_task(rows[0].task)
    task.hf_subsets = list(dict.fromkeys(subset for row in rows for subset in row.subsets))
    task._eval_splits = list(dict.fromkeys(row.split for row in rows))
    return task


def shares(rows: Sequence[Row], count: int) -> list[list[Row]]:
    """Deal whole tasks out so that the shares cost about the same: the dearest first, to whoever has least."""
    dealt: list[list[Row]] = [[] for _ in range(count)]
    for group in sorted(grouped(rows), key=lambda group: -sum(map(cost, group))):
        min(dealt, key=lambda share: sum(map(cost, share))).extend(group)
    return dealt


@dataclass(frozen=True)
class Model:
    """A model that a process can load: its place, name in tables and hash, a device a process, its number format."""

    place: str | None
    name: str
    identity: str
    devices: Sequence[str]
    dtype: str | None = None


def run(
    rows: Sequence[Row],
    plan: Plan,
    model: Model,
    encoder: Encoder,
    folder: Folder,
    tell: Callable[[Done], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure rows on several devices: this process uses the first one, and one is started for each of the others.

    Args:
        rows: What to measure.
        plan: How; it is sent to the processes.
        model: What the others load.
        encoder: The model on the first device.
        folder: Where finished rows are kept.
        tell: Called as processes finish rows.

    Returns:
        An entry a row, in the order of `rows`.

    Raises:
        LusiferError: A process died.
        UsageError: The model is only in memory.
    """
    if model.place is None:
        raise UsageError("several devices load the model from its folder: give that, or one device")
    context = multiprocessing.get_context("spawn")
    heard: Any = context.Queue()
    dealt = shares(rows, len(model.devices))
    others = {
        number: context.Process(
            target=_work, args=(dealt[number], plan, model, number, folder.path, heard), daemon=True
        )
        for number in range(1, len(dealt))
        if dealt[number]
    }
    for process in others.values():
        process.start()
    gathered = _Gathered(len(rows), heard, tell)
    try:
        mine = run_here(dealt[0], plan, encoder, folder, gathered.mine)
        while gathered.waiting(others):
            gathered.listen(SECONDS_BETWEEN_LOOKS)
    finally:
        for process in others.values():
            process.terminate()
    entries = {(entry["task"], entry["language"]): entry for entry in [*mine, *gathered.entries]}
    return [entries[row.task, row.language] for row in rows]


class _Gathered:
    """What the processes report."""

    def __init__(self, rows: int, heard: Any, tell: Callable[[Done], None] | None) -> None:
        self._rows, self._heard, self._tell = rows, heard, tell
        self._states: dict[int, Done] = {}
        self._finished: set[int] = set()
        self.entries: list[dict[str, Any]] = []

    def mine(self, done: Done) -> None:
        """Take the state of this process, and whatever the others have said since."""
        self._states[0] = done
        while self.listen(0):
            pass
        self._show()

    def listen(self, seconds: float) -> bool:
        """Wait for one report; whether there was one."""
        try:
            kind, number, what = self._heard.get(timeout=seconds) if seconds else self._heard.get_nowait()
        except queue.Empty:
            return False
        if kind == "error":
            raise LusiferError(f"a process failed ({what}); finished rows are kept: run the same command again")
        if kind == "row":
            self._states[number] = what
            self._show()
        else:
            self._finished.add(number)
            self.entries += what
        return True

    def waiting(self, processes: Mapping[int, Any]) -> bool:
        """Whether a process has not reported its end; one that is gone without a word is an error."""
        left = [number for number in processes if number not in self._finished]
        gone = [number for number in left if not processes[number].is_alive()]
        if gone and not self.listen(SECONDS_BETWEEN_LOOKS):
            status = processes[gone[0]].exitcode
            raise LusiferError(f"a process ended with status {status}; finished rows are kept: run the command again")
        return bool(left)

    def _show(self) -> None:
        if self._tell is not None:
            left = [state.seconds_left for state in self._states.values() if state.seconds_left is not None]
            rows = sum(state.rows for state in self._states.values())
            self._tell(Done(rows, self._rows, max(left) if left else None))


def _work(rows: list[Row], plan: Plan, model: Model, number: int, path: Path, heard: Any) -> None:
    """A process: load, measure, report."""
    try:
        embedder = model_folder.load(model.place, device=model.devices[number], dtype=model.dtype)
        read = seen.of_model(Path(model.place)) if Path(model.place).is_dir() else None
        encoder = Encoder(
            embedder,
            model_meta(model.name, model.identity),
            path / f"{VECTORS}-{number}",
            instructed=plan.instructed,
            unit=plan.unit,
            seen=read,
        )
        folder = Folder(path, lambda _: None)  # files to redo were named when the folder was claimed
        heard.put(
            ("done", number, run_here(rows, plan, encoder, folder, lambda done: heard.put(("row", number, done))))
        )
    except Exception as error:  # the parent raises it: nobody reads the traceback of a child
        heard.put(("error", number, f"{type(error).__name__}: {error}"))
