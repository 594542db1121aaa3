"""Layers compiled by torch: what lies between the matrix products is fused, so memory is read and written less often.

Layer by layer, since a model's layers are alike: one is compiled, the others use the same code. A model compiled whole
takes longer, and is compiled again for every kind of batch. accelerate's `compile_regions` makes a new module in which
weights have other names, and its variants in place compile every other part of the model too.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from lusifer.errors import UsageError

OPTIONS = {"fallback_random": True}
"""Dropout draws what it draws without compilation, in the same order."""
MOST_VARIANTS = 64
"""Both towers share transformers' wrapper of a layer: with and without gradients, padding, and gradients of a layer's
input they come to 15, more than torch's own limit of 8, beyond which it compiles no more and says so in one warning."""


def compile_layers(model: nn.Module) -> int:
    """Have every layer of the backbones compiled at its first call (`torch.nn.Module.compile`), in place.

    Names of weights stay as they are. Sizes of batches may change without a new compilation. Dropout draws what it
    draws without compilation, in the same order: a gradient cache runs each batch twice and needs the same noise twice.

    Args:
        model: A model, or an embedder around it, on the device where it will run.

    Returns:
        How many layers.

    Raises:
        UsageError: torch cannot compile here, or the model has no layers of transformers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UsageError("this model has no layers that can be compiled: leave compile out")
    refuse_without_compiler(next(model.parameters()).device)
    for layer in layers:
        layer.compile(dynamic=True, options=OPTIONS, recompile_limit=MOST_VARIANTS)
    return len(layers)


def refuse_without_compiler(device: torch.device) -> None:
    """Compile one small function: what is missing is said at once, and not at the first batch.

    Raises:
        UsageError: torch cannot compile on this device; the message has torch's reason.
    """
    try:
        torch.compile(_small, options=OPTIONS)(torch.ones(8, device=device))
    except RuntimeError as error:  # of torch's own kinds, all of which are this
        needed = "a C++ compiler (g++, or what CXX names) and the headers of Python"
        if device.type == "cuda":
            needed = "the package triton, a C compiler and the headers of Python"
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UsageError(
            f"torch cannot compile here ({reason:.200}): it needs {needed}; or leave compile out"
        ) from error


def _small(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
