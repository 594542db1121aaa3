"""What trains in a stage: the backbones, their adapters and the parts that join them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from lusifer.training.recipe.data import Settings


class LoRA(Settings):
    """Low-rank adapters of one backbone; the defaults are the published ones."""

    r: int = Field(default=16, ge=1)
    """Rank of the adapters. A higher rank has more trainable parameters and takes more memory."""
    alpha: float = Field(default=32, gt=0)
    """Scale: the update is multiplied by alpha / r. Change it together with `r` to keep that ratio."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability that an input of the adapter is dropped."""
    targets: list[str] | str | None = None
    """Names of the linear layers, or one regular expression. `null` takes the linear layers of the architecture's
    blocks; for Mistral and Llama these are the published q, k, v, o, gate, up and down. Set it for fewer adapters."""


class BackboneLoRA(Settings):
    """Adapters by backbone; null where a backbone has none."""

    encoder: LoRA | None = None
    """Adapters of the encoder. By default the published settings if `train.encoder` is `lora`, else `null`."""
    llm: LoRA | None = None
    """Adapters of the LLM. By default the published settings if `train.llm` is `lora`, else `null`."""


class Train(Settings):
    """What trains in a stage."""

    encoder: Literal["lora", "full", "frozen"] = "lora"
    """How the encoder trains: adapters (`lora`), all weights (`full`), or not at all (`frozen`). Choose `frozen` to
    save memory, or if training on English would harm other languages."""
    llm: Literal["lora", "full", "frozen"] = "frozen"
    """How the LLM trains. It must be `frozen` in an alignment stage; `lora` is usual in a contrastive stage."""
    connector: bool = True
    """Whether the connector and its soft tokens train. At least one stage must train a new connector."""
    output_projection: bool = False
    """Whether the layers after the pooling train. Set it `true` in a stage that uses the vector: a contrastive stage,
    or alignment with `distill`."""


@dataclass(frozen=True)
class Pass:
    """One kind of forward and backward pass of a stage, for estimates.

    `share` of the steps; whether the LLM `predicts` a target as long as the text, `chunk` labels at a time; whether the
    LLM also reads the text itself as `teacher`.
    """

    share: float = 1.0
    predicts: bool = False
    teacher: bool = False
    chunk: int = 1
