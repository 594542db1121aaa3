"""The published shapes with random weights on one device, and its operations by count."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AutoConfig

from lusifer.model import adapters
from lusifer.model.bases import backbones
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferModel
from lusifer.training.estimate.cost import _table

UNPADDED = "unpadded"
SMALL = {
    "encoder": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "llm": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "intermediate_size": 96,
    },
}  # fmt: skip


def configs(small: bool) -> dict[str, Any]:
    """Of XLM-R large and Mistral 7B, or of something tiny."""
    known = _table("known_bases.toml")
    names = {"encoder": "FacebookAI/xlm-roberta-large", "llm": "mistralai/Mistral-7B-Instruct-v0.3"}
    words = {"vocab_size": 1000} if small else {}
    more = {backbone: (SMALL[backbone] if small else {}) | words for backbone in names}
    return {backbone: AutoConfig.for_model(**{**known[name], **more[backbone]}) for backbone, name in names.items()}


def build(device: str, small: bool, attention: str, dtype: torch.dtype, lora: Sequence[str] = ()) -> LusiferModel:
    """A model with backbones in `dtype`; `lora` names those that train, and then the connector trains too."""
    config = LusiferConfig(**configs(small), num_soft_tokens=1, attn_implementation=attention)
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LusiferModel(config)
    finally:
        torch.set_default_dtype(torch.float32)
    for part in (model.connector, model.output_projection):
        part.float()
    adapters.freeze(model, {"connector": bool(lora), "output_projection": len(lora) > 1})
    for backbone in lora:
        backbones.cast_weights(getattr(model, backbone), dtype)
        adapters.attach(model, backbone, 16, 32)
    return model.to(device).train(bool(lora))


def flops(config: LusiferConfig, lengths: Sequence[int], target: int = 0) -> float:
    """Operations of the forward pass over real tokens; `target` more positions of the LLM a text, with its LM head."""
    e, d = config.encoder, config.llm
    wide = d.head_dim * d.num_key_value_heads
    heads = d.head_dim * d.num_attention_heads
    encoder = e.num_hidden_layers * (4 * e.hidden_size**2 + 2 * e.hidden_size * e.intermediate_size)
    llm = d.num_hidden_layers * (2 * d.hidden_size * (heads + wide) + 3 * d.hidden_size * d.intermediate_size)
    total = 0.0
    for n in lengths:
        m = n + 1 + target
        total += 2 * encoder * n + 4 * n * n * e.hidden_size * e.num_hidden_layers
        total += 2 * n * (e.hidden_size**2 + e.hidden_size * d.hidden_size)
        total += 2 * llm * m + 4 * m * m * heads * d.num_hidden_layers
        total += 2 * target * d.hidden_size * d.vocab_size
    return total


def batch(lengths: Sequence[int], words: int, device: str) -> dict[str, torch.Tensor]:
    """Random ids of these lengths, padded on the right."""
    chance = torch.Generator().manual_seed(0)
    ids = torch.randint(5, words, (len(lengths), max(lengths)), generator=chance)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": (ids * mask + (1 - mask)).to(device), "attention_mask": mask.to(device)}


def mixed(count: int, longest: int) -> list[int]:
    """Log-normal lengths, median 40, sorted as the library sorts texts."""
    chance = random.Random(0)
    return sorted(min(max(round(chance.lognormvariate(3.69, 0.9)), 5), longest) for _ in range(count))


class Unpadded:
    """A batch without padding: texts one behind the other in one row, attention within each.

    On a GPU torch's own kernel for rows of several lengths (`torch.nn.attention.varlen`); elsewhere text by text.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        AttentionInterface.register(UNPADDED, self.attend)

    def attend(
        self, module: nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        """Queries, keys and values (1, heads, T, size) -> (1, T, heads, size)."""
        again = q.shape[1] // k.shape[1]
        k, v = (part.repeat_interleave(again, dim=1) for part in (k, v))
        if q.is_cuda:
            from torch.nn.attention.varlen import varlen_attn

            ends = torch.tensor([0, *self.lengths], device=q.device).cumsum(0).int()
            q, k, v = (part[0].transpose(0, 1).contiguous() for part in (q, k, v))
            out = varlen_attn(q, k, v, ends, ends, max(self.lengths), max(self.lengths))
            return out[None], None
        texts = zip(*(part.split(self.lengths, dim=2) for part in (q, k, v)), strict=True)
        out = torch.cat([functional.scaled_dot_product_attention(*text) for text in texts], dim=2)
        return out.transpose(1, 2), None

    def embed(self, model: LusiferModel, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Vectors (B, d), as the model gives them for the padded batch."""
        ids, mask = features["input_ids"], features["attention_mask"].bool()
        lengths = self.lengths = mask.sum(1).tolist()
        first = (model.config.encoder.pad_token_id or 0) + 1
        places = torch.cat([torch.arange(first, first + n, device=ids.device) for n in lengths])[None]
        states = model.encoder(input_ids=ids[mask][None], position_ids=places, attention_mask=None).last_hidden_state
        words = model.connector.mapping(states.float(), torch.ones_like(places))[0][0].split(lengths)
        soft = model.connector.soft_tokens.to(words[0].dtype)
        packed = torch.cat([torch.cat([text, soft]) for text in words])[None]
        self.lengths = [n + len(soft) for n in lengths]
        places = torch.cat([torch.arange(n, device=ids.device) for n in self.lengths])[None]
        states = model.llm(
            inputs_embeds=packed.to(model.llm.dtype), position_ids=places, attention_mask=None, use_cache=False
        ).last_hidden_state[0]
        means = torch.stack([text.float().mean(0) for text in states.split(self.lengths)])
        return model.output_projection(means)
