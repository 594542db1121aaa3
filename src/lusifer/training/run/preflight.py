"""What can be refused before anything trains: a mistake in the last stage must not show after days."""

from __future__ import annotations

import torch

from lusifer.errors import UsageError
from lusifer.model import build
from lusifer.model.backbones import refuse_without_compiler
from lusifer.model.tokenizer import read_tokenizer
from lusifer.training.estimate import memory
from lusifer.training.folder import RunFolder
from lusifer.training.recipe.recipe import AlignmentStage, ContrastiveStage, Recipe
from lusifer.training.stages import alignment, contrastive, trainer

Stage = AlignmentStage | ContrastiveStage


def refuse_unfit(recipe: Recipe, run: RunFolder) -> None:
    """Go through the stages that have not begun: settings against bases and processes, then their rows.

    Args:
        recipe: of the run, its tiny bases made.
        run: the run folder.

    Raises:
        UsageError: names the key and the mend.
        DataError: a row cannot be read.
    """
    waiting = [
        (number, stage) for number, stage in enumerate(recipe.stages, start=1) if not run.begun(number, stage.name)
    ]
    for _, stage in waiting:
        _refuse_settings(recipe, stage)
    # The rows of the very first stage are about to be read anyway.
    for number, stage in waiting[1:] if len(waiting) == len(recipe.stages) else waiting:
        _refuse_rows(recipe, stage, recipe.seed + number)


def _refuse_settings(recipe: Recipe, stage: Stage) -> None:
    trainer.batches(stage)
    if stage.compile:
        try:
            refuse_without_compiler(torch.device(memory.here()))
        except UsageError as error:
            raise UsageError(f"stages.{stage.name}.compile: {error}") from error
    bases = {tower: getattr(recipe.model, tower) for tower in ("encoder", "llm")}
    configs = {name: build.read_config(build.Base(base.path, base.revision), name) for name, base in bases.items()}
    try:
        model = memory.skeleton(recipe, stage, configs["encoder"], configs["llm"])
    except UsageError as error:
        raise UsageError(f"stages.{stage.name}: {error}") from error
    if isinstance(stage, AlignmentStage):
        alignment.refuse_unfit_llm(recipe, stage)
        alignment.tokenizers(recipe, stage)
    elif stage.matryoshka_dims and max(stage.matryoshka_dims) > model.config.hidden_size:
        raise UsageError(
            f"stages.{stage.name}.matryoshka_dims: {max(stage.matryoshka_dims)} is more than the "
            f"{model.config.hidden_size} dimensions of the vector"
        )


def _refuse_rows(recipe: Recipe, stage: Stage, seed: int) -> None:
    if isinstance(stage, AlignmentStage):
        alignment.examples(recipe, stage, seed)
        return
    rows = contrastive.examples(recipe, stage, seed)
    tokenizer = read_tokenizer(build.resolve(recipe.model.encoder.path), recipe.model.encoder.revision)
    contrastive.refuse_full_prompts(
        stage, rows, tokenizer, min(stage.max_length or recipe.max_length, recipe.max_length)
    )
