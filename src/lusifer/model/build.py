"""Make one model from two bases: an encoder and an LLM, each a hub name or a folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from lusifer.errors import LusiferError, UsageError
from lusifer.io import hub, names
from lusifer.model import backbones
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferModel


@dataclass(frozen=True)
class Base:
    """Where a backbone comes from: hub name or folder, `revision` for a hub name, `dtype` its weights are held in."""

    path: str
    revision: str | None = None
    dtype: torch.dtype = torch.float32


def frozen_dtype() -> torch.dtype:
    """bf16 where the machine computes in it at speed (a CUDA device that supports it), else float32."""
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def resolve(path: str) -> str:
    """The folder or hub id that the name of a base means (`lusifer.io.names.base`).

    Raises:
        UsageError: It can be neither.
    """
    return str(names.base(path))


def read_config(base: Base, tower: str) -> PreTrainedConfig:
    """The configuration of a base, refused unless its architecture was checked.

    Raises:
        UsageError: Not found, or not a checked architecture.
    """
    path = resolve(base.path)
    with hub.asking(_key(base, tower), UsageError):
        config = AutoConfig.from_pretrained(path, revision=hub.commit(path, base.revision))
    backbones.backbone(config.model_type, tower)
    return config


def read_backbone(base: Base, tower: str, attn_implementation: str | None = None) -> nn.Module:
    """The weights of a base, without pooler or head.

    Raises:
        UsageError: Not found or refused.
        LusiferError: Weights in the folder are missing or damaged.
    """
    config = read_config(base, tower)
    facts = backbones.backbone(config.model_type, tower)
    return _read_weights(
        backbones.model_class(config.model_type, tower),
        base,
        tower,
        attn_implementation=attn_implementation,
        **facts.kwargs,
    )


def _read_weights(cls: Any, base: Base, tower: str, **kwargs: Any) -> nn.Module:
    """A model of class `cls` whose every tensor came from the base; transformers would draw what is missing."""
    path = resolve(base.path)
    try:
        with hub.asking(_key(base, tower), UsageError):
            commit = hub.commit(path, base.revision)
            module, info = cls.from_pretrained(
                path, revision=commit, dtype=base.dtype, output_loading_info=True, **kwargs
            )
    except SafetensorError as error:
        raise LusiferError(
            f"{base.path}: its weights are truncated or damaged ({error}); fetch the folder anew"
        ) from error
    if info["missing_keys"]:
        some = sorted(info["missing_keys"])
        raise LusiferError(f"{base.path}: {len(some)} tensors are missing, {some[0]} among them; fetch the folder anew")
    return module


def refuse_headless(base: Base) -> None:
    """Refuse an LLM that predicts no tokens, by its configuration.

    Raises:
        UsageError: It is an encoder-style embedder.
    """
    config = read_config(base, "llm")
    if not backbones.is_decoder(config):
        raise UsageError(
            f"model.llm.path={base.path!r} ({config.model_type}) has no LM head: reconstruction and completion need "
            "one; use objectives: {distill: 1}"
        )


def read_lm_head(base: Base) -> nn.Module:
    """The LM head of a decoder, frozen.

    Raises:
        UsageError: The LLM is an encoder-style embedder and has none.
    """
    refuse_headless(base)
    full = _read_weights(AutoModelForCausalLM, base, "llm")
    return full.get_output_embeddings().requires_grad_(False)


def _key(base: Base, tower: str) -> str:
    """How messages name a base: by its place in a recipe."""
    at = f" at revision {base.revision!r}" if base.revision else ""
    return f"model.{tower}.path={base.path!r}{at}"


def join(encoder: nn.Module, llm: nn.Module, seed: int = 0, **settings: Any) -> LusiferModel:
    """A LUSIFER model around two loaded backbones; connector and projection start at random.

    Args:
        encoder: Module as `read_backbone` gives it.
        llm: Likewise.
        seed: Of the connector and the projection.
        **settings: The other fields of `LusiferConfig`.

    Returns:
        The model, in evaluation mode. Backbones keep their dtype, the new parts are float32.
    """
    # Left out, the composite's configuration sets both towers back to the default kernel.
    kernel = llm.config._attn_implementation
    config = LusiferConfig(encoder=encoder.config, llm=llm.config, attn_implementation=kernel, **settings)
    with torch.device("meta"):  # the backbones' weights exist already: allocate nothing for them a second time
        model = LusiferModel(config)
    model.encoder, model.llm = encoder, llm
    model.config.encoder, model.config.llm = encoder.config, llm.config
    for part in (model.connector, model.output_projection):
        if part is not None:
            part.to_empty(device="cpu").to(torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in (model.connector, model.output_projection):
            if part is not None:
                part.apply(model._init_weights)
    model.connector.mapping.start_from(llm)
    if config.bidirectional:
        llm.config.is_causal = False
    return model.eval()
