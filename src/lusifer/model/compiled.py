"""Layers compiled by torch: what lies between the matrix products is fused, so memory is read and written less often.

Layer by layer, since a model's layers are alike: one is compiled, the others use the same code. A model compiled whole
takes minutes, and is compiled again for every kind of batch.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from lusifer.errors import UsageError

COMPILERS = ("g++", "clang++")
MOST_VARIANTS = 64
"""Both towers share transformers' wrapper of a layer: with and without gradients, padding, and gradients of a layer's
input they come to 16, more than torch's own limit of 8, beyond which it compiles no more and says so in one warning."""


def compile_layers(model: nn.Module) -> int:
    """Have every layer of the backbones compiled at its first call (`torch.nn.Module.compile`), in place.

    Names of weights stay as they are. Sizes of batches may change without a new compilation. Dropout draws what it
    draws without compilation, in the same order: a gradient cache runs each batch twice and needs the same noise twice.

    Args:
        model: A model, or an embedder around it, on the device where it will run.

    Returns:
        How many layers.

    Raises:
        UsageError: There is no compiler, or no layer to compile (an int8 folder is compiled already).
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UsageError(
            "compile: no layers to compile in this model (int8 folders are compiled already): leave it out"
        )
    _refuse_without_compiler(next(model.parameters()).device)
    for layer in layers:
        layer.compile(dynamic=True, options={"fallback_random": True}, recompile_limit=MOST_VARIANTS)
    return len(layers)


def _refuse_without_compiler(device: torch.device) -> None:
    """Say at once what torch would say at the first batch, in many lines."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise UsageError("compile: needs the package triton on a GPU: install it, or leave compile out")
    elif not any(map(shutil.which, (os.environ.get("CXX") or COMPILERS[0], *COMPILERS))):
        raise UsageError("compile: needs a C++ compiler on a CPU (g++ or clang++): install one, or leave compile out")
