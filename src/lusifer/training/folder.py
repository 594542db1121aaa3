"""The run folder: the files of a run, and the checks when a run is resumed.

recipe.yaml                     the resolved recipe, with every default
checkpoints/NN-STAGE/checkpoint-STEP/   a delta (a model without the weights of its bases) and the state of the trainer
checkpoints/NN-STAGE/model/     the delta at the end of the stage; the next stage starts from it
metrics.jsonl                   one line for each logged step
inputs.json                     digests of the bases and the data
model/                          the result, with all weights
delta/                          the result as a delta
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lusifer.errors import LusiferError, UsageError
from lusifer.io.files import expand_user, locked, parse_json, read_json, write_file
from lusifer.training.checkpoints import MODEL, holds_any
from lusifer.training.recipe.load import MAY_CHANGE, WHEN_DONE, changed_keys, load_recipe, may_change, resolved_yaml
from lusifer.training.recipe.recipe import Recipe
from lusifer.training.recipe.start import BACKBONES

RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"
INPUTS = "inputs.json"
DELTA = "delta"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
BUSY = "another process trains in this folder: wait for it, or stop it"
DATA = "data.json"  # in a stage: the rows of each source
STEPS = "steps.jsonl"  # in a contrastive stage: the composition of each step
BAD_BATCH = "bad-batch*.safetensors"  # see `bad_batch`
START = "start.safetensors"  # in a stage with `evaluate`, until it is done: the trainable tensors before the first step
BEST = "best.json"  # in a stage with `evaluate`: the step with the best score


class RunFolder:
    """The paths of a run, its resolved recipe, and the rules for starting and resuming it.

    Args:
        root: The run folder.
        recipe: The resolved recipe, if it was read.
    """

    def __init__(self, root: Path, recipe: Recipe | None = None) -> None:
        self.root = root
        self.recipe = recipe
        self.model, self.delta = root / MODEL, root / DELTA
        self.metrics = root / METRICS
        self.inputs = root / INPUTS

    @classmethod
    @contextmanager
    def start(cls, output: str | Path, recipe: Recipe, resume: bool) -> Iterator[RunFolder]:
        """Make a new run folder or open one to resume, and lock it for other processes while the block runs.

        A run that failed before its first checkpoint may start again without `resume`, also with another recipe.

        Args:
            output: The folder.
            recipe: The resolved recipe.
            resume: Whether to continue a run.

        Yields:
            The run. Its `recipe.yaml` is written.

        Raises:
            UsageError: The folder contains a run and `resume` is False; it contains no run and `resume` is True; it
                contains other files; the recipe changed in a key that affects training; or another process trains
                there.
        """
        run = cls(expand_user(output).resolve(), recipe)
        file = run.root / RECIPE
        run.refuse(output, resume)
        try:
            run.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{output}: cannot be written to ({error.strerror}): choose another --output") from error
        with locked(run.root / LOCK, f"{output}: {BUSY}"):
            run._refuse(output, resume)  # another process may have started a run since the first check
            if run.has_learned:
                run._refuse_changes(recipe, file)
            elif file.is_file():
                run._clear()
            with write_file(file) as temporary:
                temporary.write_text(resolved_yaml(recipe), encoding="utf-8")
            yield run

    @property
    def resume(self) -> str:
        """The command that continues the run."""
        return shlex.join(["lusifer", "train", f"{self.root / RECIPE}", "--output", f"{self.root}", "--resume"])

    @property
    def has_learned(self) -> bool:
        """Whether the folder has a finished model, or a stage with a model or a checkpoint."""
        return self.model.is_dir() or any(_learned(folder) for folder in (self.root / CHECKPOINTS).glob("*"))

    def refuse(self, output: str | Path, resume: bool) -> None:
        """Refuse a folder in which a run cannot start or resume. This writes nothing and does not import torch.

        Args:
            output: The name that the user gave, for messages.
            resume: Whether to continue a run.

        Raises:
            UsageError: As `start`; for a changed recipe only if this run has a recipe. If another process trains there,
                only that is said of a folder that is refused, because its content is that process's.
        """
        try:
            self._refuse(output, resume)
            if self.recipe is not None and self.has_learned:
                self._refuse_changes(self.recipe, self.root / RECIPE)
        except UsageError:
            if (self.root / LOCK).is_file():
                # The processes of a launcher may ask at the same moment. Without permission to write, nobody is asked.
                with suppress(OSError), locked(self.root / LOCK, f"{output}: {BUSY}", wait=0.5):
                    pass
            raise

    def _refuse(self, output: str | Path, resume: bool) -> None:
        """Refuse as `refuse`, without a look at the lock."""
        file = self.root / RECIPE
        if self.root.is_file():
            raise UsageError(f"{output}: is a file; give a folder")
        # Ignore the lock and temporary files of a killed run. A recipe.yaml may be the user's own: without the lock
        # that every run leaves, the folder counts as a run only if `resume` is set.
        others = self.root.is_dir() and any(not path.name.startswith(".") for path in self.root.iterdir())
        if others and not (file.is_file() and (resume or (self.root / LOCK).is_file())):
            if resume:
                fix = f"give a run folder, which has a {RECIPE}, or choose another --output"
                raise UsageError(f"{output}: contains files but no run to resume: {fix}")
            raise UsageError(f"{output}: is not empty and contains no run: choose another --output")
        if resume and not file.is_file():
            raise UsageError(f"{output}: no run to resume: correct the name, or start one without --resume")
        if self.has_learned and not resume:
            words = "contains a run already: continue it with --resume, or choose another --output"
            if self.model.is_dir():
                words = f"contains a finished run, with its model in {self.model.name}: choose another --output"
            raise UsageError(f"{output}: {words}")

    def _clear(self) -> None:
        """Delete the files of a run that failed before its first checkpoint: they do not belong to the new run."""
        for folder in (self.root / CHECKPOINTS).glob("[0-9][0-9]-*"):
            shutil.rmtree(folder)
        for file in (self.metrics, self.inputs):
            file.unlink(missing_ok=True)

    def _refuse_changes(self, recipe: Recipe, file: Path) -> None:
        """Refuse a recipe that differs from the run's in a key that affects training."""
        old = load_recipe(file, check_files=False)
        stages = enumerate(old.stages, start=1)
        begun = [stage.name for number, stage in stages if self.model.is_dir() or self.begun(number, stage.name)]
        free = self._may_lie_elsewhere(old, recipe) | (set() if self.model.is_dir() else WHEN_DONE)
        free |= _automatic(recipe)
        fixed = [key for key in changed_keys(old, recipe) if key not in free and not may_change(key, begun)]
        if fixed:
            raise UsageError(
                f"{file}: the recipe changed in {', '.join(fixed[:5])}{' and more' if len(fixed) > 5 else ''}: "
                f"resume with that file as the recipe (only {', '.join(MAY_CHANGE)}, and keys of stages that have not "
                "begun, may change), or start a new run in another --output"
            )

    def _may_lie_elsewhere(self, old: Recipe, new: Recipe) -> set[str]:
        """The keys of paths that may differ, because `inputs.json` has a digest of the content.

        The name of a source must stay, because it seeds the draws of the source.
        """
        known = read_json(self.inputs, "remove it", LusiferError, dict) if self.inputs.is_file() else {}

        def by_content(key: str) -> bool:
            files = known.get(key)
            return isinstance(files, dict) and bool(files.keys() - {"commit"})

        found = {"data_root"}  # has no effect in a resolved recipe, whose data paths are absolute
        found |= {f"model.{name}.path" for name in (*BACKBONES, "start") if by_content(f"model.{name}")}
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
        """Whether a stage has a checkpoint or a model, damaged or not.

        Args:
            number: The number of the stage, from 1.
            name: Its name.
        """
        return _learned(self.stage(number, name))

    def trim_metrics(self, stage: str, step: int) -> None:
        """Drop the log lines of steps that are run again.

        Args:
            stage: The name of the stage.
            step: The last step to keep. 0 drops all lines of the stage.
        """
        if self.metrics.is_file():
            kept = [line for line, row in self.logged() if row["stage"] != stage or 0 < step >= row["step"]]
            with write_file(self.metrics) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def logged(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each complete line of the log with its content; incomplete lines of a killed run are skipped."""
        for line in self.metrics.read_bytes().splitlines() if self.metrics.is_file() else ():
            with suppress(ValueError):  # not UTF-8, or not JSON
                row = parse_json(line)
                if isinstance(row, dict) and isinstance(row.get("stage"), str) and type(row.get("step")) is int:
                    yield line.decode("utf-8-sig"), row


def _automatic(recipe: Recipe) -> set[str]:
    """The keys that are still `auto`: a run gives them a value before it compares them."""
    stages = {f"stages.{stage.name}.bf16" for stage in recipe.stages if stage.bf16 == "auto"}
    return stages | ({"model.dtype.frozen"} if recipe.model.dtype.frozen == "auto" else set())


def _learned(stage: Path) -> bool:
    """Whether a stage has a model or a checkpoint; a damaged one counts too, so that the recipe cannot change."""
    return (stage / MODEL).is_dir() or holds_any(stage)


def bad_batch(process: int) -> str:
    """The file name for a batch whose loss is NaN or infinite, a different one for each process."""
    return BAD_BATCH.replace("*", f"-{process}" if process else "")
