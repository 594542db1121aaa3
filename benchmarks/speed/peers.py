"""What a user would run otherwise, on the same weights.

A chain of modules in sentence-transformers, and settings that reproduce what the code of the authors computes: written
anew from a description of it, nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from medium import LONGEST
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import nn
from transformers import AutoModelForCausalLM

from lusifer.model import adapters
from lusifer.model.lusifer import LusiferModel

Make = Callable[..., LusiferModel]
"""`medium.adapted`, or what a case puts in its place: folder and the bases already loaded -> the model."""


class Rest(nn.Module):
    """Connector, LLM, mean and projection as the second module of a chain, in the plainest words."""

    def __init__(self, model: LusiferModel) -> None:
        super().__init__()
        self.connector, self.soft = model.connector.mapping, model.connector.soft_tokens
        self.llm, self.projection = model.llm, model.output_projection

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Token embeddings of the encoder -> sentence embedding."""
        states, mask = features["token_embeddings"], features["attention_mask"]
        embeds, mask = self.connector(states, mask)
        soft = self.soft.expand(len(embeds), -1, -1)
        embeds, mask = torch.cat([embeds, soft], 1), torch.cat([mask, mask.new_ones(soft.shape[:2])], 1)
        places = (mask.cumsum(1) - 1).clamp(min=0)
        states = self.llm(inputs_embeds=embeds, attention_mask=mask, position_ids=places).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        mean = (states * weights).sum(1) / weights.sum(1)
        return features | {"sentence_embedding": self.projection(mean)}


def chain(folder: Path, make: Make, merged: bool, longest: int = LONGEST) -> SentenceTransformer:
    """The obvious pipeline: the library's module for the encoder, then the rest, then length 1."""
    first = Transformer(str(folder / "encoder"), model_kwargs={"add_pooling_layer": False}, max_seq_length=longest)
    model = make(folder, encoder=first.model)
    if merged:
        adapters.merge(model)
    return SentenceTransformer(modules=[first, Rest(model), Normalize()], device="cpu")


class Published(nn.Module):
    """The authors' way: all hidden states kept, logits of every position in float32, adapters unmerged."""

    def __init__(self, folder: Path, make: Make) -> None:
        super().__init__()
        self.full = AutoModelForCausalLM.from_pretrained(folder / "llm").requires_grad_(False)
        self.model = make(folder, body=self.full.model)

    def prompt(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the LLM reads, (B, L + 1, d), and its mask; positions count the padding."""
        states = self.model.encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
        embeds, mask = self.model.connector.mapping(states, mask)
        soft = self.model.connector.soft_tokens.expand(len(embeds), -1, -1)
        return torch.cat([embeds, soft], 1), torch.cat([mask, mask.new_ones(soft.shape[:2])], 1)

    def embed(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Vectors (B, d) of length 1."""
        embeds, mask = self.prompt(ids, mask)
        out = self.full(inputs_embeds=embeds, attention_mask=mask, output_hidden_states=True, use_cache=False)
        out.logits.float()
        weights = mask.unsqueeze(-1).float()
        mean = (out.hidden_states[-1] * weights).sum(1) / weights.sum(1)
        return nn.functional.normalize(self.model.output_projection(mean), dim=-1)

    @torch.no_grad()
    def encode(self, tokenizer: object, texts: list[str], batch: int = 32, multiple: int = 8) -> np.ndarray:
        """Texts in their order, each tokenised alone and twice, batches padded to a multiple of some tokens."""
        ids = [tokenizer(text, truncation=True)["input_ids"] for text in texts for _ in range(2)][::2]
        parts = []
        for start in range(0, len(ids), batch):
            part = {"input_ids": ids[start : start + batch]}
            rows = tokenizer.pad(part, pad_to_multiple_of=multiple, return_tensors="pt")
            parts.append(self.embed(rows["input_ids"], rows["attention_mask"]).numpy())
        return np.concatenate(parts)

    def align(self, ids: torch.Tensor, mask: torch.Tensor, target: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The alignment loss with logits over every position and attention in both directions."""
        embeds, mask = self.prompt(ids, mask)
        embeds = torch.cat([embeds, self.full.get_input_embeddings()(target)], 1)
        full = torch.cat([mask, torch.ones_like(target)], 1)
        nothing = labels.new_full(mask.shape, -100)
        out = self.full(inputs_embeds=embeds, attention_mask=full, output_hidden_states=True, use_cache=False)
        logits = out.logits.float()
        wanted = torch.cat([nothing, labels], 1)[:, 1:]
        return nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), wanted.reshape(-1))
