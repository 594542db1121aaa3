"""Share the first stages between runs: they are trained once, and their weights, logs and fingerprints are copied.

A run that took over stages is resumed after them. Its result is the same to the bit as without sharing, because a stage
depends only on the folder of the previous stage, the recipe's seed and its own number.
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
"""A file in a run folder: `run`, the name of the run that trained the stages, and `stages`, their names."""
_APART = {"name", "stages", "variants", "report_to"}
"""Keys of a recipe that do not affect a stage, except by its own settings."""


@dataclass(frozen=True)
class SharedStages:
    """The stages that a run took over: the name of the other run, and the names of the stages."""

    run: str
    stages: list[str]

    @classmethod
    def of(cls, run: Path) -> SharedStages | None:
        """Read which stages a run took over; None if it took over none.

        Raises:
            DataError: `shared.json` is damaged.
        """
        file, advice = run / SHARED, "put it back, or train the run again"
        if not file.is_file():
            return None
        said = read_json(file, advice, kind=dict)
        name, stages = said.get("run"), said.get("stages")
        if not (isinstance(name, str) and isinstance(stages, list) and all(isinstance(each, str) for each in stages)):
            raise DataError(f"{file}: damaged, expected the name of a run and of its stages; {advice}")
        return cls(name, stages)


def same_stages(one: Recipe, other: Recipe) -> int:
    """Count the first stages that are equal in two recipes, with the same model, data and seed.

    Args:
        one: A recipe.
        other: Another one.
    """

    def common(recipe: Recipe) -> tuple[object, set[str]]:
        # A backbone that a later stage trains in full is float32 from the start.
        whole = {each for each in adapters.BACKBONES for stage in recipe.stages if getattr(stage.train, each) == "full"}
        return recipe.model_dump(exclude=_APART), whole

    if common(one) != common(other):
        return 0
    pairs = list(zip(one.stages, other.stages, strict=False))
    return next((number for number, (mine, theirs) in enumerate(pairs) if mine != theirs), len(pairs))


def begin(recipe: Recipe, output: Path, others: Mapping[str, Path]) -> SharedStages | None:
    """Start a run with the finished stages of another run, the one that shares the most stages.

    Args:
        recipe: The recipe of the run.
        output: The run folder. If it exists, nothing is done.
        others: Name -> folder of the other runs.

    Returns:
        The stages that were taken over; resume the run then. None if there were none, or if `output` exists.

    Raises:
        LusiferError: A file of a stage to take over is missing or damaged.
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
            raise LusiferError(f"{file}: missing or damaged: resume the run of {best}, which makes {model} again")
    shared = SharedStages(best, [stage.name for stage in recipe.stages[: done[best]]])
    _take_over(recipe, RunFolder(others[best]), output, shared)
    return shared


def _done(recipe: Recipe, folder: Path) -> int:
    """Count the first stages of a recipe that a run folder has finished."""
    run = RunFolder(folder)
    try:
        same = same_stages(recipe, load_recipe(folder / RECIPE, check_files=False))
    except RecipeError:  # no run, or a recipe of another version
        return 0
    finished = (run.stage(number, stage.name) / MODEL for number, stage in enumerate(recipe.stages[:same], start=1))
    return next((number for number, model in enumerate(finished) if not model.is_dir()), same)


def _take_over(recipe: Recipe, source: RunFolder, output: Path, shared: SharedStages) -> None:
    """Make a run folder with the first stages of another one."""
    with write_folder(output) as temporary:
        run = RunFolder(temporary, recipe)
        for number, name in enumerate(shared.stages, start=1):
            left = shutil.ignore_patterns("checkpoint-*", START, BAD_BATCH)
            shutil.copytree(source.stage(number, name), run.stage(number, name), ignore=left)
        # The folder has the instructions of later stages, which belong to the other run.
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
