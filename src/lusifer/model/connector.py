"""Connectors: from the encoder's hidden states to what the LLM takes as input embeddings (paper section 3.2).

A connector is one class, a subclass of `BaseConnector`, that owns all there is to know about it: its name and settings
(`Settings`), its words for a model card, how it starts, and how many positions it gives. `register` makes it known to
recipes, configurations and model folders alike.

Every connector returns embeddings, mask and position ids together. Positions count real tokens only
(`cumsum(mask) - 1`): soft tokens stand behind the padding in memory, and without explicit positions their rotary
angle, hence the vector, would depend on the longest text of the batch.
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
    """Base class of connectors: maps the encoder's states to embeddings for the LLM.

    Args:
        config: A `LusiferConfig`; `config.encoder.hidden_size` is h, `config.llm.hidden_size` is d.
        settings: An object of this class's `Settings`.
    """

    Settings: ClassVar[type[ConnectorSettings]]
    words: ClassVar[str]
    """What a model card calls the connector."""

    def __init__(self, config: PreTrainedConfig, settings: Any) -> None:
        super().__init__()

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, L, h) with its mask (B, L) to (B, L', d) with its mask (B, L')."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Draw the parameters that belong to no layer of torch; layers initialise themselves."""

    def start_from(self, llm: nn.Module) -> None:
        """Take what the connector needs from the LLM, once, when a model is built from two bases."""

    @property
    def needs_words(self) -> bool:
        """Whether it wants `start_from_words` to be called before anything trains."""
        return False

    def start_from_words(self, moments: Moments) -> None:
        """Start near the LLM's word embeddings, from how the encoder's states go with them (`model/words.py`)."""

    @classmethod
    def describe(cls, kwargs: Mapping[str, Any]) -> str:
        """The connector in a few words, for a model card, from `LusiferConfig.connector_kwargs`."""
        return ", ".join([cls.words, *(f"{key.removeprefix('num_')} {value}" for key, value in kwargs.items())])

    @staticmethod
    def positions(settings: Any, tokens: int) -> int:
        """How many positions of the LLM a text of so many tokens takes, soft tokens not counted."""
        return tokens


CONNECTORS: dict[str, type[BaseConnector]] = {}
"""Name -> class of every registered connector."""
Class = TypeVar("Class", bound=type[BaseConnector])


def register(connector: Class) -> Class:
    """Make a connector known by the name in its settings; also serves as a decorator.

    Raises:
        ValueError: The settings give `type` no default, or another class has the name.
    """
    name = connector.Settings.model_fields["type"].default
    if not isinstance(name, str):
        raise ValueError(f'{connector.__name__}.Settings: give type its name, as in type: Literal["mine"] = "mine"')
    known = CONNECTORS.get(name, connector)
    if qualified(known) != qualified(connector):
        raise ValueError(f"connector {name!r}: {qualified(known)} has this name already: choose another")
    CONNECTORS[name], SETTINGS[name] = connector, connector.Settings
    return connector


class ConnectorOutput(NamedTuple):
    """What the LLM reads: `inputs_embeds` (B, L', d), `attention_mask` (B, L'), `position_ids` (B, L')."""

    inputs_embeds: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor


@register
class FeedForward(BaseConnector):
    """h -> h, ReLU, h -> d on each token: the published connector."""

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
    """Each dimension of a state times a number plus another one."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(h)), nn.Parameter(torch.zeros(h))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Map (..., h) to (..., h)."""
        return states * self.weight + self.bias


@register
class MLP(BaseConnector):
    """x + MLP(norm(x)) on each token, x the state brought to one scale, then a linear map h -> d.

    The block of a pre-norm transformer: unlike `ff` it hands the state itself on (docs/experiments.md). With
    `start_from_words` x is the state less its mean, by its deviation, and the whole starts as the linear map from
    there to the LLM's word embeddings: the upper layers of an encoder share a large mean, which a norm over each token
    keeps, and what the LLM can read need not be found by its gradients.
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
        """Hand states on as they are, until words say better."""
        if isinstance(self.norm, Scale):
            self.norm.weight.fill_(1.0)
            self.norm.bias.zero_()

    @property
    def needs_words(self) -> bool:
        """Whether the recipe says so."""
        return isinstance(self.norm, Scale)

    @torch.no_grad()
    def start_from_words(self, moments: Moments) -> None:
        """Start as the linear map to the LLM's word embeddings; the block adds nothing yet."""
        scale = moments.deviation.clamp(min=1e-3).reciprocal()
        self.norm.weight.copy_(scale)
        self.norm.bias.copy_(-moments.mean * scale)
        nn.init.zeros_(self.block[-1].weight)
        nn.init.zeros_(self.block[-1].bias)
        self.out.weight.copy_(moments.map(scale).T)
        self.out.bias.copy_(moments.word_mean)


@register
class EmbeddingTable(BaseConnector):
    """A distribution over the LLM's vocabulary for each token, times the LLM's embedding table (published code).

    `table` starts as a copy of the LLM's word embeddings, so the LLM reads mixtures of words it knows.
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
        """Draw the table at the scale of word embeddings."""
        self.table.normal_(std=0.02)

    @torch.no_grad()
    def start_from(self, llm: nn.Module) -> None:
        """Copy the word embeddings."""
        self.table.copy_(llm.get_input_embeddings()(torch.arange(len(self.table), device=llm.device)))


@register
class LatentAttention(BaseConnector):
    """A fixed number of trained latents that read the text by cross-attention: the LLM sees `num_latents` positions."""

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
        """Map (B, L, h) to (B, num_latents, d), every position real."""
        queries = self.latents.expand(hidden_states.shape[0], -1, -1)
        # Not as `key_padding_mask`, which is the same to the bit: torch checks its shape by importing sympy, a second.
        padding = (mask == 0)[:, None, None].expand(-1, self.attention.num_heads, queries.shape[1], -1).flatten(0, 1)
        read, _ = self.attention(queries, hidden_states, hidden_states, attn_mask=padding, need_weights=False)
        return self.ff(self.norm(queries + read)), mask.new_ones(queries.shape[:2])

    def init_weights(self) -> None:
        """Draw the latents at the scale of word embeddings."""
        self.latents.normal_(std=0.02)

    @staticmethod
    def positions(settings: Any, tokens: int) -> int:
        """One for each latent."""
        return settings.num_latents


class Connector(nn.Module):
    """A mapping of states, then the soft tokens, then mask and positions."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.mapping = CONNECTORS[config.connector_type](config, config.connector_settings)
        self.count_padding = config.soft_token_position == "padding"
        self.soft_tokens = None
        if config.num_soft_tokens:
            self.soft_tokens = nn.Parameter(torch.empty(config.num_soft_tokens, config.llm.hidden_size))

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> ConnectorOutput:
        """Map the encoder's last states (B, L, h) and mask (B, L) to the LLM's input (B, L', d)."""
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
