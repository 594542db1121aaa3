"""A few real steps of every stage on this device: seconds and memory, to hold an estimate against.

The stages are trained as `run.train` trains them, in a folder that is removed, each for a few steps. The first step is
not counted: it pays for what later ones find done.

Memory, on a GPU, is the most that torch had given out. On a CPU it is the most that was resident while the steps ran,
less what the process had before the model was built and less what reading the rows added; the allocator's own waste is
in it.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lusifer.errors import UsageError
from lusifer.training.estimate import memory
from lusifer.training.recipe.load import load_recipe
from lusifer.training.recipe.recipe import Recipe


@dataclass
class Measured:
    """One stage.

    `seconds` and `processor` seconds of each counted step; `memory` in bytes, None where it cannot be read.
    """

    stage: str
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    memory: int | None = None

    @property
    def step(self) -> float:
        """Mean seconds of a step."""
        return sum(self.seconds) / len(self.seconds)


def measure(path: str | Path, steps: int, overrides: Sequence[str] = (), variant: str | None = None) -> list[Measured]:
    """Train every stage for some steps and throw the result away.

    Args:
        path: A recipe, as for `run.train`.
        steps: That count, 1 or more.
        overrides: "key.path=value" each.
        variant: One of the recipe's variants.

    Raises:
        UsageError: A base or data are not on this machine: nothing is downloaded.
        LusiferError: Training failed.
    """
    from lusifer.training.run import run

    if steps < 1:
        raise UsageError(f"--measure {steps}: give 1 step or more")
    recipe = load_recipe(path, overrides, variant=variant)
    _refuse_remote(recipe)
    more = [
        line
        for stage in recipe.stages
        for line in (
            f"stages.{stage.name}.max_steps={steps + 1}",
            f"stages.{stage.name}.epochs=null",
            f"stages.{stage.name}.watch=null",
            f"stages.{stage.name}.save_steps={10**9}",
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        # What libraries load when they are first used is the process's memory, not the recipe's.
        run.train("tiny", Path(folder) / "first", overrides=[f"stages.{n}.max_steps=1" for n in (0, 1)])
        gc.collect()
        clock = _Clock(_resident())
        run.train(path, Path(folder) / "run", overrides=[*overrides, *more], variant=variant, listen=clock)
    return clock.found


class _Clock:
    """Listens to a run."""

    def __init__(self, before: int | None) -> None:
        self.found: list[Measured] = []
        self._before, self._rows, self._counts = before, 0, 0
        self._last: tuple[float, float] | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event in."""
        kind = event["event"]
        if kind == "counts":
            self._counts = _resident() or 0
        elif kind == "data":
            self._rows = max(0, (_resident() or 0) - self._counts)
        elif kind == "stage":
            self.found.append(Measured(event["stage"]))
            self._last = None
            _forget_peak()
        elif kind == "step":
            now = (time.perf_counter(), time.process_time())
            if self._last is not None:
                self.found[-1].seconds.append(now[0] - self._last[0])
                self.found[-1].processor.append(now[1] - self._last[1])
            self._last = now
            self.found[-1].memory = _peak(self._before, self._rows)


def _refuse_remote(recipe: Recipe) -> None:
    for tower in ("encoder", "llm"):
        path = getattr(recipe.model, tower).path
        if not path.startswith(("tiny:", "package:")) and not Path(path).expanduser().is_dir():
            raise UsageError(f"--measure: model.{tower}.path: {path} is not a folder on this machine: fetch it first")
    for stage in recipe.stages:
        for source in recipe.sources(stage):
            if source.path is None:
                raise UsageError(f"--measure: stages.{stage.name}.data: {source.hub} is on the hub: fetch it first")


def _resident() -> int | None:
    return _status("VmRSS")


def _peak(before: int | None, rows: int) -> int | None:
    if memory.here() == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = _status("VmHWM")
    if peak is None or before is None:
        return None
    added = peak - before - rows
    return added if added > 0 else None  # a small model fits into what the process had let go: nothing was seen


def _forget_peak() -> None:
    """Start the peak anew from what is there now; where the system cannot, the peak of loading stays in it."""
    if memory.here() == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(key: str) -> int | None:
    """A line of Linux's account of this process, in bytes."""
    file = Path("/proc/self/status")
    if not file.is_file():
        return None
    found = [line.split()[1] for line in file.read_text(encoding="ascii").splitlines() if line.startswith(key + ":")]
    return int(found[0]) * 1024 if found else None
