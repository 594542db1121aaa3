"""The memory of a stage on one device, before anything is loaded: weights by count, a step by rehearsal.

Memory of one device that holds everything (data parallel), in bytes:

    weights      4 x parameters of what trains or has trained (a tower that trains whole in any stage or carried
                 adapters in a stage before, connector, projection, adapters) + bytes of dtype.frozen x the others; the
                 LM head where tokens are predicted, the LLM a second time where it is the teacher
    gradients    4 x trained parameters
    optimizer    2 moments (AdamW) x gradients
    activations  what a step holds beside those at its worst moment, counted by running it on tensors without memory
                 (`rehearsal`): rows in memory, each of full length; and the vectors that the gradient cache keeps,
                 three times (embeddings, their order by row, their gradients)

Layers are alike: a tower is rehearsed with 1 and with 2 of them, and the difference is taken for the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lusifer.training.recipe.recipe import Recipe
from lusifer.training.recipe.stage import AlignmentStage, ContrastiveStage

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

    from lusifer.model.adapters import PartReport
    from lusifer.model.lusifer import LusiferModel
    from lusifer.training.estimate.rehearsal import Kind


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


def skeleton(
    recipe: Recipe,
    stage: AlignmentStage | ContrastiveStage,
    encoder: PreTrainedConfig,
    llm: PreTrainedConfig,
    device: str = "meta",
) -> LusiferModel:
    """The model of a stage with its adapters; on the meta device without memory for weights, else with random ones.

    Raises:
        UsageError: adapters fit no layer.
    """
    import copy

    import torch

    from lusifer.model import adapters
    from lusifer.model.config import LusiferConfig
    from lusifer.model.lusifer import LusiferModel

    settings = recipe.model
    config = LusiferConfig(
        encoder=copy.deepcopy(encoder), llm=copy.deepcopy(llm),
        connector_type=settings.connector.type, connector_kwargs=settings.connector.kwargs(),
        num_soft_tokens=settings.connector.num_soft_tokens, pooling=settings.pooling, residual=settings.residual,
        output_projection=settings.output_projection, include_prompt=settings.include_prompt,
    )  # fmt: skip
    with torch.device(device):
        model = LusiferModel(config)
        train = stage.train
        whole = {tower: getattr(train, tower) == "full" for tower in adapters.TOWERS}
        adapters.freeze(model, whole | {"connector": train.connector, "output_projection": train.output_projection})
        for tower in adapters.TOWERS:
            lora = getattr(stage.lora, tower)
            if lora is not None:
                adapters.attach(model, tower, lora.r, lora.alpha, lora.dropout, lora.targets)
    return model


def here() -> Kind:
    """Give the kind of this machine's device."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def memory(
    recipe: Recipe,
    stage: AlignmentStage | ContrastiveStage,
    configs: tuple[PreTrainedConfig, PreTrainedConfig],
    parts: list[PartReport],
    kind: Kind,
) -> Memory:
    """Bytes on one device, as said above, for texts of full length.

    Args:
        recipe: The whole run.
        stage: One of its stages.
        configs: Of encoder and LLM.
        parts: Parameters by part, as `adapters.report` counts them.
        kind: Of device.
    """
    llm = configs[1]
    trainable = sum(part.trainable for part in parts)
    dtypes = {tower: dtype(recipe, stage, tower, kind) for tower in ("encoder", "llm")}
    sizes = {tower: each.itemsize for tower, each in dtypes.items()}
    weights = sum(4 * p.trainable + sizes.get(p.part, 4) * (p.parameters - p.trainable) for p in parts)
    kept = 0
    if isinstance(stage, AlignmentStage):
        weights += sizes["llm"] * llm.hidden_size * llm.vocab_size * predicts(stage)
        if stage.objectives.distill > 0:
            weights += _bytes_of(recipe, kind) * next(part.parameters for part in parts if part.part == "llm")
    else:
        kept = 3 * 4 * stage.batch_size * (2 + stage.hard_negatives) * llm.hidden_size
    step = max(_step(recipe, stage, configs, kind, target) for target in _targets(recipe, stage))
    return Memory(weights, 4 * trainable, 2 * 4 * trainable, max(0, step - 4 * trainable) + kept)


def _targets(recipe: Recipe, stage: AlignmentStage | ContrastiveStage) -> list[int]:
    """Tokens that are predicted, by objective: none in distill and in a stage of pairs."""
    if not isinstance(stage, AlignmentStage):
        return [0]
    return [recipe.longest(stage)] * predicts(stage) + [0] * (stage.objectives.distill > 0)


def predicts(stage: AlignmentStage) -> bool:
    """Whether an objective predicts the LLM's tokens."""
    return stage.objectives.reconstruction + stage.objectives.completion > 0


def _step(
    recipe: Recipe,
    stage: AlignmentStage | ContrastiveStage,
    configs: tuple[PreTrainedConfig, PreTrainedConfig],
    kind: Kind,
    target: int,
) -> int:
    """Bytes beside weights and optimizer at a step's worst moment, from rehearsals with few layers."""
    from lusifer.training.estimate import rehearsal

    setting = rehearsal.setting(
        stage, rows_at_once(recipe, stage), recipe.longest(stage), target,
        {tower: dtype(recipe, stage, tower, kind) for tower in ("encoder", "llm")},
        kind == "cuda" if stage.bf16 == "auto" else stage.bf16,
    )  # fmt: skip
    whole = [config.num_hidden_layers for config in configs]
    few = [1 if layers > 2 else layers for layers in whole]

    def count(layers: list[int]) -> int:
        small = [_with_layers(config, number) for config, number in zip(configs, layers, strict=True)]
        return rehearsal.rehearse(lambda: skeleton(recipe, stage, *small), setting, kind)

    base = total = count(few)
    for tower in (0, 1):
        if whole[tower] > 2:
            more = [2 if place == tower else number for place, number in enumerate(few)]
            total += (count(more) - base) * (whole[tower] - 1)
    return total


def _with_layers(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """The configuration of a tower cut to its first layers."""
    import copy

    cut = copy.deepcopy(config)
    if getattr(cut, "layer_types", None):
        cut.layer_types = cut.layer_types[:layers]
    cut.num_hidden_layers = layers
    return cut


def rows_at_once(recipe: Recipe, stage: AlignmentStage | ContrastiveStage) -> int:
    """Rows of full length that are in memory at once."""
    if isinstance(stage, ContrastiveStage) and stage.mini_batch_tokens:
        return max(1, stage.mini_batch_tokens // recipe.longest(stage))
    return stage.mini_batch_size


def dtype(recipe: Recipe, stage: AlignmentStage | ContrastiveStage, tower: str, kind: Kind = "cuda") -> torch.dtype:
    """Number format of a tower's weights in a stage; what has trained is kept in float32."""
    import torch

    before = recipe.stages[: recipe.stages.index(stage)]
    whole = any(getattr(each.train, tower) == "full" for each in recipe.stages)
    trained = any(getattr(each.train, tower) == "lora" for each in before)
    return torch.float32 if whole or trained or _bytes_of(recipe, kind) == 4 else torch.bfloat16


def _bytes_of(recipe: Recipe, kind: Kind) -> int:
    """Bytes of a frozen weight."""
    auto = 2 if kind == "cuda" else 4
    return {"float32": 4, "bfloat16": 2, "auto": auto}[recipe.model.dtype.frozen]
