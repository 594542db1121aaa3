"""What a recipe costs, by formula: parameters, memory, arithmetic, hours. Nothing is downloaded, nothing is measured.

Only configurations are read; the model is built without memory (torch's meta device), so counts are exact.

Memory is worked out in `memory`, what there is to read in `workload`.

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
from lusifer.training.estimate import memory
from lusifer.training.estimate.memory import Memory
from lusifer.training.estimate.workload import StageLoad, stage_load
from lusifer.training.recipe import watch as recipe_watch
from lusifer.training.recipe.recipe import BaseSettings, Recipe
from lusifer.training.recipe.stage import AlignmentStage, ContrastiveStage

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from lusifer.model.adapters import PartReport
    from lusifer.model.lusifer import LusiferModel


@dataclass(frozen=True)
class StageEstimate:
    """One stage: counts by part, what it reads, memory, FLOPs of a step, hours by card (None: steps unknown).

    `memory` is on a GPU, `here` on the device of this machine: `auto` and what layers keep differ.
    `watch` says in words how it is watched, None if it is not; the hours are without that.
    """

    name: str
    kind: str
    parts: list[PartReport]
    load: StageLoad
    memory: Memory
    here: Memory
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
    model = memory.skeleton(recipe, stage, encoder, llm)
    parts = adapters.report(model)
    flops = _flops(model, stage, parts, load.tokens)
    hours = {
        name: None if load.steps is None else load.steps * flops / (card["tflops"] * 1e12 * card["utilisation"]) / 3600
        for name, card in cards().items()
    }
    gpu, this = (memory.memory(recipe, stage, (encoder, llm), parts, kind) for kind in ("cuda", memory.here()))
    watch = None if stage.watch is None else recipe_watch.words(stage.watch, load.steps)
    return StageEstimate(stage.name, stage.kind, parts, load, gpu, this, flops, hours, watch)


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


def _config(base: BaseSettings, tower: str) -> PreTrainedConfig:
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
    # Logits are made once, and their gradient with them.
    total += (1 - distill) * 2 * 2 * config.llm.hidden_size * config.llm.vocab_size * tokens
    return total * stage.batch_size


def _forward(model: LusiferModel, tower: str, positions: float) -> float:
    """FLOPs of one text through one tower."""
    module, config = getattr(model, tower), getattr(model.config, tower)
    words = module.get_input_embeddings().weight.numel()
    weights = sum(p.numel() for p in module.parameters()) - words
    return 2 * weights * positions + 4 * positions**2 * config.hidden_size * config.num_hidden_layers


def _table(name: str) -> dict[str, dict[str, Any]]:
    """A table beside this file."""
    return tomllib.loads(resources.files("lusifer.training.estimate").joinpath(name).read_text(encoding="utf-8"))
