"""Measure rows on one device or several: a process for each further one, all writing into the same folder.

A process takes whole tasks.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from lusifer.errors import LusiferError, UsageError
from lusifer.evaluation.run import runner
from lusifer.evaluation.run.encoder import Encoder, ModelSource
from lusifer.evaluation.run.runner import Done, Plan, Result
from lusifer.evaluation.scores.folder import VECTORS, EvaluationFolder
from lusifer.evaluation.suites.rows import SuiteRow

AGAIN = "finished rows are kept: run the same command again"


def shares(rows: Sequence[SuiteRow], count: int) -> list[list[list[SuiteRow]]]:
    """Deal whole tasks out so that the shares cost about the same: the dearest first, to whoever has least.

    In a share, the cheapest task comes first, and in a task the cheapest language.
    """
    groups: dict[str, list[SuiteRow]] = {}
    for row in sorted(rows, key=runner.cost):
        groups.setdefault(row.task, []).append(row)
    dealt: list[list[list[SuiteRow]]] = [[] for _ in range(count)]
    for group in sorted(groups.values(), key=lambda group: (-_cost(group), group[0].task)):
        min(dealt, key=lambda share: sum(map(_cost, share))).append(group)
    return [sorted(share, key=_cost) for share in dealt]


def run(
    rows: Sequence[SuiteRow],
    plan: Plan,
    encoder: Encoder,
    folder: EvaluationFolder,
    tell: Callable[[Done], None] | None = None,
    others: Sequence[ModelSource] = (),
) -> list[Result]:
    """Measure rows, or read those that are done.

    Args:
        rows: What to measure.
        plan: How; it is sent to the processes.
        encoder: The model on the first device, which this process uses.
        folder: Where finished rows are kept; it must have been claimed.
        tell: Called as rows are finished.
        others: What each further device loads.

    Returns:
        An entry a row, as in `summary.json`, in the order of `rows`; one that could not be measured says why.

    Raises:
        LusiferError: A process failed or died.
        UsageError: Several devices, and the model is only in memory.
    """
    if any(source.folder is None for source in others):
        raise UsageError("several devices load the model from its folder: give that, or one device")
    found: dict[tuple[str, str], Result] = {}
    started, left, done = time.monotonic(), _cost(rows), 0

    def take(row: SuiteRow, entry: Result, measured: bool) -> None:
        nonlocal left, done
        found[row.key] = entry
        left -= runner.cost(row)
        done += runner.cost(row) if measured else 0  # what was read or missing says nothing about the speed
        if tell is not None:
            tell(Done(len(found), len(rows), (time.monotonic() - started) / done * left if done else None))

    mine, *theirs = shares(rows, 1 + len(others))
    with _processes() as start:
        futures: set[Future] = set()
        for number, (source, share) in enumerate(zip(others, theirs, strict=True), start=1):
            executor = start() if share else None
            for group in share:
                futures.add(executor.submit(_task, group, plan, source, folder.path, number))
        for result in runner.results(mine, plan, encoder, folder):
            take(*result)
            futures = _collect(futures, take, 0)
        while futures:
            futures = _collect(futures, take, None)
    return [found[row.key] for row in rows]


def _collect(futures: set[Future], take: Callable[..., None], seconds: float | None) -> set[Future]:
    """Wait for one of the futures, hand its rows over, and give those that are not done."""
    done, left = wait(futures, seconds, FIRST_COMPLETED)
    for future in done:
        try:
            finished = future.result()
        except Exception as error:  # one of the process, or that it died
            raise LusiferError(f"a process failed ({type(error).__name__}: {error}); {AGAIN}") from error
        for result in finished:
            take(*result)
    return left


@contextmanager
def _processes() -> Iterator[Callable[[], ProcessPoolExecutor]]:
    """Starts executors of one process each; after a failure, the processes are ended at once."""
    before = set(multiprocessing.active_children())
    executors: list[ProcessPoolExecutor] = []

    def start() -> ProcessPoolExecutor:
        executors.append(ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")))
        return executors[-1]

    try:
        yield start
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        for executor in executors:
            executor.shutdown(cancel_futures=True)


def _task(
    rows: list[SuiteRow], plan: Plan, source: ModelSource, path: Path, number: int
) -> list[tuple[SuiteRow, Result, bool]]:
    """Measure one task in a process of its own."""
    folder = EvaluationFolder(path)  # files to measure again were named when the folder was claimed
    return list(runner.results([rows], plan, _encoder(source, path / f"{VECTORS}-{number}", plan.unit), folder))


@lru_cache(1)
def _encoder(source: ModelSource, cache: Path, unit: bool) -> Encoder:
    """The model of this process, loaded once."""
    return source.load().encoder(cache, unit)


def _cost(group: Sequence[SuiteRow]) -> int:
    return sum(map(runner.cost, group))
