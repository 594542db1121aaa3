"""What a recipe costs, by formula: parameters, memory, arithmetic, hours. Nothing is downloaded, nothing is measured.

Only configurations are read; the model is built without memory (torch's meta device), so counts are exact.

Memory of one device that holds everything (data parallel), in bytes:

    weights      4 x parameters of what trains or has trained (a tower that trains whole in any stage or carried
                 adapters in a stage before, connector, projection, adapters) + bytes of dtype.frozen x the others
    gradients    4 x trained parameters
    optimizer    2 moments (AdamW) x gradients
    activations  rows in memory x positions x hidden size x layers x 34 bytes in 16 bit (Korthikanti et al. 2022,
                 arXiv 2205.05198, without the score matrix, which sdpa does not keep), twice that in 32 bit; with
                 gradient checkpointing one layer so, and 2 bytes for each of the others; plus logits of one chunk
                 in float32, three times (logits, softmax, gradient)

Arithmetic of one text that has T positions in a tower with P parameters outside the word embeddings, hidden size h and
n layers: forward 2 P T + 4 T^2 h n; as much again for the gradient towards the input where something before or in the
tower trains, as much again for the gradient of the weights where all of them train, and once more for gradient
checkpointing and for the gradient cache. LM head: 2 h V for each label, forward and towards the input.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from lusifer.errors import UsageError
from lusifer.training import recipe_watch
from lusifer.training.recipe import Base, Recipe, longest
from lusifer.training.recipe_stage import AlignmentStage, ContrastiveStage
from lusifer.training.workload import StageLoad, stage_load

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from lusifer.model.adapters import PartReport
    from lusifer.model.lusifer import LusiferModel

_BYTES = {"float32": 4, "bfloat16": 2, "auto": 2}
_LAYER_BYTES = 34  # a position, a layer, a hidden unit, in 16 bit


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


@dataclass(frozen=True)
class StageEstimate:
    """One stage: counts by part, what it reads, memory, FLOPs of a step, hours by card (None: steps unknown).

    `watch` says in words how it is watched, None if it is not; the hours are without that.
    """

    name: str
    kind: str
    parts: list[PartReport]
    load: StageLoad
    memory: Memory
    flops: float
    hours: dict[str, float | None]
    watch: str | None = None


@cache
def cards() -> dict[str, dict[str, float]]:
    """Read the table of machines: tflops, utilisation (assumed), gib."""
    return _table("cards.toml")


def estimate(recipe: Recipe) -> list[StageEstimate]:
    """Work out what every stage of a recipe costs.

    Args:
        recipe: Any; bases that are neither on disk nor in `known_bases.toml` are refused.

    Returns:
        One estimate a stage, in order.

    Raises:
        UsageError: A base is unknown here, its architecture was never checked, or an objective needs an LM head and
            the LLM has none.
    """
    encoder, llm = _config(recipe.model.encoder, "encoder"), _config(recipe.model.llm, "llm")
    return [_stage(recipe, stage, encoder, llm) for stage in recipe.stages]


def _stage(
    recipe: Recipe, stage: AlignmentStage | ContrastiveStage, encoder: PreTrainedConfig, llm: PreTrainedConfig
) -> StageEstimate:
    """One stage's estimate."""
    from lusifer.model import adapters

    _possible(stage, llm)
    load = stage_load(recipe, stage)
    model = skeleton(recipe, stage, encoder, llm)
    parts = adapters.report(model)
    flops = _flops(model, stage, parts, load.tokens)
    hours = {
        name: None if load.steps is None else load.steps * flops / (card["tflops"] * 1e12 * card["utilisation"]) / 3600
        for name, card in cards().items()
    }
    memory = _memory(recipe, stage, model, parts)
    watch = None if stage.watch is None else recipe_watch.words(stage.watch, load.steps)
    return StageEstimate(stage.name, stage.kind, parts, load, memory, flops, hours, watch)


