"""Build a LUSIFER model from two loaded bases. The functions of `bases` that read them are exported here too.

`make_tiny_bases` writes two random bases of a few hundred kilobytes, to try every command without a download.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from lusifer.model.bases import backbones
from lusifer.model.bases.reading import (
    Base,
    checked,
    frozen_dtype,
    place,
    read_backbone,
    read_config,
    read_lm_head,
)
from lusifer.model.bases.tokenizer import check_tokenizers, read_safely, read_tokenizer
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferModel

__all__ = [
    "TINY", "Base", "check_tokenizers", "checked", "frozen_dtype", "join", "make_tiny_bases", "place", "read_backbone",
    "read_config", "read_lm_head", "read_safely", "read_tokenizer", "tiny_model",
]  # fmt: skip
TINY = Path(__file__).with_name("tiny_bases")
"""Configuration and tokenizer of `tiny:encoder` (an XLM-R, hidden size 32) and `tiny:llm` (a Mistral, hidden size 48).
`tests/support/tiny_bases.py` made the tokenizers."""


def join(encoder: nn.Module, llm: nn.Module, seed: int = 0, **settings: Any) -> LusiferModel:
    """Build a LUSIFER model from two loaded backbones, with a random connector and projection.

    Args:
        encoder: The encoder, from `read_backbone`. It keeps its dtype.
        llm: The LLM, from `read_backbone`. It keeps its dtype.
        seed: The seed of the connector and the projection, which are float32.
        **settings: The other fields of `LusiferConfig`.

    Returns:
        The model in evaluation mode.
    """
    # Without it, the configuration would set both backbones back to the default attention kernel.
    kernel = llm.config._attn_implementation
    config = LusiferConfig(encoder=encoder.config, llm=llm.config, attn_implementation=kernel, **settings)
    model = LusiferModel.around(config, encoder, llm)
    new_parts = [part for part in (model.connector, model.output_projection) if part is not None]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in new_parts:
            part.apply(model._init_weights)
    model.connector.mapping.start_from(llm)
    for part in new_parts:
        part.to(llm.device)
    return model.eval()


def tiny_model(config: PreTrainedConfig, backbone: str, seed: int = 0) -> PreTrainedModel:
    """Make a backbone with random float32 weights from its configuration, without changing torch's global generator.

    Args:
        config: The configuration.
        backbone: "encoder" or "llm". A decoder as "llm" gets an LM head.
        seed: The seed of the weights.

    Raises:
        UsageError: The architecture is not supported as this backbone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if backbone == "llm" and backbones.is_decoder(config):
            return AutoModelForCausalLM.from_config(config).eval()
        return backbones.from_config(config, backbone).eval()


def make_tiny_bases(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write the random bases `tiny:encoder` and `tiny:llm`, with tokenizers.

    Args:
        folder: The folder in which `encoder` and `llm` are made.
        seed: The seed of the encoder's weights. The LLM gets the next one.

    Returns:
        The folders of the encoder and of the LLM.
    """
    for number, backbone in enumerate(("encoder", "llm")):
        tiny_model(
            AutoConfig.from_pretrained(TINY / backbone, trust_remote_code=False), backbone, seed + number
        ).save_pretrained(folder / backbone)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(TINY / backbone / file, folder / backbone / file)
    return folder / "encoder", folder / "llm"
