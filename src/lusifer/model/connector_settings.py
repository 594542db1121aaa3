"""The settings of connectors in recipes.

They are not in `connector.py`, which imports torch: so a mistake in a recipe is reported at once.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class ConnectorSettings(BaseModel):
    """Base class of connector settings. A subclass gives `type` a default and adds settings, each with a default."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    type: str
    """Name of the connector."""
    num_soft_tokens: int = Field(default=0, ge=0, le=64)
    """Trained embeddings that follow the text in the LLM's input."""

    def kwargs(self) -> dict[str, Any]:
        """Return the settings as `LusiferConfig.connector_kwargs`, without a switch that is off, the default."""
        own = self.model_dump(exclude={"type", "num_soft_tokens"})
        fields = type(self).model_fields
        return {key: value for key, value in own.items() if value is not False or fields[key].default is not False}


class FeedForwardSettings(ConnectorSettings):
    """`ff`, the published connector: h -> h, ReLU, h -> d on each token."""

    type: Literal["ff"] = "ff"
    num_soft_tokens: int = Field(default=1, ge=0, le=64)
    """Trained embeddings that follow the text in the LLM's input."""


class MLPSettings(ConnectorSettings):
    """`mlp`: the hidden state plus an MLP of it, on each token, then a linear map h -> d."""

    type: Literal["mlp"] = "mlp"
    num_soft_tokens: int = Field(default=1, ge=0, le=64)
    """Trained embeddings that follow the text in the LLM's input."""
    expansion: int = Field(default=4, ge=1, le=64)
    """Size of the hidden layer, as a multiple of the encoder's hidden size."""
    start_from_words: bool = False
    """Start from a linear map instead of random weights. It maps the encoder's hidden states to the LLM's own
    embeddings of the same words, and is fitted to the first texts of the run. The same vectors then need fewer steps,
    above all with upper layers."""


class EmbeddingTableSettings(ConnectorSettings):
    """`embedding_table`: a distribution over the LLM's vocabulary for each token, times the LLM's embedding table."""

    type: Literal["embedding_table"] = "embedding_table"


class LatentAttentionSettings(ConnectorSettings):
    """`latent_attention`: a fixed number of trained latents that read the text by cross-attention."""

    type: Literal["latent_attention"] = "latent_attention"
    num_latents: int = Field(default=128, ge=1)
    """Positions that the LLM reads, for a text of any length. Lower it for speed with long texts."""
    num_heads: int = Field(default=8, ge=1)
    """Attention heads; must divide the encoder's hidden size."""


SETTINGS: dict[str, type[ConnectorSettings]] = {
    "ff": FeedForwardSettings,
    "mlp": MLPSettings,
    "embedding_table": EmbeddingTableSettings,
    "latent_attention": LatentAttentionSettings,
}
"""Name -> settings of every connector; `connector.register` adds to it."""


def registered_settings() -> Any:
    """The type of `model.connector` in a recipe: the settings of any registered connector, chosen by `type`.

    Settings without a type are those of the published connector, `ff`.
    """
    kinds = Union[tuple(SETTINGS.values())]  # noqa: UP007
    return Annotated[Annotated[kinds, Field(discriminator="type")], BeforeValidator(_typed)]


def _typed(value: Any) -> Any:
    """Check the type of the settings; a missing type is `ff`."""
    if isinstance(value, ConnectorSettings):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping such as {{type: ff}}, found {value!r}")
    kind = value.get("type", "ff")
    if not isinstance(kind, str) or kind not in SETTINGS:
        near = difflib.get_close_matches(str(kind), SETTINGS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(SETTINGS)}"
        raise ValueError(f"type: unknown connector {kind!r}: {hint}")
    return {"type": "ff", **value}
