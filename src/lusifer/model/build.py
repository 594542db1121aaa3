"""Make one model from two loaded bases; `bases` reads them, and what it offers can be had here as well.

Two random bases of a few hundred kilobytes are made on the spot, so that the whole way can be walked without a
download.
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
"""Configuration and tokenizer of `tiny:encoder` (an XLM-R, hidden 32) and `tiny:llm` (a Mistral, hidden 48), by tower;
`tests/support/tiny_bases.py` has the code that made the tokenizers."""


def join(encoder: nn.Module, llm: nn.Module, seed: int = 0, **settings: Any) -> LusiferModel:
    """A LUSIFER model around two loaded backbones; connector and projection start at random.

    The model is in evaluation mode; backbones keep their dtype, the new parts are float32.

    Args:
        encoder: Module as `read_backbone` gives it.
        llm: Likewise.
        seed: Of the connector and the projection.
        **settings: The other fields of `LusiferConfig`.
    """
    # Left out, the composite's configuration sets both towers back to the default kernel.
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


def tiny_model(config: PreTrainedConfig, tower: str, seed: int = 0) -> PreTrainedModel:
    """Make a model with random float32 weights, the same for equal seeds; torch's generator is left as it was.

    A decoder as "llm" gets its LM head.

    Raises:
        UsageError: The architecture is not among those checked for this tower.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if tower == "llm" and backbones.is_decoder(config):
            return AutoModelForCausalLM.from_config(config).eval()
        return backbones.from_config(config, tower).eval()


def make_tiny_bases(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write the bases `tiny:encoder` and `tiny:llm` into `encoder` and `llm` of a folder, with tokenizers; give both.

    They know nothing. The encoder's weights are of the seed, those of the LLM of the next one.
    """
    for number, tower in enumerate(("encoder", "llm")):
        tiny_model(
            AutoConfig.from_pretrained(TINY / tower, trust_remote_code=False), tower, seed + number
        ).save_pretrained(folder / tower)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(TINY / tower / file, folder / tower / file)
    return folder / "encoder", folder / "llm"
