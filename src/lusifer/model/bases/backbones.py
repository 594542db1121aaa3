"""Which backbones were checked, how each is loaded, and how its layers are compiled.

An architecture that is not in `backbones.toml` is refused; the message says how to check it.
"""

from __future__ import annotations

import copy
import importlib
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.modeling_layers import GradientCheckpointingLayer

from lusifer.errors import UsageError

COMPILE_OPTIONS = {"fallback_random": True}
"""Dropout draws what it draws without compilation, in the same order."""
MOST_VARIANTS = 64
"""Both towers share transformers' wrapper of a layer: with and without gradients, padding, and gradients of a layer's
input they come to 15, more than torch's own limit of 8, beyond which it compiles no more and says so in one warning."""


class Backbone(NamedTuple):
    """Facts about one architecture, as `backbones.toml` explains them."""

    lora_targets: list[str]
    kwargs: dict[str, Any] = {}
    class_name: str | None = None
    decoder: bool = False
    settings: dict[str, Any] = {}
    renamed: dict[str, str] = {}


@cache
def table(tower: str) -> dict[str, Backbone]:
    """Read the checked architectures of a tower, "encoder" or "llm", by `model_type`."""
    text = resources.files("lusifer.model.bases").joinpath("backbones.toml").read_text(encoding="utf-8")
    return {model_type: Backbone(**facts) for model_type, facts in tomllib.loads(text)[tower].items()}


def backbone(model_type: str, tower: str) -> Backbone:
    """Facts about the architecture `model_type` as a tower, "encoder" or "llm".

    Raises:
        UsageError: The architecture was not checked in that place.
    """
    known = table(tower)
    if model_type not in known:
        raise UsageError(
            f"model.{tower}: architecture {model_type!r} was never checked as {tower} (checked: "
            f"{', '.join(sorted(known))}); to check it, add [{tower}.{model_type}] to "
            "lusifer/model/bases/backbones.toml, run `pytest tests/model/test_backbones.py`, and keep it only if every "
            "test passes"
        )
    return known[model_type]


def model_class(model_type: str, tower: str) -> type:
    """The class of transformers that holds just what LUSIFER runs."""
    name = backbone(model_type, tower).class_name
    if name is None:
        return AutoModel
    module, _, name = f"transformers.{name}".rpartition(".")
    return getattr(importlib.import_module(module), name)


def from_config(config: PreTrainedConfig, tower: str) -> PreTrainedModel:
    """An uninitialised backbone for `config`, without pooler or head."""
    cls = model_class(config.model_type, tower)
    make = cls.from_config if cls is AutoModel else cls._from_config
    return make(config, **backbone(config.model_type, tower).kwargs)


@contextmanager
def described() -> Iterator[None]:
    """What is made in the block has shapes and no numbers, and none are drawn, which on "meta" imports sympy."""
    with torch.device("meta"), no_init_weights():
        yield


def with_layers(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """A copy of a configuration that has the first layers alone."""
    cut = copy.deepcopy(config)
    if getattr(cut, "layer_types", None):
        cut.layer_types = cut.layer_types[:layers]
    cut.num_hidden_layers = layers
    return cut


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Give the parameters of a backbone another number format; `Module.to` would round its rotary frequencies too."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def is_decoder(config: PreTrainedConfig) -> bool:
    """Whether the LLM is a causal language model (it then has an LM head and can be aligned by reconstruction)."""
    return backbone(config.model_type, "llm").decoder


def compile_layers(model: nn.Module) -> int:
    """Have every layer of the backbones compiled at its first call (`torch.nn.Module.compile`), in place.

    What lies between the matrix products is fused. Layer by layer, since the layers of a model are alike: one is
    compiled, the others use the same code. A model compiled whole takes longer, and is compiled again for every kind of
    batch; accelerate's `compile_regions` renames weights. Sizes of batches may change without a new compilation.

    Args:
        model: A model, or an embedder around it, on the device where it will run.

    Returns:
        How many layers.

    Raises:
        UsageError: Torch cannot compile here, or the model has no layers of transformers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UsageError("this model has no layers that can be compiled: leave compile out")
    refuse_without_compiler(next(model.parameters()).device)
    for layer in layers:
        layer.compile(dynamic=True, options=COMPILE_OPTIONS, recompile_limit=MOST_VARIANTS)
    return len(layers)


def refuse_without_compiler(device: torch.device) -> None:
    """Compile one small function: what is missing is said at once, and not at the first batch.

    Raises:
        UsageError: Torch cannot compile on this device; the message has torch's reason.
    """
    try:
        torch.compile(lambda x: x.sin() + 1, options=COMPILE_OPTIONS)(torch.ones(8, device=device))
    except RuntimeError as error:  # of torch's own kinds, all of which are this
        needed = "a C++ compiler (g++, or what CXX names) and the headers of Python"
        if device.type == "cuda":
            needed = "the package triton, a C compiler and the headers of Python"
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UsageError(
            f"torch cannot compile here ({reason:.200}): it needs {needed}; or leave compile out"
        ) from error
