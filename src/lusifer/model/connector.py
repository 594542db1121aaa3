"""Connectors map the encoder's hidden states to the LLM's input embeddings (paper section 3.2).

A connector is a subclass of `BaseConnector`. It defines its name and settings (`Settings`), its description for a model
card, its initialization and its number of positions. `register` makes it available in recipes, configurations and model
folders.

`Connector` returns embeddings, mask and position ids. Positions count real tokens only (`cumsum(mask) - 1`): soft
tokens follow the padding in memory, and without explicit positions their rotary angle, and so the vector, would depend
on the longest text of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import nn

from lusifer.extras import qualified
from lusifer.model.connector_settings import (
    SETTINGS,
    ConnectorSettings,
    EmbeddingTableSettings,
    FeedForwardSettings,
    LatentAttentionSettings,
    MLPSettings,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from lusifer.model.words import Moments


class BaseConnector(nn.Module):
    """Base class of connectors, which map the encoder's hidden states to input embeddings of the LLM.

    Args:
        config: A `LusiferConfig`. `config.encoder.hidden_size` is h, `config.llm.hidden_size` is d.
        settings: An object of this class's `Settings`.
    """

    Settings: ClassVar[type[ConnectorSettings]]
    words: ClassVar[str]
    """The name of the connector in a model card."""

    def __init__(self, config: PreTrainedConfig, settings: Any) -> None:
        super().__init__()

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map hidden states to input embeddings of the LLM.

        Args:
            hidden_states: The encoder's last hidden states (B, L, h).
            mask: 1 for a token, 0 for padding (B, L).

        Returns:
            Embeddings (B, L', d) and their mask (B, L').
        """
        raise NotImplementedError

    def init_weights(self) -> None:
        """Initialize the parameters that are in no layer of torch; layers initialize themselves."""

    def start_from(self, llm: nn.Module) -> None:
        """Copy what the connector needs from the LLM; called once, when a model is built from two bases."""

    @property
    def needs_words(self) -> bool:
        """Whether `start_from_words` must be called before training."""
        return False

    def start_from_words(self, moments: Moments) -> None:
        """Start as a map to the LLM's word embeddings, from statistics of both models (`model/words.py`)."""

    @classmethod
    def describe(cls, kwargs: Mapping[str, Any]) -> str:
        """Describe the connector for a model card, with its settings from `LusiferConfig.connector_kwargs`."""
        return ", ".join([cls.words, *(f"{key.removeprefix('num_')} {value}" for key, value in kwargs.items())])

    @staticmethod
    def positions(settings: Any, tokens: int) -> int:
        """The number of the LLM's positions that a text takes, without soft tokens.

        Args:
            settings: An object of this class's `Settings`.
            tokens: The number of the encoder's tokens.
        """
        return tokens


CONNECTORS: dict[str, type[BaseConnector]] = {}
"""Name -> class of every registered connector."""
Class = TypeVar("Class", bound=type[BaseConnector])


def register(connector: Class) -> Class:
    """Register a connector under the name in its settings. It can be used as a class decorator.

    Raises:
        ValueError: `type` has no default in the settings, or another class has the name.
    """
    name = connector.Settings.model_fields["type"].default
    if not isinstance(name, str):
        raise ValueError(f'{connector.__name__}.Settings: type has no name, write type: Literal["mine"] = "mine"')
    known = CONNECTORS.get(name, connector)
    if qualified(known) != qualified(connector):
        raise ValueError(f"connector {name!r}: {qualified(known)} has this name already: choose another")
    CONNECTORS[name], SETTINGS[name] = connector, connector.Settings
    return connector


class ConnectorOutput(NamedTuple):
    """The LLM's input: `inputs_embeds` (B, L', d), `attention_mask` (B, L'), `position_ids` (B, L')."""

    inputs_embeds: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor


@register
class FeedForward(BaseConnector):
    """h -> h, ReLU, h -> d on each token; the published connector."""

    words = "feed-forward"
    Settings = FeedForwardSettings

    def __init__(self, config: PreTrainedConfig, settings: Any) -> None:
        super().__init__(config, settings)
        h, d = config.encoder.hidden_size, config.llm.hidden_size
        self.ff = nn.Sequential(nn.Linear(h, h), nn.ReLU(), nn.Linear(h, d))

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, L, h) to (B, L, d); the mask (B, L) is handed on."""
        return self.ff(hidden_states), mask


class Scale(nn.Module):
    """A trainable scale and shift of each dimension of a hidden state."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(h)), nn.Parameter(torch.zeros(h))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Scale and shift states (..., h)."""
        return states * self.weight + self.bias


