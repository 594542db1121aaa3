"""The run folder: what a run writes, and what must be the same when it goes on.

recipe.yaml                     as resolved, every default written out
checkpoints/NN-STAGE/checkpoint-STEP/   a model without the weights of its bases (a delta), and what a resume needs
checkpoints/NN-STAGE/model/     likewise at the end of the stage; the next stage starts from it
metrics.jsonl                   one line a logged step
inputs.json                     fingerprints of the bases and the data
model/                          the result, whole
delta/                          the result without the weights of its bases
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lusifer.errors import LusiferError, UsageError
from lusifer.io.files import locked, parse_json, read_json, write_file
from lusifer.training.checkpoints import MODEL, holds_any
from lusifer.training.recipe.load import MAY_CHANGE, WHEN_DONE, changed_keys, load_recipe, may_change, resolved_yaml
from lusifer.training.recipe.recipe import Recipe
from lusifer.training.recipe.start import TOWERS

RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"
INPUTS = "inputs.json"
DELTA = "delta"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
DATA = "data.json"  # of a stage: the rows of each source
STEPS = "steps.jsonl"  # of a contrastive stage: what each step is made of
BAD_BATCH = "bad-batch*.safetensors"  # as `bad_batch` names it
START = "start.safetensors"  # of a stage that is scored, until it is done: what trains, before the first step
BEST = "best.json"  # of a stage that was scored: which step was the best


class RunFolder:
    """Paths of one run, its recipe as resolved, and the rules for starting and resuming it."""

    def __init__(self, root: Path, recipe: Recipe | None = None) -> None:
        self.root = root
        self.recipe = recipe
        self.model, self.delta = root / MODEL, root / DELTA
        self.metrics = root / METRICS
        self.inputs = root / INPUTS

    @classmethod
    @contextmanager
    def start(cls, output: str | Path, recipe: Recipe, resume: bool) -> Iterator[RunFolder]:
        """Make a new run folder, or open an old one to go on; no other process can while the block runs.

        A run that failed before its first checkpoint has learned nothing: it may start again, and with another recipe.

        Yields:
            The run, its `recipe.yaml` written.

        Raises:
            UsageError: The folder holds a run already and `resume` is False; it holds no run and `resume` is True; it
                holds other files; the recipe changed in a key that decides what is learned; or another process trains
                there.
        """
        run = cls(Path(output).expanduser().resolve(), recipe)
        file = run.root / RECIPE
        run.refuse(output, resume)
        try:
            run.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{output}: cannot be written to ({error.strerror}); choose another --output") from error
        with locked(run.root / LOCK, f"{output}: another process trains in this folder; wait for it, or stop it"):
            run.refuse(output, resume)  # by now another process may have begun there
            if run.has_learned:
                run._refuse_changes(recipe, file)
            elif file.is_file():
                run._clear()
            with write_file(file) as temporary:
                temporary.write_text(resolved_yaml(recipe), encoding="utf-8")
            yield run

    @property
    def has_learned(self) -> bool:
        """Whether a run there has left anything that was learned."""
        return self.model.is_dir() or any(_learned(folder) for folder in (self.root / CHECKPOINTS).glob("*"))

    def refuse(self, output: str | Path, resume: bool) -> None:
        """Refuse a folder that cannot be started in, or resumed; nothing is written, and torch is not needed.

        `output` is what the user called it.

        Raises:
            UsageError: As `start`, but for the recipe and other processes.
        """
        file = self.root / RECIPE
        if self.root.is_file():
            raise UsageError(f"{output}: is a file; give a folder")
        # A lock, or a file that was being written when a run was killed, is no work of the user's. But a recipe.yaml
        # may be: without the lock that every run leaves, only a resume takes the folder for a run.
        others = self.root.is_dir() and any(not path.name.startswith(".") for path in self.root.iterdir())
        if others and not (file.is_file() and (resume or (self.root / LOCK).is_file())):
            if resume:
                mend = f"name a run folder (it has {RECIPE}), or choose another --output"
                raise UsageError(f"{output}: holds files but no run to resume; {mend}")
            raise UsageError(f"{output}: is not empty and holds no run; choose another --output")
        if resume and not file.is_file():
            raise UsageError(f"{output}: no run to resume there; correct the name, or start one without --resume")
        if self.has_learned and not resume:
            raise UsageError(f"{output}: holds a run already; go on with --resume, or choose another --output")

    def _clear(self) -> None:
        """Remove what a run that learned nothing has left: its lines and fingerprints are not those of another."""
        for folder in (self.root / CHECKPOINTS).glob("[0-9][0-9]-*"):
            shutil.rmtree(folder)
        for file in (self.metrics, self.inputs):
            file.unlink(missing_ok=True)

    def _refuse_changes(self, recipe: Recipe, file: Path) -> None:
        """A resumed run must learn the same thing."""
        old = load_recipe(file, check_files=False)
        stages = enumerate(old.stages, start=1)
        begun = [stage.name for number, stage in stages if self.model.is_dir() or self.begun(number, stage.name)]
        free = self._may_lie_elsewhere(old, recipe) | (set() if self.model.is_dir() else WHEN_DONE)
        fixed = [key for key in changed_keys(old, recipe) if key not in free and not may_change(key, begun)]
        if fixed:
            raise UsageError(
                f"{file}: the recipe changed in {', '.join(fixed[:5])}{' and more' if len(fixed) > 5 else ''}; "
                f"resume with the recipe of the run, which is that file (only {', '.join(MAY_CHANGE)}, and keys of "
                "stages yet to begin, may change), or start anew in another --output"
            )

    def _may_lie_elsewhere(self, old: Recipe, new: Recipe) -> set[str]:
        """Keys of paths that may differ, since what is read there is compared by its content (`inputs.json`).

        A source keeps its name, of which its draws are made.
        """
        known = read_json(self.inputs, "remove it", LusiferError, dict) if self.inputs.is_file() else {}

        def by_content(key: str) -> bool:
            files = known.get(key)
            return isinstance(files, dict) and bool(files.keys() - {"commit"})

        found = {"data_root"}  # data paths are whole in a recipe as resolved: it decides nothing any more
        found |= {f"model.{name}.path" for name in (*TOWERS, "start") if by_content(f"model.{name}")}
        for one, other in zip(old.stages, new.stages, strict=False):
            key = f"stages.{one.name}"
            number = 0
            for place, (before, now) in enumerate(zip(one.data, other.data, strict=False)):
                read = old.reads(before) or new.reads(now)
                if not read or (by_content(f"{key}.data.{number}") and before.name == now.name):
                    found.add(f"{key}.data.{place}.path")
                number += read
            places = (f"{key}.evaluate.data.{place}" for place in range(len(one.evaluate.data if one.evaluate else ())))
            found |= {f"{place}.path" for place in places if by_content(place)}
            if by_content(f"{key}.watch.parallel"):
                found.add(f"{key}.watch.parallel")
        return found

    def stage(self, number: int, name: str) -> Path:
        """The folder of stage `number` (from 1)."""
        return self.root / CHECKPOINTS / f"{number:02d}-{name}"

    def begun(self, number: int, name: str) -> bool:
        """Whether a stage has left anything that was learned: a checkpoint or its model, damaged or not."""
        return _learned(self.stage(number, name))

    def trim_metrics(self, stage: str, step: int) -> None:
        """Drop the lines of `stage` behind `step`, all of them behind 0: those steps are run again."""
        if self.metrics.is_file():
            kept = [line for line, row in self.logged() if row["stage"] != stage or 0 < step >= row["step"]]
            with write_file(self.metrics) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def logged(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each whole line of the log with what it says.

        A line may be cut where a run was killed, or damaged: it is passed over, for nothing is learned from the log.
        """
        for line in self.metrics.read_bytes().splitlines() if self.metrics.is_file() else ():
            with suppress(ValueError):  # not UTF-8, or not JSON
                row = parse_json(line)
                if isinstance(row, dict) and isinstance(row.get("stage"), str) and type(row.get("step")) is int:
                    yield line.decode("utf-8-sig"), row


def _learned(stage: Path) -> bool:
    """A damaged checkpoint was learned as well: a stage that has nothing else is trained anew, by the same recipe."""
    return (stage / MODEL).is_dir() or holds_any(stage)


def bad_batch(process: int) -> str:
    """The file of the batch of a process whose loss is no number; two of them would write one over the other."""
    return BAD_BATCH.replace("*", f"-{process}" if process else "")
