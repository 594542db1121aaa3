"""Run rows with mteb: cheapest first, within a budget of time, going on where an earlier run stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from lusifer.errors import LusiferError
from lusifer.evaluation.run import examples
from lusifer.evaluation.run.encoder import Encoder
from lusifer.evaluation.run.folder import PREDICTIONS, Folder
from lusifer.evaluation.suites.rows import Row
from lusifer.io import hub

Make = Callable[[list[Row]], Any]
"""Rows of one task -> mteb's task with their subsets, its data not yet loaded."""

UNKNOWN_COST = 5_000  # texts, where a task does not tell: between the small and the large ones


@dataclass(frozen=True)
class Plan:
    """What to run and how: the same for every process."""

    make: Make
    instructed: bool
    unit: bool = False  # whether vectors are brought to length 1
    deadline: float | None = None  # of time.monotonic()
    absent: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (task, language) -> why it cannot be run


@dataclass(frozen=True)
class Done:
    """How far a run is, after each row.

    Attributes:
        rows: Rows that are finished, before this run or in it, or that cannot be run.
        of: All rows.
        seconds_left: Of what is still to do, by the texts a second so far; None before anything was measured.
    """

    rows: int
    of: int
    seconds_left: float | None


def tasks(rows: Iterable[Row]) -> list[list[Row]]:
    """Group rows by task, the cheapest task first and within it the cheapest language."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.task, []).append(row)
    ordered = [sorted(group, key=cost) for group in groups.values()]
    return sorted(ordered, key=lambda group: (sum(map(cost, group)), group[0].task))


def cost(row: Row) -> int:
    """Texts to embed, a guess where that is not known."""
    return row.cost if row.cost is not None else UNKNOWN_COST


def run(
    rows: Sequence[Row], plan: Plan, encoder: Encoder, folder: Folder, tell: Callable[[Done], None] | None = None
) -> list[dict[str, Any]]:
    """Measure rows, or read those that are done.

    Args:
        rows: What to measure.
        plan: How.
        encoder: The model.
        folder: Where finished rows are kept; it must have been claimed.
        tell: Called after each row.

    Returns:
        An entry a row, as in `summary.json`, in the order of `rows`; one that could not be measured says why.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    clock = _Clock(rows, tell)
    cut = False
    with ExitStack() as cut_off:
        for group in tasks(rows):
            done = folder.done(group[0].task)
            todo = [row for row in group if row.language not in done]
            for row in group:
                if row.language in done:
                    found[row.task, row.language] = done[row.language]
                    clock.skip(row)
            for entry in _task(todo, plan, encoder, folder):
                if cut and entry["missing"]:  # it was not the user who set it
                    entry["missing"] = entry["missing"].replace(hub.OFFLINE, hub.UNREACHABLE)
                found[entry["task"], entry["language"]] = entry
                row = next(row for row in todo if row.language == entry["language"])
                clock.skip(row) if entry["missing"] else clock.finish(row)
            if not cut and any(hub.UNREACHABLE in (found[row.task, row.language]["missing"] or "") for row in todo):
                cut_off.enter_context(hub.offline())
                cut = True
    return [found[row.task, row.language] for row in rows]


def _task(rows: list[Row], plan: Plan, encoder: Encoder, folder: Folder) -> Iterable[dict[str, Any]]:
    """Measure rows of one task; its data are loaded once."""
    runnable = [row for row in rows if (row.task, row.language) not in plan.absent]
    yield from (missing(row, plan, plan.absent[row.task, row.language]) for row in rows if row not in runnable)
    if not runnable:
        return
    if _late(plan):
        yield from (missing(row, plan, "the time budget was spent before it") for row in runnable)
        return
    try:
        loaded = plan.make(runnable)
        loaded.load_data()
    except Exception as error:
        # A hub that is down, a gated data set, a task that another mteb has not: said, not hidden
        yield from (missing(row, plan, f"cannot be loaded: {_short(error)}") for row in runnable)
        return
    for row in runnable:
        if _late(plan):
            yield missing(row, plan, "the time budget was spent before it")
            continue
        try:
            entry, made = _row(row, loaded, plan, encoder, folder)
        except Exception as error:  # the other rows of a long run are still worth having
            yield missing(row, plan, f"failed: {_short(error)}")
            continue
        folder.keep(row, entry, made)
        encoder.save()
        yield entry
    loaded.unload_data()


def _late(plan: Plan) -> bool:
    return plan.deadline is not None and time.monotonic() >= plan.deadline