def _possible(stage: AlignmentStage | ContrastiveStage, llm: PreTrainedConfig) -> None:
    """Refuse what only the LLM's configuration can tell."""
    from lusifer.model import backbones

    if isinstance(stage, AlignmentStage):
        if stage.objectives.reconstruction + stage.objectives.completion > 0 and not backbones.is_decoder(llm):
            raise UsageError(
                f"stages.{stage.name}.objectives: {llm.model_type} has no LM head, which reconstruction and "
                "completion need: use objectives: {distill: 1}"
            )
    elif stage.matryoshka_dims and max(stage.matryoshka_dims) > llm.hidden_size:
        raise UsageError(
            f"stages.{stage.name}.matryoshka_dims: {max(stage.matryoshka_dims)} is more than the {llm.hidden_size} "
            "dimensions of the vector"
        )


def _config(base: Base, tower: str) -> PreTrainedConfig:
    """The configuration of a base: from disk, from the hub's cache on disk, or from the table."""
    from transformers import AutoConfig

    from lusifer.model import backbones, build

    if base.path.startswith("tiny:"):
        return _tiny_config(tower)
    if base.path.startswith(("package:", "/")):
        return build.read_config(build.Base(base.path, base.revision), tower)
    known = _table("known_bases.toml")
    try:
        config = AutoConfig.from_pretrained(base.path, revision=base.revision, local_files_only=True)
    except (OSError, ValueError):
        if base.path not in known:
            raise UsageError(
                f"model.{tower}.path: the dimensions of {base.path} are not on this machine: fetch them with "
                f"`hf download {base.path} config.json`, or give a folder"
            ) from None
        config = AutoConfig.for_model(**known[base.path])
    backbones.backbone(config.model_type, tower)
    return config


def _tiny_config(tower: str) -> PreTrainedConfig:
    """The configuration of a tiny base, which exists only once it was made."""
    import tempfile
    from pathlib import Path

    from lusifer.model import build, tiny

    with tempfile.TemporaryDirectory() as folder:
        made = dict(zip(("encoder", "llm"), tiny.make_tiny_bases(Path(folder), 0), strict=True))
        return build.read_config(build.Base(str(made[tower])), tower)