@register
class MLP(BaseConnector):
    """x + MLP(norm(x)) on each token, where x is the normalized hidden state, then a linear map h -> d.

    This is the block of a pre-norm transformer. Unlike `ff`, it has a residual path (docs/experiments.md). Without
    `start_from_words`, x comes from a layer norm. With it, each dimension is standardized by the mean and deviation
    over many tokens, because the hidden states of upper layers share a large mean, which a layer norm keeps. The
    connector then starts as the linear map to the LLM's word embeddings.
    """

    words = "pre-norm MLP"
    Settings = MLPSettings

    def __init__(self, config: PreTrainedConfig, settings: Any) -> None:
        super().__init__(config, settings)
        h, d = config.encoder.hidden_size, config.llm.hidden_size
        wide = settings.expansion * h
        self.norm = Scale(h) if settings.start_from_words else nn.LayerNorm(h)
        self.block = nn.Sequential(nn.LayerNorm(h), nn.Linear(h, wide), nn.GELU(), nn.Linear(wide, h))
        self.out = nn.Linear(h, d)

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, L, h) to (B, L, d); the mask (B, L) is handed on."""
        states = self.norm(hidden_states)
        return self.out(states + self.block(states)), mask

    def init_weights(self) -> None:
        """Start the scale as the identity; `start_from_words` replaces it."""
        if isinstance(self.norm, Scale):
            self.norm.weight.fill_(1.0)
            self.norm.bias.zero_()

    @property
    def needs_words(self) -> bool:
        """Whether the settings have `start_from_words`."""
        return isinstance(self.norm, Scale)

    @torch.no_grad()
    def start_from_words(self, moments: Moments) -> None:
        """Start as the linear map to the LLM's word embeddings; the MLP block starts at zero."""
        scale = moments.deviation.clamp(min=1e-3).reciprocal()
        self.norm.weight.copy_(scale)
        self.norm.bias.copy_(-moments.mean * scale)
        nn.init.zeros_(self.block[-1].weight)
        nn.init.zeros_(self.block[-1].bias)
        self.out.weight.copy_(moments.map(scale).T)
        self.out.bias.copy_(moments.word_mean)


@register
class EmbeddingTable(BaseConnector):
    """A softmax over the LLM's vocabulary for each token, times an embedding table (published code).

    The trainable `table` starts as a copy of the LLM's word embeddings, so the LLM reads mixtures of them.
    """

    words = "mixture of the LLM's word embeddings"
    Settings = EmbeddingTableSettings

    def __init__(self, config: PreTrainedConfig, settings: Any) -> None:
        super().__init__(config, settings)
        self.vocabulary = nn.Linear(config.encoder.hidden_size, config.llm.vocab_size)
        self.table = nn.Parameter(torch.empty(config.llm.vocab_size, config.llm.hidden_size))

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, L, h) to (B, L, d); the mask (B, L) is handed on."""
        return torch.softmax(self.vocabulary(hidden_states), dim=-1) @ self.table, mask

    def init_weights(self) -> None:
        """Initialize the table at the scale of word embeddings."""
        self.table.normal_(std=0.02)

    @torch.no_grad()
    def start_from(self, llm: nn.Module) -> None:
        """Copy the LLM's word embeddings into the table."""
        self.table.copy_(llm.get_input_embeddings()(torch.arange(len(self.table), device=llm.device)))


@register
class LatentAttention(BaseConnector):
    """Trainable latents that read the text by cross-attention; the LLM always reads `num_latents` positions."""

    words = "latent attention"
    Settings = LatentAttentionSettings

    def __init__(self, config: PreTrainedConfig, settings: Any) -> None:
        super().__init__(config, settings)
        h, d = config.encoder.hidden_size, config.llm.hidden_size
        self.latents = nn.Parameter(torch.empty(settings.num_latents, h))
        self.attention = nn.MultiheadAttention(h, settings.num_heads, batch_first=True)
        self.norm = nn.LayerNorm(h)
        self.ff = nn.Sequential(nn.Linear(h, h), nn.ReLU(), nn.Linear(h, d))

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, L, h) with its mask (B, L) to (B, num_latents, d) with a mask of ones."""
        queries = self.latents.expand(hidden_states.shape[0], -1, -1)
        # `key_padding_mask` gives the same to the bit, but torch checks its shape by importing sympy (a second).
        padding = (mask == 0)[:, None, None].expand(-1, self.attention.num_heads, queries.shape[1], -1).flatten(0, 1)
        read, _ = self.attention(queries, hidden_states, hidden_states, attn_mask=padding, need_weights=False)
        return self.ff(self.norm(queries + read)), mask.new_ones(queries.shape[:2])

    def init_weights(self) -> None:
        """Initialize the latents at the scale of word embeddings."""
        self.latents.normal_(std=0.02)

    @staticmethod
    def positions(settings: Any, tokens: int) -> int:
        """One position for each latent, for a text of any length."""
        return settings.num_latents


class Connector(nn.Module):
    """The connector module of a model: the registered mapping, the soft tokens, the mask and the position ids."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.mapping = CONNECTORS[config.connector_type](config, config.connector_settings)
        self.count_padding = config.soft_token_position == "padding"
        self.soft_tokens = None
        if config.num_soft_tokens:
            self.soft_tokens = nn.Parameter(torch.empty(config.num_soft_tokens, config.llm.hidden_size))

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> ConnectorOutput:
        """Map the encoder's last hidden states (B, L, h) and mask (B, L) to the LLM's input, L' positions a text."""
        embeds, mask = self.mapping(hidden_states, attention_mask)
        if self.soft_tokens is not None:
            batch = embeds.shape[0]
            soft = self.soft_tokens.to(embeds.dtype).expand(batch, -1, -1)
            embeds = torch.cat([embeds, soft], dim=1)
            mask = torch.cat([mask, mask.new_ones(soft.shape[:2])], dim=1)
        counted = torch.ones_like(mask) if self.count_padding else mask
        return ConnectorOutput(embeds, mask, positions(counted))


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position ids (B, L) that count the ones of `mask` (B, L); a masked place gets the id before it, at least 0."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)
