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

If all layers after the first have the same weights and adapters, a backbone is built and run with 1 and with 2 layers,
and the difference is that of each further layer; otherwise it is built and run with all layers. Parameters, and the
FLOPs of a step for texts of mean length, are counted in the same way.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

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

COUNTS = ("parameters", "trainable", "trainable_tensors", "float32")


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


_RUNS: dict[object, Run] = {}
"""The rehearsals of this process, by everything that they depend on: stages and changed recipes share them."""


@dataclass(frozen=True)
class Run:
    """A rehearsal, and the parameters of its model by part."""

    counted: Counted
    parts: list[PartReport]


class Estimator:
    """Estimates parameters, memory and FLOPs of the stages of a recipe. Equal rehearsals run once.

    Args:
        recipe: The recipe.
        encoder: The configuration of the encoder.
        llm: The configuration of the LLM.
    """

    def __init__(self, recipe: Recipe, encoder: PreTrainedConfig, llm: PreTrainedConfig) -> None:
        self.recipe, self.configs = recipe, (encoder, llm)

    def parts(self, stage: StageSettings, kind: Kind) -> list[PartReport]:
        """Count the parameters of each part of a stage's model, exactly.

        Args:
            stage: The stage.
            kind: The kind of device.
        """
        runs = self._runs(stage, self._setting(stage, stage.passes[0], self.recipe.longest(stage), kind), kind)
        return [
            PartReport(part, *(sum(times * getattr(run.parts[place], key) for times, run in runs) for key in COUNTS))
            for place, part in enumerate(adapters.PARTS)
        ]

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

    def flops(self, stage: StageSettings, tokens: float, target: float | None = None) -> float:
        """Count the FLOPs of one optimizer step, with gradient checkpointing and gradient cache.

        Args:
            stage: The stage.
            tokens: The tokens of a text.
            target: The tokens of a text for the LLM, if it predicts or reads the text itself; None: the same number.
        """
        length = max(2, round(tokens))
        own = length if target is None else max(2, round(target))
        total = 0.0
        for each in stage.passes:
            count = self._count(stage, each, length, "cuda", own)
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

    def _count(self, stage: StageSettings, part: Pass, length: int, kind: Kind, target: int | None = None) -> Counted:
        """Count bytes and FLOPs of one kind of pass."""
        runs = self._runs(stage, self._setting(stage, part, length, kind, target), kind)
        first, *others = (run.counted * times for times, run in runs)
        return sum(others, start=first)

    def _setting(self, stage: StageSettings, part: Pass, length: int, kind: Kind, target: int | None = None) -> Setting:
        return Setting(
            rows=min(stage.rows_at_once(length), stage.batch_size * stage.columns),
            length=length,
            target=target if target is not None and (part.predicts or part.teacher) else length,
            predicts=part.predicts,
            teacher=part.teacher,
            repeated=stage.batch_size * stage.columns > stage.rows_at_once(length),
            dtypes={backbone: self._dtype(backbone, kind) for backbone in adapters.BACKBONES},
            bf16=kind == "cuda" if stage.bf16 == "auto" else stage.bf16,
            checkpointing=stage.gradient_checkpointing,
            chunk=part.chunk,
        )

    def _runs(self, stage: StageSettings, setting: Setting, kind: Kind) -> list[tuple[int, Run]]:
        """Rehearse a step with few layers; the complete model is the sum of the runs, each that many times."""
        whole = [config.num_hidden_layers for config in self.configs]
        few = [1 if equal else layers for equal, layers in zip(self._equal_layers, whole, strict=True)]
        runs = []
        for backbone in (0, 1):
            if few[backbone] < whole[backbone]:
                more = [2 if place == backbone else number for place, number in enumerate(few)]
                runs.append((whole[backbone] - 1, self._rehearse(stage, setting, more, kind)))
        return [(1 - sum(times for times, _ in runs), self._rehearse(stage, setting, few, kind)), *runs]

    def _rehearse(self, stage: StageSettings, setting: Setting, layers: list[int], kind: Kind) -> Run:
        half, before = self.half(kind), self.recipe.stages[: self.recipe.stages.index(stage)]
        beside = tuple((backbone, repr(getattr(each.lora, backbone))) for each in before for backbone in half)
        trains = (stage.train.model_dump_json(), stage.lora.model_dump_json())
        key = (self._model, setting, tuple(layers), kind, tuple(half), beside, trains)
        if key not in _RUNS:
            small = [backbones.with_layers(config, number) for config, number in zip(self.configs, layers, strict=True)]
            model = skeleton(self.recipe, stage, *small, half)
            parts = adapters.report(model)
            _RUNS[key] = Run(rehearse(lambda: model, setting, kind), parts)
        return _RUNS[key]

    @cached_property
    def _model(self) -> str:
        """Everything in the recipe on which the model depends, apart from its stages."""
        model = self.recipe.model
        settings = (model.join_settings(), start.kept_adapters(model.start))
        bases = ((config.to_json_string(use_diff=False), config._attn_implementation) for config in self.configs)
        return repr((*settings, *bases))

    @cached_property
    def _equal_layers(self) -> list[bool]:
        """Whether a backbone has more than 2 layers, and the second counts for all that follow, adapters included."""
        adapted = [*start.kept_adapters(self.recipe.model.start)]
        for stage in self.recipe.stages:
            for backbone in adapters.BACKBONES:
                if (lora := getattr(stage.lora, backbone)) is not None:
                    adapted.append({"tower": backbone, "r": lora.r, "targets": lora.targets})
        return [
            config.num_hidden_layers > 2
            and _equal_layers(config, backbone, [a for a in adapted if a["tower"] == backbone])
            for backbone, config in zip(adapters.BACKBONES, self.configs, strict=True)
        ]

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


def _equal_layers(config: PreTrainedConfig, backbone: str, adapted: list[Mapping[str, Any]]) -> bool:
    """Whether each layer from the second on adds the same shapes of weights and adapters to a backbone."""
    layers = config.num_hidden_layers
    one, two, whole = (_shapes(backbones.with_layers(config, number), backbone, adapted) for number in (1, 2, layers))
    return all(whole[shape] == one[shape] + (layers - 1) * (two[shape] - one[shape]) for shape in whole | two)


def _shapes(config: PreTrainedConfig, backbone: str, adapted: list[Mapping[str, Any]]) -> Counter[object]:
    """Count the shapes of the weights of a backbone, and for each of its adapters the shapes of the adapter."""
    with backbones.described():
        module = backbones.from_config(config, backbone)
    counts: Counter[object] = Counter((None, tuple(weight.shape)) for weight in module.parameters())
    for number, about in enumerate(adapted):
        targets = about["targets"] or adapters.lora_targets(module, backbone)
        shapes = adapters.shapes(SimpleNamespace(**{backbone: module}), {**about, "name": "", "targets": targets})
        counts.update((number, shape) for shape in shapes.values())
    return counts
