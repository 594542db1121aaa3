"""Connectors: from the encoder's hidden states to what the LLM takes as input embeddings (paper section 3.2).

Every connector returns embeddings, mask and position ids together. Positions count real tokens only
(`cumsum(mask) - 1`): soft tokens stand behind the padding in memory, and without explicit positions their rotary
angle, hence the vector, would depend on the longest text of the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from lusifer.model.config import LusiferConfig
from lusifer.model.pooling import pool


class ConnectorOutput(NamedTuple):
    """What the LLM reads: `inputs_embeds` (B, L', d), `attention_mask` (B, L'), `position_ids` (B, L')."""

    inputs_embeds: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor


class FeedForward(nn.Module):
    """h -> h, ReLU, h -> d on each token: the published connector."""

    def __init__(self, config: LusiferConfig) -> None:
        super().__init__()
        h, d = config.encoder.hidden_size, config.llm.hidden_size
        self.ff = nn.Sequential(nn.Linear(h, h), nn.ReLU(), nn.Linear(h, d))

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, L, h) to (B, L, d); the mask (B, L) is handed on."""
        return self.ff(hidden_states), mask


class EmbeddingTable(nn.Module):
    """A distribution over the LLM's vocabulary for each token, times the LLM's embedding table (published code).

    `table` starts as a copy of the LLM's word embeddings (`build`), so the LLM reads mixtures of words it knows.
    """

    def __init__(self, config: LusiferConfig) -> None:
        super().__init__()
        self.vocabulary = nn.Linear(config.encoder.hidden_size, config.llm.vocab_size)
        self.table = nn.Parameter(torch.empty(config.llm.vocab_size, config.llm.hidden_size))

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, L, h) to (B, L, d); the mask (B, L) is handed on."""
        return torch.softmax(self.vocabulary(hidden_states), dim=-1) @ self.table, mask


class IdentityLinear(nn.Linear):
    """A linear map that starts as the identity; where it widens, what is beyond starts at 0."""

    def reset_parameters(self) -> None:
        """Start anew."""
        nn.init.eye_(self.weight)
        nn.init.zeros_(self.bias)


class MeanPath(nn.Module):
    """The mean of a text's states, brought to one scale, through a linear map that starts as the identity."""

    def __init__(self, h: int, d: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(h)
        self.map = IdentityLinear(h, d)

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (B, L, h) with its mask (B, L) to (B, d)."""
        return self.map(self.norm(pool(hidden_states, mask, "mean")))


class LatentAttention(nn.Module):
    """A fixed number of trained latents that read the text by cross-attention: the LLM sees `num_latents` positions.

    With `add_mean`, the mean of the encoder's states, brought to one scale, is added to every position by a linear map
    that starts as the identity: what the encoder knows of the whole text need not be learned to be read.
    """

    def __init__(self, config: LusiferConfig) -> None:
        super().__init__()
        h, d = config.encoder.hidden_size, config.llm.hidden_size
        settings = config.connector_kwargs
        self.latents = nn.Parameter(torch.empty(int(settings.get("num_latents", 128)), h))
        self.attention = nn.MultiheadAttention(h, int(settings.get("num_heads", 8)), batch_first=True)
        self.norm = nn.LayerNorm(h)
        self.ff = nn.Sequential(nn.Linear(h, h), nn.ReLU(), nn.Linear(h, d))
        self.mean = MeanPath(h, d) if settings.get("add_mean") else None

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, L, h) to (B, num_latents, d), every position real."""
        queries = self.latents.expand(hidden_states.shape[0], -1, -1)
        read, _ = self.attention(queries, hidden_states, hidden_states, key_padding_mask=mask == 0, need_weights=False)
        positions = self.ff(self.norm(queries + read))
        if self.mean is not None:
            positions = positions + self.mean(hidden_states, mask).unsqueeze(1)
        return positions, mask.new_ones(queries.shape[:2])


class Compress(nn.Module):
    """Every `factor` neighbouring states become one position: the LLM's work shrinks by that factor.

    States are laid side by side (padding as zeros, so the text alone decides), k*h -> h, ReLU, h -> d.
    """

    def __init__(self, config: LusiferConfig) -> None:
        super().__init__()
        h, d = config.encoder.hidden_size, config.llm.hidden_size
        self.factor = int(config.connector_kwargs.get("factor", 4))
        if self.factor < 1:
            raise ValueError(f"connector factor={self.factor} must be 1 or more")
        self.ff = nn.Sequential(nn.Linear(self.factor * h, h), nn.ReLU(), nn.Linear(h, d))

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, L, h) to (B, ceil(L / factor), d); a position is real when one of its states is."""
        missing = -hidden_states.shape[1] % self.factor
        states = nn.functional.pad(hidden_states * mask.unsqueeze(-1).to(hidden_states.dtype), (0, 0, 0, missing))
        mask = nn.functional.pad(mask, (0, missing))
        states = states.unflatten(1, (-1, self.factor)).flatten(2)
        return self.ff(states), mask.unflatten(1, (-1, self.factor)).amax(-1)


_CONNECTORS = {
    "ff": FeedForward,
    "embedding_table": EmbeddingTable,
    "latent_attention": LatentAttention,
    "compress": Compress,
}


class Connector(nn.Module):
    """A mapping of states, then the soft tokens, then mask and positions."""

    def __init__(self, config: LusiferConfig) -> None:
        super().__init__()
        self.mapping = _CONNECTORS[config.connector_type](config)
        self.count_padding = config.soft_token_position == "padding"
        self.soft_tokens = None
        if config.num_soft_tokens:
            self.soft_tokens = nn.Parameter(torch.empty(config.num_soft_tokens, config.llm.hidden_size))

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> ConnectorOutput:
        """Map the encoder's states to the LLM's input.

        Args:
            hidden_states: (B, L, h), the encoder's last layer.
            attention_mask: (B, L), 1 for a real token.

        Returns:
            Embeddings (B, L', d) with mask and position ids (B, L').
        """
        embeds, mask = self.mapping(hidden_states, attention_mask)
        if self.soft_tokens is not None:
            batch = embeds.shape[0]
            soft = self.soft_tokens.to(embeds.dtype).expand(batch, -1, -1)
            embeds = torch.cat([embeds, soft], dim=1)
            mask = torch.cat([mask, mask.new_ones(soft.shape[:2])], dim=1)
        counted = torch.ones_like(mask) if self.count_padding else mask
        return ConnectorOutput(embeds, mask, positions(counted))


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position ids (B, L) that count the ones of `mask` (B, L); masked places get a neighbour's, never below 0."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)
