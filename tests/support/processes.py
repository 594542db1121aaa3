"""Processes of their own that start in a moment: forked from a server that has imported the libraries once.

A fresh `python -m lusifer.cli` spends more time on imports than these tests spend on anything else. A forked one is as
much a process as that one: with memory of its own, killed by a signal, one of two ranks. It shares one thing, the order
in which Python walks through sets; so each file of tests that compares two processes has one that is truly fresh.
"""

from __future__ import annotations

import faulthandler
import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

# A thread of pyarrow's memory pool would hold a lock, perhaps, in the moment of a fork: the child would wait for ever.
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["sentence_transformers", "lusifer.cli.train", "lusifer.training.run.run", "lusifer.evaluation.run.runner"]
)
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
LUSIFER = [sys.executable, "-m", "lusifer.cli"]
"""The command of a fresh process."""
LONGEST = 300.0
"""Seconds after which a process hangs."""


class Started:
    """A process that was started, with what it writes in two files."""

    def __init__(self, work: Callable[..., object], words: tuple, folder: Path, name: str, **more: str) -> None:
        self.files = [folder / f"{name}.stdout", folder / f"{name}.stderr"]
        self.process: BaseProcess = CONTEXT.Process(
            target=_begin, args=(work, words, [str(file) for file in self.files], os.getcwd(), more)
        )
        self.process.start()

    @property
    def stdout(self) -> str:
        return self.files[0].read_text()

    @property
    def stderr(self) -> str:
        return self.files[1].read_text()

    def wait(self, timeout: float = LONGEST) -> int:
        """The exit status, negative for a signal."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(self.stderr)
        return self.process.exitcode


def _begin(work: Callable[..., object], words: tuple, files: list[str], folder: str, more: dict[str, str]) -> None:
    for number, file in enumerate(files, start=1):
        target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, number)
        os.close(target)
    os.environ |= more
    os.chdir(folder)
    faulthandler.dump_traceback_later(0.9 * LONGEST)  # where a process hangs is read in its stderr
    gc.freeze()
    import torch

    torch.set_num_threads(1)
    sys.exit(work(*words))


def command(*words: str) -> int:
    """What a process does that runs `lusifer WORDS`."""
    from lusifer.cli import main

    return main(list(words))


def run_script(file: str, *words: str) -> None:
    """What a process does that runs `python FILE WORDS`."""
    sys.argv = [file, *words]
    sys.path.insert(0, str(Path(file).parent))
    runpy.run_path(file, run_name="__main__")


def lusifer(folder: Path, *words: str | Path, name: str = "lusifer") -> Started:
    """Start a command; what it writes goes into `folder`, into files that begin with `name`."""
    return Started(command, tuple(map(str, words)), folder, name)


def script(file: Path, folder: Path, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a Python script to its end, as `python FILE WORDS` does with `more` in its environment."""
    started = Started(run_script, tuple(map(str, (file, *words))), folder, file.stem, **more)
    return subprocess.CompletedProcess([file, *words], started.wait(), started.stdout, started.stderr)


def start_ranks(
    work: Callable[..., object], words: tuple, folder: Path, port: int, count: int = 2, come: int | None = None
) -> list[Started]:
    """Start work on processes, with the variables by which torchrun tells each its place; perhaps the first alone."""
    number = str(count)
    shared = {"WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        Started(work, words, folder, f"rank{rank}", RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        for rank in range(come or count)
    ]


def run_ranks(work: Callable[..., object], words: tuple, folder: Path, port: int, count: int = 2) -> list[Started]:
    """Run work on some processes to its end, which must be a good one.

    Where one fails, the others would wait for it: they are killed, and what all wrote is said.
    """
    ranks, until = start_ranks(work, words, folder, port, count), time.monotonic() + LONGEST
    while running := [rank.process for rank in ranks if rank.process.exitcode is None]:
        ended = connection.wait([process.sentinel for process in running], max(0.0, until - time.monotonic()))
        if not ended or any(rank.process.exitcode for rank in ranks):
            break
    statuses = [rank.process.exitcode for rank in ranks]  # None: it hung
    for process in running:
        process.kill()
    assert not any(statuses) and None not in statuses, "\n".join(
        f"status {s}: {rank.stderr}" for s, rank in zip(statuses, ranks, strict=True)
    )
    return ranks
