"""A run of two short stages on tiny bases, in forks of one process: broken, resumed, compared with an unbroken one."""

from __future__ import annotations

import gc
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

import lusifer
from lusifer.cli import main as lusifer_command
from lusifer.training.run import run as _imported_once  # noqa: F401

LONGEST = 300.0
"""Seconds after which an attempt hangs."""
STEPS = 6
RECIPE = """
name: faults
seed: 3
max_length: 48
model: {encoder: {path: "tiny:encoder"}, llm: {path: "tiny:llm"}}
stages:
  - name: align
    kind: alignment
    train: {encoder: lora, connector: true}
    objectives: {reconstruction: 1, completion: 1}
    data: [{path: passages.jsonl}, {path: pairs.jsonl, role: passage_and_query}]
    batch_size: 4
    mini_batch_size: 4
    max_steps: 6
    save_steps: 2
    keep_checkpoints: 2
    logging_steps: 1
    learning_rate: 1.0e-3
  - name: contrast
    kind: contrastive
    train: {encoder: lora, llm: lora, connector: true, output_projection: true}
    data: [{path: pairs.jsonl}]
    hard_negatives: 1
    batch_size: 4
    mini_batch_size: 4
    max_steps: 6
    save_steps: 2
    keep_checkpoints: 2
    logging_steps: 1
    learning_rate: 1.0e-3
"""


@dataclass
class Ended:
    """How an attempt ended: its status (negative: the signal) and what it wrote to standard error."""

    status: int
    said: str

    @property
    def error(self) -> str:
        """Its one line of an error, empty without."""
        return next((line for line in self.said.splitlines() if line.startswith("lusifer: error: ")), "")


class WrongError(Exception):
    """A run did what it must not."""


class Bench:
    """A work folder with the recipe, its data and the unbroken run, and the run that is broken now."""

    def __init__(self, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work = work
        self.run = work / "disk" / "run"
        self.recipe = work / "recipe.yaml"
        self.data = [work / "passages.jsonl", work / "pairs.jsonl"]
        self.recipe.write_text(RECIPE, encoding="utf-8")
        for file in self.data:
            shutil.copy(Path(lusifer.__file__).parent / "data" / "sample" / file.name, file)
        self.run.parent.mkdir(exist_ok=True)
        gc.collect()
        gc.freeze()  # trainers ask for whole collections, a third of so short a run
        started = time.monotonic()
        shutil.rmtree(work / "whole", ignore_errors=True)
        counts = work / "writes"
        whole = self.attempt(output=work / "whole", hook=lambda: at_write(0, work / "whole", counts))
        self.seconds = time.monotonic() - started
        if whole.status:
            raise SystemExit(f"the unbroken run failed: {whole.said}")
        self.weights = load_file(work / "whole" / "model" / "model.safetensors")
        self.bytes = sum(file.stat().st_size for file in (work / "whole").rglob("*") if file.is_file())
        self.writes = counts.stat().st_size

    def start(self, *more: str, output: Path | None = None, hook: Callable[[], None] | None = None) -> int:
        """Fork a process that trains."""
        words = ["train", str(self.recipe), "--output", str(output or self.run), *more]
        child = os.fork()
        if child:
            return child
        status = 70
        try:
            os.setsid()
            said = os.open(self.work / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            if hook is not None:
                hook()
            status = lusifer_command(words)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def ended(self, child: int) -> Ended:
        """Wait for a process; one that hangs is killed."""
        until = time.monotonic() + LONGEST
        while time.monotonic() < until:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                said = (self.work / "said").read_text(encoding="utf-8", errors="replace")
                if "Traceback (most recent call last)" in said:
                    raise WrongError(f"a traceback: {said[-1500:]}")
                return Ended(os.waitstatus_to_exitcode(status), said)
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise WrongError(f"it hangs: {(self.work / 'said').read_text(encoding='utf-8', errors='replace')[-1500:]}")

    def attempt(self, *more: str, output: Path | None = None, hook: Callable[[], None] | None = None) -> Ended:
        """Train to the end, or to what the hook brings about."""
        return self.ended(self.start(*more, output=output, hook=hook))

    def signalled(self, number: int, draw: random.Random) -> Ended:
        """Train until a random moment, and send a signal."""
        child = self.start()
        time.sleep(draw.uniform(0, 1.05 * self.seconds))
        with suppress(ProcessLookupError):
            os.kill(child, number)
        return self.ended(child)

    def killed(self, draw: random.Random) -> None:
        """Train until a random moment of the second half, and kill: checkpoints are there."""
        child = self.start()
        while not list(self.run.glob("checkpoints/01-align/checkpoint-*/checksums.json")):
            time.sleep(0.005)
            if os.waitpid(child, os.WNOHANG)[0]:
                raise WrongError("it ended before its first checkpoint")
        time.sleep(draw.uniform(0, 0.6 * self.seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    def resumes(self, *, named: str = "") -> str:
        """Go on, and compare; `named` must be in what is said.

        Raises:
            WrongError: It does not end, or with other weights, or does not name what it must.
        """
        again = ["--resume"] if (self.run / "recipe.yaml").is_file() else []
        ended = self.attempt(*again)
        if ended.status:
            raise WrongError(f"the resume ends with {ended.status}: {ended.said[-1500:]}")
        if named not in ended.said:
            raise WrongError(f"{named} is not named: {ended.said[-1500:]}")
        found = load_file(self.run / "model" / "model.safetensors")
        if found.keys() != self.weights.keys() or not all(torch.equal(found[k], self.weights[k]) for k in found):
            raise WrongError("other weights")
        return "same weights"

    def refused(self, ended: Ended, words: str, statuses: tuple[int, ...] = (1, 2)) -> None:
        """Make sure that an attempt ended with one line that has these words (a pattern)."""
        if ended.status not in statuses or not re.search(words, ended.error):
            raise WrongError(f"status {ended.status}, no line with {words!r}: {ended.said[-1500:]}")


def at_write(place: int, folder: Path, counts: Path | None) -> None:
    """In this process: count what changes files below a folder, and kill at the `place`-th one."""
    seen, root = 0, str(folder)
    counter = counts.open("wb", buffering=0) if counts else None

    def audit(event: str, arguments: tuple) -> None:
        nonlocal seen
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        if event == "open":
            changes = isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if changes and str(arguments[0]).startswith(root):
            seen += 1
            if counter is not None:
                os.write(counter.fileno(), b".")
            if seen == place:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of its own at a folder (root alone may)."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def grow(folder: Path, size: int) -> None:
    """Give the file system at a folder another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def may_mount(folder: Path) -> bool:
    """Whether this process may make file systems."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with disk(folder, 100_000):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
