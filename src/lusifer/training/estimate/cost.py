"""What a recipe costs: parameters, memory, arithmetic, hours. Nothing is downloaded, nothing is measured.

Only configurations are read; the model is built without memory (torch's meta device), so counts are exact. Memory and
FLOPs are counted in `memory`, what there is to read in `workload`.
"""

from __future__ import annotations

import tempfile
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from lusifer.errors import UsageError
from lusifer.model import adapters, backbones, build, tiny
from lusifer.model.adapters import PartReport
from lusifer.training.estimate.memory import Estimator, Memory, here
from lusifer.training.estimate.workload import StageLoad, stage_load
from lusifer.training.recipe.recipe import BaseSettings, Recipe
from lusifer.training.recipe.stage_settings import StageSettings


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
    estimator = Estimator(recipe, encoder, llm)
    return [_stage(recipe, stage, estimator, llm) for stage in recipe.stages]


def _stage(recipe: Recipe, stage: StageSettings, estimator: Estimator, llm: PreTrainedConfig) -> StageEstimate:
    stage.refuse_llm(llm, backbones.is_decoder(llm))
    load = stage_load(recipe, stage)
    parts = adapters.report(estimator.model(stage))
    flops = estimator.flops(stage, load.tokens)
    hours = {
        name: None if load.steps is None else load.steps * flops / (card["tflops"] * 1e12 * card["utilisation"]) / 3600
        for name, card in cards().items()
    }
    gpu, this = (estimator.memory(stage, parts, kind) for kind in ("cuda", here()))
    watch = None if stage.watch is None else stage.watch.words(load.steps)
    return StageEstimate(stage.name, stage.kind, parts, load, gpu, this, flops, hours, watch)


def _config(base: BaseSettings, tower: str) -> PreTrainedConfig:
    """The configuration of a base: from disk, from the hub's cache on disk, or from the table."""
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
    with tempfile.TemporaryDirectory() as folder:
        made = dict(zip(("encoder", "llm"), tiny.make_tiny_bases(Path(folder), 0), strict=True))
        return build.read_config(build.Base(str(made[tower])), tower)


def _table(name: str) -> dict[str, dict[str, Any]]:
    """A table beside this file."""
    return tomllib.loads(resources.files("lusifer.training.estimate").joinpath(name).read_text(encoding="utf-8"))