def skeleton(
    recipe: Recipe, stage: AlignmentStage | ContrastiveStage, encoder: PreTrainedConfig, llm: PreTrainedConfig
) -> LusiferModel:
    """The model of a stage with its adapters, without memory for weights.

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
        connector_type=settings.connector.type, connector_kwargs=settings.connector_kwargs(),
        num_soft_tokens=settings.connector.num_soft_tokens, pooling=settings.pooling, residual=settings.residual,
        output_projection=settings.output_projection, include_prompt=settings.include_prompt,
    )  # fmt: skip
    with torch.device("meta"):
        model = LusiferModel(config)
        train = stage.train
        whole = {tower: getattr(train, tower) == "full" for tower in adapters.TOWERS}
        adapters.freeze(model, whole | {"connector": train.connector, "output_projection": train.output_projection})
        for tower in adapters.TOWERS:
            lora = getattr(stage.lora, tower)
            if lora is not None:
                adapters.attach(model, tower, lora.r, lora.alpha, lora.dropout, lora.targets)
    return model


def _memory(
    recipe: Recipe, stage: AlignmentStage | ContrastiveStage, model: LusiferModel, parts: list[PartReport]
) -> Memory:
    """Bytes on one device, by the formula above, for texts of full length."""
    trainable = sum(part.trainable for part in parts)
    frozen = {tower: _frozen_bytes(recipe, stage, tower) for tower in ("encoder", "llm")}
    weights = sum(4 * p.trainable + frozen.get(p.part, 4) * (p.parameters - p.trainable) for p in parts)
    rows = stage.mini_batch_size
    if isinstance(stage, ContrastiveStage) and stage.mini_batch_tokens:
        rows = max(1, stage.mini_batch_tokens // longest(recipe, stage))
    precision = 2 if stage.bf16 is False else 1
    kept = 0.0
    for tower, positions in zip(("encoder", "llm"), _positions(model, stage, longest(recipe, stage)), strict=True):
        config = getattr(model.config, tower)
        layers = config.num_hidden_layers
        per_layer = _LAYER_BYTES * (1 if stage.gradient_checkpointing else layers)
        inputs = 2 * layers if stage.gradient_checkpointing else 0
        kept += rows * positions * config.hidden_size * (per_layer + inputs) * precision
    if isinstance(stage, AlignmentStage) and stage.objectives.reconstruction + stage.objectives.completion > 0:
        kept += 3 * 4 * stage.logits_chunk * model.config.llm.vocab_size
    return Memory(weights, 4 * trainable, 2 * 4 * trainable, int(kept))


def _frozen_bytes(recipe: Recipe, stage: AlignmentStage | ContrastiveStage, tower: str) -> int:
    """Bytes of a weight of a tower that does not train in this stage; what has trained is kept in float32."""
    before = recipe.stages[: recipe.stages.index(stage)]
    whole = any(getattr(each.train, tower) == "full" for each in recipe.stages)
    trained = any(getattr(each.train, tower) == "lora" for each in before)
    return 4 if whole or trained else _BYTES[recipe.model.dtype.frozen]


def _positions(model: LusiferModel, stage: AlignmentStage | ContrastiveStage, tokens: float) -> tuple[float, float]:
    """Positions of the encoder and of the LLM for a text of `tokens` (and a target as long, where there is one)."""
    config = model.config
    soft = tokens
    if config.connector_type == "latent_attention":
        soft = config.connector_kwargs["num_latents"]
    elif config.connector_type == "compress":
        soft = tokens / config.connector_kwargs["factor"]
    target = 0.0
    if isinstance(stage, AlignmentStage):
        weights = stage.objectives
        language_model = weights.reconstruction + weights.completion
        target = tokens * language_model / (language_model + weights.distill)
    return tokens, soft + config.num_soft_tokens + target


def _flops(
    model: LusiferModel, stage: AlignmentStage | ContrastiveStage, parts: list[PartReport], tokens: float
) -> float:
    """FLOPs of one optimizer step, by the formula above."""
    train, config = stage.train, model.config
    encoder_at, llm_at = _positions(model, stage, tokens)
    again = int(stage.gradient_checkpointing) + int(isinstance(stage, ContrastiveStage))
    before = train.encoder != "frozen"
    forward = {tower: _forward(model, tower, at) for tower, at in (("encoder", encoder_at), ("llm", llm_at))}
    connector = 2 * next(part.parameters for part in parts if part.part == "connector") * encoder_at
    total = forward["encoder"] * (1 + again + before + (train.encoder == "full"))
    total += connector * (1 + again + before + train.connector)
    llm_gradient = before or train.connector or train.llm != "frozen"
    total += forward["llm"] * (1 + again + llm_gradient + (train.llm == "full"))
    if not isinstance(stage, AlignmentStage):
        return total * stage.batch_size * (2 + stage.hard_negatives)
    weights = stage.objectives
    shares = weights.reconstruction + weights.completion + weights.distill
    distill = weights.distill / shares
    total += distill * _forward(model, "llm", tokens)  # the teacher reads the text itself
    # The chunk's logits are made twice (checkpointed) and give one gradient.
    total += (1 - distill) * 3 * 2 * config.llm.hidden_size * config.llm.vocab_size * tokens
    return total * stage.batch_size


def _forward(model: LusiferModel, tower: str, positions: float) -> float:
    """FLOPs of one text through one tower."""
    module, config = getattr(model, tower), getattr(model.config, tower)
    words = module.get_input_embeddings().weight.numel()
    weights = sum(p.numel() for p in module.parameters()) - words
    return 2 * weights * positions + 4 * positions**2 * config.hidden_size * config.num_hidden_layers


def _table(name: str) -> dict[str, dict[str, Any]]:
    """A table beside this file."""
    return tomllib.loads(resources.files("lusifer.training").joinpath(name).read_text(encoding="utf-8"))
