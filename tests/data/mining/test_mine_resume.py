"""Mining that was stopped goes on where it was, and ends in the same file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from lusifer.data import sources
from lusifer.data.mining import mine as mining
from lusifer.data.mining import negatives, vectors
from lusifer.data.mining.negatives import MineSettings
from lusifer.errors import DataError, UsageError
from lusifer.io.rows import BadRows
from support.small_mine import FEW, mine, pairs, write
from support.words_model import encode, retriever


class Stopped(Exception):
    """As if the process had been killed."""


class Budget:
    """Pieces of work that are let through; looking at a single text, as the identity of a model does, costs nothing."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spent_by(self, function: Callable) -> Callable:
        def call(*args, **kwargs):
            if not (isinstance(args[0], list) and len(args[0]) == 1):
                self.left -= 1
            if self.left < 0:
                raise Stopped
            return function(*args, **kwargs)

        return call


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK", 16)
    monkeypatch.setattr(vectors, "CORPUS_BLOCK", 32)
    monkeypatch.setattr("lusifer.data.mining.corpus.QUERIES", 24)
    monkeypatch.setattr(negatives, "ROWS", 10)


@pytest.mark.usefixtures("small_blocks")
def test_rows_that_were_left_out_are_still_listed_when_work_goes_on(tmp_path: Path, monkeypatch) -> None:
    file = write(tmp_path / "a.jsonl", pairs())
    with file.open("a", encoding="utf-8") as lines:
        lines.write('{"query": "no answer"}\n')

    def call(bad: BadRows) -> None:
        rows = sources.read_file(file, "pairs", None, bad)
        mining.mine(lambda: rows, "pairs", [file], tmp_path / "b.jsonl", retriever(), FEW, bad=bad)

    first, again = BadRows(1), BadRows(1)
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(mining, "nearest", Budget(1).spent_by(vectors.nearest))
        call(first)
    call(again)
    assert len(first.messages) == 1 and again.messages == first.messages


def test_released_pages_leave_memory_and_nothing_is_lost(tmp_path: Path) -> None:
    array = np.memmap(tmp_path / "a", dtype=np.int32, mode="w+", shape=(16 << 20,))
    array[:] = 7
    array.flush()
    before = resident()
    vectors.release(array)
    assert before - resident() > 50 << 20 or not sys.platform.startswith("linux")  # elsewhere pages are kept
    array[5] = 8
    assert array[5] == 8 and (array[6:] == 7).all() and np.fromfile(tmp_path / "a", dtype=np.int32)[5] == 8


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    if not Path("/proc/self/statm").exists():
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.usefixtures("small_blocks")
def test_work_that_was_stopped_anywhere_ends_in_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.jsonl", pairs())
    whole = mine(file, tmp_path / "whole.jsonl", FEW)

    stops = 0
    while not (tmp_path / "stopped.jsonl").exists():
        assert stops < 40
        budget = Budget(stops % 3 + 1)
        with monkeypatch.context() as patched:
            patched.setattr(mining, "nearest", budget.spent_by(vectors.nearest))
            patched.setattr(negatives.Chooser, "block", budget.spent_by(negatives.Chooser.block))
            with suppress(Stopped):
                report = mine(file, tmp_path / "stopped.jsonl", FEW, retriever(encode=budget.spent_by(encode)))
            stops += budget.left < 0
    assert stops > 8
    assert (tmp_path / "stopped.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert report.counts == whole.counts and report.examples == whole.examples


def test_the_folder_of_another_call_is_refused_and_nothing_lost(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", pairs())

    def broken(texts: list[str]) -> np.ndarray:
        return encode(texts) * (np.nan if len(texts) > 1 else 1)

    with pytest.raises(DataError, match="is 0 or not finite: check the model with `lusifer doctor`"):
        mine(file, tmp_path / "b.jsonl", FEW, mining.Retriever("words", broken, encode))
    with pytest.raises(UsageError, match=r"b.jsonl.work: has the work of another call \(other settings\): repeat"):
        mine(file, tmp_path / "b.jsonl", MineSettings(negatives=2, skip=2, keep=6))
    write(file, pairs(60))
    with pytest.raises(UsageError, match="other inputs"):
        mine(file, tmp_path / "b.jsonl", FEW)
    write(file, pairs())
    mine(file, tmp_path / "b.jsonl", FEW)
