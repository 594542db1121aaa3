"""What can be refused before anything trains: a mistake in the last stage must not show after days."""

from __future__ import annotations

from types import ModuleType

import torch

from lusifer.errors import UsageError
from lusifer.model import backbones, build
from lusifer.model.backbones import refuse_without_compiler
from lusifer.training.estimate import memory
from lusifer.training.folder import RunFolder
from lusifer.training.objectives.examples import AlignmentExamples
from lusifer.training.recipe.recipe import Recipe
from lusifer.training.recipe.stage_settings import StageSettings
from lusifer.training.skeleton import skeleton
from lusifer.training.stages import alignment, contrastive
from lusifer.training.stages.contrastive import PairRows

StageRows = AlignmentExamples | PairRows
KINDS: dict[str, ModuleType] = {"alignment": alignment, "contrastive": contrastive}
"""By a stage's `kind`: its functions `refuse`, `examples`, `refuse_rows` and `trainer`."""


def refuse_unfit(recipe: Recipe, run: RunFolder) -> dict[int, StageRows]:
    """Go through the stages that have not begun: settings against bases and processes, then their rows.

    Args:
        recipe: Of the run, its tiny bases made.
        run: The run folder.

    Returns:
        What was read, by the number of the stage (from 1); it lies on disk. The very first stage of a run is left out:
        it is read when it begins, which is at once.

    Raises:
        UsageError: Names the key, and what to do.
        DataError: A row cannot be read.
    """
    waiting = [
        (number, stage) for number, stage in enumerate(recipe.stages, start=1) if not run.begun(number, stage.name)
    ]
    for _, stage in waiting:
        _refuse_settings(recipe, stage)
    found = {}
    for number, stage in waiting[1:] if len(waiting) == len(recipe.stages) else waiting:
        kind = KINDS[stage.kind]
        found[number] = kind.examples(recipe, stage, recipe.seed + number)
        kind.refuse_rows(recipe, stage, found[number])
    return found


def _refuse_settings(recipe: Recipe, stage: StageSettings) -> None:
    if stage.compile:
        try:
            refuse_without_compiler(torch.device(memory.here()))
        except UsageError as error:
            raise UsageError(f"stages.{stage.name}.compile: {error}") from error
    bases = {tower: getattr(recipe.model, tower) for tower in ("encoder", "llm")}
    configs = {name: build.read_config(build.Base(base.path, base.revision), name) for name, base in bases.items()}
    stage.refuse_llm(configs["llm"], backbones.is_decoder(configs["llm"]))
    try:
        skeleton(recipe, stage, configs["encoder"], configs["llm"])
    except UsageError as error:
        raise UsageError(f"stages.{stage.name}: {error}") from error
    KINDS[stage.kind].refuse(recipe, stage)
