"""The model of a stage: what trains in it, and the whole of it without memory, for counts and estimates."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from lusifer.model import adapters
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferModel
from lusifer.training.recipe.recipe import Recipe
from lusifer.training.recipe.stage_settings import StageSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def prepare(model: LusiferModel, stage: StageSettings) -> None:
    """Freeze what does not train in a stage and attach its adapters, in place.

    What trains is float32 (AdamW's steps are lost in half precision). Nothing is rounded: a tower that a stage before
    has trained came out in float32 and stays so.

    Raises:
        UsageError: Adapters fit no layer.
    """
    whole = {tower: getattr(stage.train, tower) == "full" for tower in adapters.TOWERS}
    for tower, trains in whole.items():
        if trains:
            getattr(model, tower).float()
    adapters.freeze(
        model, whole | {"connector": stage.train.connector, "output_projection": stage.train.output_projection}
    )
    for tower in adapters.TOWERS:
        lora = getattr(stage.lora, tower)
        if lora is not None:
            adapters.attach(model, tower, lora.r, lora.alpha, lora.dropout, lora.targets)


def skeleton(
    recipe: Recipe, stage: StageSettings, encoder: PreTrainedConfig, llm: PreTrainedConfig, device: str = "meta"
) -> LusiferModel:
    """Build the model of a stage with its adapters.

    Args:
        recipe: The whole run.
        stage: One of its stages.
        encoder: Configuration of the encoder.
        llm: Configuration of the LLM.
        device: "meta" takes no memory for weights; elsewhere they are random.

    Raises:
        UsageError: Adapters fit no layer.
    """
    config = LusiferConfig(encoder=copy.deepcopy(encoder), llm=copy.deepcopy(llm), **recipe.model.join_settings())
    with torch.device(device):
        model = LusiferModel(config)
        prepare(model, stage)
    return model
