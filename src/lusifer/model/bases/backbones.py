"""The supported backbones, how to load them, and how to compile their layers.

An architecture that is not in `backbones.toml` is refused, with a message on how to add it.
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
"""Dropout draws the same random numbers as without compilation."""
MOST_VARIANTS = 64
"""torch's limit of compiled variants of a function. Both backbones share transformers' wrapper of a layer, which has 15
variants (with and without gradients, padding, and gradients of the layer's input). Torch's default limit is 8, after
which it stops compiling with one warning."""


class Backbone(NamedTuple):
    """The facts about an architecture; `backbones.toml` explains them."""

    lora_targets: list[str]
    kwargs: dict[str, Any] = {}
    class_name: str | None = None
    decoder: bool = False
    settings: dict[str, Any] = {}
    renamed: dict[str, str] = {}


@cache
def table(backbone: str) -> dict[str, Backbone]:
    """Read the supported architectures of a backbone, "encoder" or "llm": `model_type` -> facts."""
    text = resources.files("lusifer.model.bases").joinpath("backbones.toml").read_text(encoding="utf-8")
    return {model_type: Backbone(**facts) for model_type, facts in tomllib.loads(text)[backbone].items()}


def find(model_type: str, backbone: str) -> Backbone:
    """Return the facts about an architecture.

    Args:
        model_type: Its name in transformers.
        backbone: "encoder" or "llm".

    Raises:
        UsageError: The architecture is not supported as this backbone.
    """
    known = table(backbone)
    if model_type not in known:
        raise UsageError(
            f"model.{backbone}: architecture {model_type!r} was never checked as {backbone} (checked: "
            f"{', '.join(sorted(known))}): use one of these, or add [{backbone}.{model_type}] to "
            "lusifer/model/bases/backbones.toml if `pytest tests/model/test_backbones.py` then passes"
        )
    return known[model_type]


def model_class(model_type: str, backbone: str) -> type:
    """Return the class of transformers without the parts that LUSIFER does not use.

    Args:
        model_type: The name of the architecture in transformers.
        backbone: "encoder" or "llm".
    """
    name = find(model_type, backbone).class_name
    if name is None:
        return AutoModel
    module, _, name = f"transformers.{name}".rpartition(".")
    return getattr(importlib.import_module(module), name)


def from_config(config: PreTrainedConfig, backbone: str) -> PreTrainedModel:
    """Make a backbone without pooler and head from its configuration, with new weights.

    Args:
        config: The configuration.
        backbone: "encoder" or "llm".
    """
    cls = model_class(config.model_type, backbone)
    make = cls.from_config if cls is AutoModel else cls._from_config
    return make(config, **find(config.model_type, backbone).kwargs)


@contextmanager
def described() -> Iterator[None]:
    """Make modules in the block on the meta device, without memory and without initialization, which imports sympy."""
    with torch.device("meta"), no_init_weights():
        yield


def with_layers(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """Copy a configuration with only the first layers.

    Args:
        config: The configuration.
        layers: The number of layers.
    """
    cut = copy.deepcopy(config)
    if getattr(cut, "layer_types", None):
        cut.layer_types = cut.layer_types[:layers]
    cut.num_hidden_layers = layers
    return cut


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the parameters of a backbone, in place. `Module.to` would also round its rotary frequencies.

    Args:
        module: The backbone.
        dtype: The new dtype.
    """
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def is_decoder(config: PreTrainedConfig) -> bool:
    """Whether an LLM is a causal language model, with an LM head, which reconstruction and completion need."""
    return find(config.model_type, "llm").decoder


def compile_layers(model: nn.Module) -> int:
    """Compile every layer of the backbones at its first call (`torch.nn.Module.compile`), in place.

    This fuses the operations between matrix products. Layers are compiled separately, because the layers of a model are
    equal and share the compiled code. Compiling the complete model takes longer and is repeated for every kind of
    batch; accelerate's `compile_regions` renames weights. Batch sizes may change without a new compilation.

    Args:
        model: A model, or an embedder with one, on the device where it will run.

    Returns:
        The number of layers.

    Raises:
        UsageError: Torch cannot compile on this device, or the model has no layers of transformers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UsageError("this model has no layers that can be compiled: remove compile")
    refuse_without_compiler(next(model.parameters()).device)
    for layer in layers:
        layer.compile(dynamic=True, options=COMPILE_OPTIONS, recompile_limit=MOST_VARIANTS)
    return len(layers)


def refuse_without_compiler(device: torch.device) -> None:
    """Compile a small function, to report a missing compiler now and not at the first batch.

    Raises:
        UsageError: Torch cannot compile on this device.
    """
    try:
        torch.compile(lambda x: x.sin() + 1, options=COMPILE_OPTIONS)(torch.ones(8, device=device))
    except RuntimeError as error:  # the base class of torch's errors
        needed = "a C++ compiler (g++, or the one in CXX) and the headers of Python"
        if device.type == "cuda":
            needed = "the package triton, a C compiler and the headers of Python"
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UsageError(f"torch cannot compile here ({reason:.200}): install {needed}, or remove compile") from error