def _row(
    row: Row, loaded: Any, plan: Plan, encoder: Encoder, folder: Folder
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    import mteb

    started = time.monotonic()
    # A task made anew has its random generator at the start: a row's score does not depend on the rows before it.
    task = type(loaded)()
    task.dataset, task.data_loaded = loaded.dataset, True
    task.hf_subsets, task._eval_splits = list(row.subsets), [row.split]
    encoder.turn_to(row)
    cache = result_cache(folder.path)
    predicted = folder.path / PREDICTIONS
    result = cache.get_task_result_path(row.task, encoder.mteb_model_meta)
    folder.forget(result, task._predictions_path(predicted), row.split, row.subsets)
    found = mteb.evaluate(
        encoder,
        task,
        co2_tracker=False,
        cache=cache,
        prediction_folder=predicted,
        encode_kwargs={"batch_size": 32, "show_progress_bar": False},
        show_progress_bar=False,
    )
    scores = {part["hf_subset"]: part for part in found.task_results[0].scores[row.split]}
    lost = [subset for subset in row.subsets if subset not in scores]
    if lost:
        raise LusiferError(f"mteb gave no score for {', '.join(lost)}")
    values = [float(scores[subset][row.metric]) for subset in row.subsets]
    if not all(value == value for value in values):
        raise LusiferError(f"{row.metric} is not a number")
    made = _examples(row, task, scores, predicted)
    score = round(100 * sum(values) / len(values), 4)
    count = len(made["values"]) if made is not None and made["kind"] != "draws" else _size(row, task)
    made_of = {"score": score, "n": count, "seconds": round(time.monotonic() - started, 3)}
    told = {"prompt": encoder.prompts, "seen": encoder.seen_in_training()}
    return _entry(row, plan) | made_of | told, made


def _examples(row: Row, task: Any, scores: Mapping[str, Any], predicted: Path) -> dict[str, Any] | None:
    import json

    file = task._predictions_path(predicted)
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    parts = [
        examples.of_subset(
            row.type,
            row.metric,
            scores[subset],
            kept.get(subset, {}).get(row.split),
            _split(task, subset, row.split),
            subset,
        )
        for subset in row.subsets
    ]
    return examples.joined(parts)


def _split(task: Any, subset: str, split: str) -> Any:
    return task.dataset[subset][split] if subset in task.dataset else task.dataset[split]


def _size(row: Row, task: Any) -> int | None:
    """How many examples or queries were tested."""
    parts = [_split(task, subset, row.split) for subset in row.subsets]
    try:
        return sum(len(part["queries"]) if isinstance(part, dict) else len(part) for part in parts)
    except (KeyError, TypeError):
        return None


def _entry(row: Row, plan: Plan) -> dict[str, Any]:
    return {
        "language": row.language,
        "task": row.task,
        "title": row.title or row.task,
        "type": row.type,
        "metric": row.metric,
        "split": row.split,
        "subsets": list(row.subsets),
        "cross_lingual": row.cross_lingual,
        "prompt": row.prompts(plan.instructed),
        "score": None,
        "low": None,
        "high": None,
        "n": None,
        "seconds": None,
        "seen": None,
        "missing": None,
    }


def missing(row: Row, plan: Plan, reason: str) -> dict[str, Any]:
    """Make the entry of a row that has no score."""
    return _entry(row, plan) | {"missing": reason}


def _short(error: Exception) -> str:
    """The first line of an error, with its kind where it is none of ours; of a hub's refusal the reason."""
    line = (str(error).strip().splitlines() or ["no message"])[0][:300]
    if isinstance(error, LusiferError):
        return line
    reason = hub.why(error)
    return f"{type(error).__name__}: {line}" if reason[:300] == line or not line else reason


def result_cache(path: Path) -> Any:
    """Give the cache of results that mteb keeps in a folder; several processes may write to it."""
    from mteb.cache import ResultCache

    class Locked(ResultCache):
        def save_to_cache(self, *args: Any, **kwargs: Any) -> None:
            # Settings of all tasks go into one file, which is read, changed and written.
            with FileLock(Path(self.cache_path) / ".results.lock"):
                super().save_to_cache(*args, **kwargs)

    return Locked(path)


class _Clock:
    """Counts rows and texts, and says how long the rest takes."""

    def __init__(self, rows: Sequence[Row], tell: Callable[[Done], None] | None) -> None:
        self._left = sum(map(cost, rows))
        self._done = self._rows = 0
        self._of = len(rows)
        self._tell = tell
        self._started = time.monotonic()

    def skip(self, row: Row) -> None:
        self._left -= cost(row)
        self._show()

    def finish(self, row: Row) -> None:
        self._left -= cost(row)
        self._done += cost(row)
        self._show()

    def _show(self) -> None:
        self._rows += 1
        if self._tell is not None:
            passed = time.monotonic() - self._started
            self._tell(Done(self._rows, self._of, passed / self._done * self._left if self._done else None))
