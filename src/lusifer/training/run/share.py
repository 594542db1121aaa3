"""Runs that begin with the same stages: trained once, and taken over with their weights, logs and fingerprints.

A run that took stages over is resumed behind them, and what it ends with is, to the bit, what it would have ended with
alone: a stage reads the folder of the one before and draws from the recipe's seed and its own number.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lusifer.errors import DataError, LusiferError, RecipeError
from lusifer.io.files import read_json, write_folder, write_json
from lusifer.model import adapters
from lusifer.training import checkpoints
from lusifer.training.checkpoints import MODEL
from lusifer.training.folder import BAD_BATCH, INPUTS, METRICS, RECIPE, START, RunFolder
from lusifer.training.recipe.load import load_recipe, resolved_yaml
from lusifer.training.recipe.recipe import Recipe
from lusifer.training.run import bases, card

SHARED = "shared.json"
"""In a run folder: `run`, the name under which the stages were trained, and `stages`, their names."""
_APART = {"name", "stages", "variants", "report_to"}
"""Keys of a recipe that a stage does not depend on, or by its own settings alone."""


@dataclass(frozen=True)
class SharedStages:
    """Stages that one run took over from another: the name of that one, and theirs."""

    run: str
    stages: list[str]

    @classmethod
    def of(cls, run: Path) -> SharedStages | None:
        """What a run took over, or None.

        Raises:
            DataError: The file that says it is damaged.
        """
        file, advice = run / SHARED, "put it back, or train the run again"
        if not file.is_file():
            return None
        said = read_json(file, advice, kind=dict)
        name, stages = said.get("run"), said.get("stages")
        if not (isinstance(name, str) and isinstance(stages, list) and all(isinstance(each, str) for each in stages)):
            raise DataError(f"{file}: damaged, not the name of a run and of its stages; {advice}")
        return cls(name, stages)


def same_stages(one: Recipe, other: Recipe) -> int:
    """Count the first stages that two recipes train alike, on the same model, data and seed."""

    def common(recipe: Recipe) -> tuple[object, set[str]]:
        # A tower that a later stage trains whole is read in float32 from the start.
        whole = {each for each in adapters.TOWERS for stage in recipe.stages if getattr(stage.train, each) == "full"}
        return recipe.model_dump(exclude=_APART), whole

    if common(one) != common(other):
        return 0
    pairs = list(zip(one.stages, other.stages, strict=False))
    return next((number for number, (mine, theirs) in enumerate(pairs) if mine != theirs), len(pairs))


def begin(recipe: Recipe, output: Path, others: Mapping[str, Path]) -> SharedStages | None:
    """Start a run with the longest row of stages that one of several other runs has done already.

    Args:
        recipe: Of the run.
        output: Its folder; one that is there is left as it is.
        others: Name -> run folder.

    Returns:
        What was taken over: the run is to be resumed. None where nothing was, or `output` is there.
    """
    if output.exists():
        return None
    recipe = bases.concrete(recipe)
    done = {name: _done(recipe, folder) for name, folder in others.items()}
    best = max(done, key=lambda name: done[name], default=None)  # of equals the first
    if best is None or not done[best]:
        return None
    for number, stage in enumerate(recipe.stages[: done[best]], start=1):
        model = RunFolder(others[best]).stage(number, stage.name) / MODEL
        if (file := checkpoints.damaged(model)) is not None:
            raise LusiferError(f"{file}: missing or damaged; resume the run of {best}, which makes {model} anew")
    shared = SharedStages(best, [stage.name for stage in recipe.stages[: done[best]]])
    _take_over(recipe, RunFolder(others[best]), output, shared)
    return shared


def _done(recipe: Recipe, folder: Path) -> int:
    """How many of the first stages of a recipe a run folder has, trained to their ends."""
    run = RunFolder(folder)
    try:
        same = same_stages(recipe, load_recipe(folder / RECIPE, check_files=False))
    except RecipeError:  # none was trained there, or by a recipe of another version
        return 0
    finished = (run.stage(number, stage.name) / MODEL for number, stage in enumerate(recipe.stages[:same], start=1))
    return next((number for number, model in enumerate(finished) if not model.is_dir()), same)


def _take_over(recipe: Recipe, source: RunFolder, output: Path, shared: SharedStages) -> None:
    """Make a run folder whose first stages are those of another one."""
    with write_folder(output) as temporary:
        run = RunFolder(temporary, recipe)
        for number, name in enumerate(shared.stages, start=1):
            left = shutil.ignore_patterns("checkpoint-*", START, BAD_BATCH)
            shutil.copytree(source.stage(number, name), run.stage(number, name), ignore=left)
        # A folder remembers the instructions of stages to come, which are another run's.
        file = run.stage(number, name) / MODEL / "config_sentence_transformers.json"
        settings = read_json(file, "train that run again", kind=dict)
        write_json(file, settings | {"prompts": bases.prompts(recipe) | card.prompts(run, number)})
        checkpoints.seal(file.parent)
        kept = [line for line, row in source.logged() if row["stage"] in shared.stages]
        (temporary / METRICS).write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        known = read_json(source.inputs, "train that run again", kind=dict)
        read = [key for key in known if key.startswith("model.") or key.split(".")[1] in shared.stages]
        write_json(temporary / INPUTS, {key: known[key] for key in read})
        write_json(temporary / SHARED, {"run": shared.run, "stages": shared.stages})
        (temporary / RECIPE).write_text(resolved_yaml(recipe), encoding="utf-8")
