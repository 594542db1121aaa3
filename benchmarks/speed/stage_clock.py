"""A few real steps of every stage on this device: seconds and memory, to compare with an estimate.

The stages are trained as `run.train` trains them, in a temporary folder, each for a few steps. The first step is not
counted, because later ones find done what it pays for.

Memory on a GPU is the most that torch had allocated. On a CPU it is the highest resident memory while the steps ran,
less what the process had before the model was built and less what reading the rows added; the allocator's own waste is
included.
"""

from __future__ import annotations

import gc
import re
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lusifer.training.estimate.memory import here
from lusifer.training.recipe.load import load_recipe
from lusifer.training.recipe.recipe import Recipe
from lusifer.training.run import run


@dataclass
class StageTiming:
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


def measure(recipe: Recipe, steps: int) -> list[StageTiming]:
    """Train every stage for one step and for `steps` that count, and throw the result away."""
    with tempfile.TemporaryDirectory() as folder:
        # What libraries load when they are first used is the process's memory, not the recipe's.
        run.train(_shortened(load_recipe("tiny"), 1), Path(folder) / "first")
        gc.collect()
        clock = _StageClock()
        run.train(_shortened(recipe, steps + 1), Path(folder) / "run", listen=clock)
    return clock.stages


def _shortened(recipe: Recipe, steps: int) -> Recipe:
    """The same recipe for a few steps, without checkpoints and measurements on the way."""
    changes = {"max_steps": steps, "epochs": None, "watch": None, "save_steps": 10**9}
    return recipe.model_copy(update={"stages": [stage.model_copy(update=changes) for stage in recipe.stages]})


class _StageClock:
    """Listens to a run."""

    def __init__(self) -> None:
        self.stages: list[StageTiming] = []
        self._before, self._rows, self._counts = _resident("VmRSS"), 0, 0
        self._last: tuple[float, float] | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event in."""
        kind = event["event"]
        if kind == "counts":
            self._counts = _resident("VmRSS")
        elif kind == "data":
            self._rows = max(0, _resident("VmRSS") - self._counts)
        elif kind == "stage":
            self.stages.append(StageTiming(event["stage"]))
            self._last = None
            _forget_peak()
        elif kind == "step":
            now = (time.perf_counter(), time.process_time())
            if self._last is not None:
                self.stages[-1].seconds.append(now[0] - self._last[0])
                self.stages[-1].processor.append(now[1] - self._last[1])
            self._last = now
            self.stages[-1].memory = self._peak()

    def _peak(self) -> int | None:
        if here() == "cuda":
            return torch.cuda.max_memory_allocated()
        added = _resident("VmHWM") - self._before - self._rows
        return added if added > 0 else None  # a small model fits into memory that the process had freed before


def _forget_peak() -> None:
    """Start the peak anew from what is there now; where the system cannot, the peak of loading stays in it."""
    if here() == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _resident(key: str) -> int:
    """Resident memory of this process in bytes, now (`VmRSS`) or at most (`VmHWM`); 0 where the system is not Linux."""
    file = Path("/proc/self/status")
    found = re.search(rf"{key}:\s+(\d+) kB", file.read_text(encoding="ascii")) if file.is_file() else None
    return int(found[1]) * 1024 if found else 0
