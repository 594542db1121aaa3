"""The model of a stage, and its memory on one device before anything is loaded: weights by count, a step by rehearsal.

Memory of one device that holds everything (data parallel), in bytes:

    weights      4 x parameters of what trains or has trained (a tower that trains whole in any stage, connector,
                 projection, adapters) + bytes of dtype.frozen x the others; the LM head where tokens are predicted, the
                 LLM a second time where it is the teacher
    gradients    4 x trained parameters
    optimizer    2 moments (AdamW) x gradients
    activations  what a step holds beside those at its worst moment, counted by running it on tensors without memory
                 (`rehearsal`): rows in memory, each of full length; and the vectors that the gradient cache keeps,
                 three times (embeddings, their order by row, their gradients)

Layers are alike: a tower is rehearsed with 1 and with 2 of them, and the difference is taken for the others. The FLOPs
of a step are counted in the same way, for texts of mean length.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from lusifer.model import adapters
from lusifer.model.adapters import PartReport
from lusifer.model.bases import backbones
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferModel
from lusifer.training.estimate.rehearsal import Counted, Kind, Setting, rehearse
from lusifer.training.recipe import start
from lusifer.training.recipe.recipe import Recipe
from lusifer.training.recipe.stage import Pass, StageSettings


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def here() -> Kind:
    """Give the kind of this machine's device."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def prepare(model: LusiferModel, stage: StageSettings) -> None:
    """Freeze what does not train in a stage and attach its adapters, in place.

    What trains is float32 (AdamW's steps are lost in half precision). Nothing is rounded: a tower in half precision
    keeps the adapters of stages before beside it, one in float32 has them merged.

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
    recipe: Recipe,
    stage: StageSettings,
    encoder: PreTrainedConfig,
    llm: PreTrainedConfig,
    half: Collection[str] = (),
) -> LusiferModel:
    """Build the model of a stage without memory for weights.

    It has the adapters of the stage, and on towers in half precision (`half`) those of the stages before and of a delta
    that the run starts from.

    Raises:
        UsageError: Adapters fit no layer.
    """
    config = LusiferConfig(encoder=copy.deepcopy(encoder), llm=copy.deepcopy(llm), **recipe.model.join_settings())
    with torch.device("meta"):
        model = LusiferModel(config)
        for number, each in enumerate(start.kept_adapters(recipe.model.start)):
            if each["tower"] in half:
                name = f"{adapters.STAGE}start-{number}"
                adapters.attach(model, each["tower"], each["r"], each["alpha"], 0.0, each["targets"], name)
        for before in recipe.stages[: recipe.stages.index(stage)]:
            for tower in half:
                if (lora := getattr(before.lora, tower)) is not None:
                    adapters.attach(model, tower, lora.r, lora.alpha, 0.0, lora.targets, adapters.STAGE + before.name)
        prepare(model, stage)
    return model


class Estimator:
    """Memory and FLOPs of the stages of one recipe. Equal rehearsals are made once."""

    def __init__(self, recipe: Recipe, encoder: PreTrainedConfig, llm: PreTrainedConfig) -> None:
        """Keep the recipe and the configurations of its bases."""
        self.recipe, self.configs = recipe, (encoder, llm)
        self._rehearsed: dict[object, Counted] = {}

    def memory(self, stage: StageSettings, parts: list[PartReport], kind: Kind) -> Memory:
        """Count bytes on one device, as said above, for texts of full length; `parts` are by `adapters.report`."""
        llm = self.configs[1]
        trainable = sum(part.trainable for part in parts)
        sizes = {tower: self._dtype(tower, kind).itemsize for tower in adapters.TOWERS}
        weights = sum(4 * p.float32 + sizes.get(p.part, 4) * (p.parameters - p.float32) for p in parts)
        if any(each.predicts for each in stage.passes):
            weights += sizes["llm"] * llm.hidden_size * llm.vocab_size
        if any(each.teacher for each in stage.passes):
            weights += self._frozen_bytes(kind) * next(part.parameters for part in parts if part.part == "llm")
        cache = 3 * 4 * stage.batch_size * stage.columns * llm.hidden_size if stage.embeds_twice else 0
        length = self.recipe.longest(stage)
        step = max(self._count(stage, each, length, kind).bytes for each in stage.passes)
        return Memory(weights, 4 * trainable, 2 * 4 * trainable, round(max(0, step - 4 * trainable)) + cache)

    def flops(self, stage: StageSettings, tokens: float) -> float:
        """Count the FLOPs of one optimizer step for texts of `tokens` tokens, with checkpointing and gradient cache."""
        total = 0.0
        for each in stage.passes:
            count = self._count(stage, each, max(2, round(tokens)), "cuda")
            total += each.share * (count.flops + count.forward * stage.embeds_twice) / count.rows
        return total * stage.batch_size * stage.columns

    def forward_flops(self, stage: StageSettings, tokens: float) -> float:
        """Count the FLOPs by which one text of `tokens` tokens becomes a vector."""
        count = self._count(stage, Pass(), max(2, round(tokens)), "cuda")
        return count.forward / count.rows

    def _count(self, stage: StageSettings, part: Pass, length: int, kind: Kind) -> Counted:
        """Bytes and FLOPs of one kind of pass, from rehearsals with few layers."""
        rows = min(stage.rows_at_once(length), stage.batch_size * stage.columns)
        setting = Setting(
            rows=rows,
            length=length,
            predicts=part.predicts,
            teacher=part.teacher,
            repeated=stage.batch_size * stage.columns > stage.rows_at_once(length),
            dtypes={tower: self._dtype(tower, kind) for tower in adapters.TOWERS},
            bf16=kind == "cuda" if stage.bf16 == "auto" else stage.bf16,
            checkpointing=stage.gradient_checkpointing,
            chunk=part.chunk,
        )
        whole = [config.num_hidden_layers for config in self.configs]
        few = [1 if layers > 2 else layers for layers in whole]
        base = total = self._rehearse(stage, setting, few, kind)
        for tower in (0, 1):
            if whole[tower] > 2:
                more = [2 if place == tower else number for place, number in enumerate(few)]
                total += (self._rehearse(stage, setting, more, kind) - base) * (whole[tower] - 1)
        return total

    def _rehearse(self, stage: StageSettings, setting: Setting, layers: list[int], kind: Kind) -> Counted:
        half, before = self.half(kind), self.recipe.stages[: self.recipe.stages.index(stage)]
        beside = tuple((tower, repr(getattr(each.lora, tower))) for each in before for tower in half)
        key = (setting, tuple(layers), kind, beside, stage.train.model_dump_json(), stage.lora.model_dump_json())
        if key not in self._rehearsed:
            small = [backbones.with_layers(config, number) for config, number in zip(self.configs, layers, strict=True)]
            self._rehearsed[key] = rehearse(lambda: skeleton(self.recipe, stage, *small, half), setting, kind)
        return self._rehearsed[key]

    def half(self, kind: Kind) -> list[str]:
        """The towers in half precision."""
        return [tower for tower in adapters.TOWERS if self._dtype(tower, kind) != torch.float32]

    def _dtype(self, tower: str, kind: Kind) -> torch.dtype:
        """Number format of a tower's weights; one that trains whole in a stage is never rounded."""
        whole = any(getattr(each.train, tower) == "full" for each in self.recipe.stages)
        return torch.float32 if whole or self._frozen_bytes(kind) == 4 else torch.bfloat16

    def _frozen_bytes(self, kind: Kind) -> int:
        """Bytes of a frozen weight."""
        auto = 2 if kind == "cuda" else 4
        return {"float32": 4, "bfloat16": 2, "auto": auto}[self.recipe.model.dtype.frozen]
