"""Build the model of a stage without memory, and estimate the memory and the FLOPs of a step.

The bytes of one device, which has the complete model (data parallelism):

    weights      4 x parameters that are or were trained (a backbone that any stage trains in full, connector,
                 projection, adapters) + bytes of dtype.frozen x the others; also the LM head if tokens are predicted,
                 and the LLM a second time if it is the teacher
    gradients    4 x trainable parameters
    optimizer    2 moments (AdamW) x gradients
    activations  the peak of all else in a step, counted by running the step on tensors without memory (`rehearsal`),
                 with texts of full length; and three copies of the vectors of the gradient cache (embeddings, sorted
                 by row, their gradients)

All layers are equal: a backbone is run with 1 and with 2 layers, and the difference is that of each further layer. The
FLOPs of a step are counted in the same way, for texts of mean length.
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
    """Bytes of memory on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.activations


def here() -> Kind:
    """Return the kind of this machine's device."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def prepare(model: LusiferModel, stage: StageSettings) -> None:
    """Freeze the parts that a stage does not train, and attach its adapters, in place.

    Trainable parameters are float32, because half precision would lose small steps of AdamW. Nothing is rounded: a
    half-precision backbone keeps adapters of earlier stages as separate layers, a float32 backbone has them merged.

    Args:
        model: The model, changed in place.
        stage: The stage.

    Raises:
        UsageError: Adapters match no layer.
    """
    whole = {backbone: getattr(stage.train, backbone) == "full" for backbone in adapters.BACKBONES}
    for backbone, trains in whole.items():
        if trains:
            getattr(model, backbone).float()
    adapters.freeze(
        model, whole | {"connector": stage.train.connector, "output_projection": stage.train.output_projection}
    )
    for backbone in adapters.BACKBONES:
        lora = getattr(stage.lora, backbone)
        if lora is not None:
            adapters.attach(model, backbone, lora.r, lora.alpha, lora.dropout, lora.targets)


def skeleton(
    recipe: Recipe,
    stage: StageSettings,
    encoder: PreTrainedConfig,
    llm: PreTrainedConfig,
    half: Collection[str] = (),
) -> LusiferModel:
    """Build the model of a stage on the meta device, with its adapters.

    Args:
        recipe: The recipe.
        stage: The stage.
        encoder: The configuration of the encoder.
        llm: The configuration of the LLM.
        half: The half-precision backbones, which also get the adapters of earlier stages and of `model.start`.

    Raises:
        UsageError: Adapters match no layer.
    """
    config = LusiferConfig(encoder=copy.deepcopy(encoder), llm=copy.deepcopy(llm), **recipe.model.join_settings())
    with torch.device("meta"):
        model = LusiferModel(config)
        for number, each in enumerate(start.kept_adapters(recipe.model.start)):
            if each["tower"] in half:
                name = f"{adapters.STAGE}start-{number}"
                adapters.attach(model, each["tower"], each["r"], each["alpha"], 0.0, each["targets"], name)
        for before in recipe.stages[: recipe.stages.index(stage)]:
            for backbone in half:
                if (lora := getattr(before.lora, backbone)) is not None:
                    adapters.attach(
                        model, backbone, lora.r, lora.alpha, 0.0, lora.targets, adapters.STAGE + before.name
                    )
        prepare(model, stage)
    return model


class Estimator:
    """Estimates memory and FLOPs of the stages of a recipe. Equal rehearsals run once.

    Args:
        recipe: The recipe.
        encoder: The configuration of the encoder.
        llm: The configuration of the LLM.
    """

    def __init__(self, recipe: Recipe, encoder: PreTrainedConfig, llm: PreTrainedConfig) -> None:
        self.recipe, self.configs = recipe, (encoder, llm)
        self._rehearsed: dict[object, Counted] = {}

    def memory(self, stage: StageSettings, parts: list[PartReport], kind: Kind) -> Memory:
        """Estimate the memory of a stage on one device, for texts of full length.

        Args:
            stage: The stage.
            parts: The counts of `adapters.report`.
            kind: The kind of device.
        """
        llm = self.configs[1]
        trainable = sum(part.trainable for part in parts)
        sizes = {backbone: self._dtype(backbone, kind).itemsize for backbone in adapters.BACKBONES}
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
        """Count the FLOPs of one optimizer step, with gradient checkpointing and gradient cache.

        Args:
            stage: The stage.
            tokens: The tokens of a text.
        """
        total = 0.0
        for each in stage.passes:
            count = self._count(stage, each, max(2, round(tokens)), "cuda")
            total += each.share * (count.flops + count.forward * stage.embeds_twice) / count.rows
        return total * stage.batch_size * stage.columns

    def forward_flops(self, stage: StageSettings, tokens: float) -> float:
        """Count the FLOPs to embed one text.

        Args:
            stage: The stage.
            tokens: The tokens of the text.
        """
        count = self._count(stage, Pass(), max(2, round(tokens)), "cuda")
        return count.forward / count.rows

    def _count(self, stage: StageSettings, part: Pass, length: int, kind: Kind) -> Counted:
        """Count bytes and FLOPs of one kind of pass, from rehearsals with few layers."""
        rows = min(stage.rows_at_once(length), stage.batch_size * stage.columns)
        setting = Setting(
            rows=rows,
            length=length,
            predicts=part.predicts,
            teacher=part.teacher,
            repeated=stage.batch_size * stage.columns > stage.rows_at_once(length),
            dtypes={backbone: self._dtype(backbone, kind) for backbone in adapters.BACKBONES},
            bf16=kind == "cuda" if stage.bf16 == "auto" else stage.bf16,
            checkpointing=stage.gradient_checkpointing,
            chunk=part.chunk,
        )
        whole = [config.num_hidden_layers for config in self.configs]
        few = [1 if layers > 2 else layers for layers in whole]
        base = total = self._rehearse(stage, setting, few, kind)
        for backbone in (0, 1):
            if whole[backbone] > 2:
                more = [2 if place == backbone else number for place, number in enumerate(few)]
                total += (self._rehearse(stage, setting, more, kind) - base) * (whole[backbone] - 1)
        return total

    def _rehearse(self, stage: StageSettings, setting: Setting, layers: list[int], kind: Kind) -> Counted:
        half, before = self.half(kind), self.recipe.stages[: self.recipe.stages.index(stage)]
        beside = tuple((backbone, repr(getattr(each.lora, backbone))) for each in before for backbone in half)
        key = (setting, tuple(layers), kind, beside, stage.train.model_dump_json(), stage.lora.model_dump_json())
        if key not in self._rehearsed:
            small = [backbones.with_layers(config, number) for config, number in zip(self.configs, layers, strict=True)]
            self._rehearsed[key] = rehearse(lambda: skeleton(self.recipe, stage, *small, half), setting, kind)
        return self._rehearsed[key]

    def half(self, kind: Kind) -> list[str]:
        """The half-precision backbones on a kind of device."""
        return [backbone for backbone in adapters.BACKBONES if self._dtype(backbone, kind) != torch.float32]

    def _dtype(self, backbone: str, kind: Kind) -> torch.dtype:
        """The dtype of a backbone's weights; a backbone that a stage trains in full is float32."""
        whole = any(getattr(each.train, backbone) == "full" for each in self.recipe.stages)
        return torch.float32 if whole or self._frozen_bytes(kind) == 4 else torch.bfloat16

    def _frozen_bytes(self, kind: Kind) -> int:
        """The bytes of a frozen weight."""
        auto = 2 if kind == "cuda" else 4
        return {"float32": 4, "bfloat16": 2, "auto": auto}[self.recipe.model.dtype.frozen]
