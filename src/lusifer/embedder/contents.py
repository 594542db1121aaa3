"""What an embedder in memory is made of, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from lusifer.embedder.assemble import lusifer_model
from lusifer.model import adapters
from lusifer.model.config import LusiferConfig
from lusifer.model.connector import CONNECTORS
from lusifer.model.lusifer import LusiferModel

NAMES = {"llm": "LLM", "output_projection": "output projection"}
POOLINGS = {
    "mean": "mean of the LLM's last states",
    "weightedmean": "mean of the LLM's last states, later positions weighing more",
    "cls": "the LLM's last state at the first position",
    "lasttoken": "the LLM's last state at the last position",
}


@dataclass(frozen=True)
class Part:
    """One part of the model: `dtype` is that of its weights."""

    name: str
    what: str
    parameters: int
    dtype: str


@dataclass(frozen=True)
class Contents:
    """Parts in the order that a text goes through them, and what the vectors are like."""

    parts: tuple[Part, ...]
    attention: str
    pooling: str
    dimension: int
    max_tokens: int
    normalized: bool
    similarity: str
    prompts: Mapping[str, str]
    default_prompt: str | None


def read(embedder: SentenceTransformer, bases: Mapping[str, str]) -> Contents:
    """Look at an embedder whose adapters are merged.

    Args:
        embedder: As `assemble` or `folder.load` gives it.
        bases: What to call the two bases, by "encoder" and "llm", in Markdown.
    """
    model = lusifer_model(embedder)
    config = model.config
    words = _words(config, bases)
    parts = [
        Part(NAMES.get(row.part, row.part), words[row.part], row.parameters, _dtype(model, row.part))
        for row in adapters.report(model)
        if row.parameters
    ]
    return Contents(
        parts=tuple(parts),
        attention="attending in both directions" if config.bidirectional else "attending to what stands before",
        pooling=POOLINGS[config.pooling]
        + ("" if config.include_prompt else ", those of the prompt left out")
        + (", and what it read, pooled likewise, added" if config.residual else ""),
        dimension=embedder.get_embedding_dimension(),
        max_tokens=embedder.max_seq_length,
        normalized=any(isinstance(module, Normalize) for module in embedder),
        similarity=f"{embedder.similarity_fn_name} similarity",
        prompts=dict(embedder.prompts),
        default_prompt=embedder.default_prompt_name,
    )


def _words(config: LusiferConfig, bases: Mapping[str, str]) -> dict[str, str]:
    """Each part in a few words."""
    towers = {
        tower: f"{bases[tower]} ({side.model_type}), states of {side.hidden_size}"
        for tower, side in (("encoder", config.encoder), ("llm", config.llm))
    }
    projection = f"{config.hidden_size} to {config.hidden_size}, ReLU, {config.hidden_size}; after the pooling"
    kind = CONNECTORS[config.connector_type].describe(config.connector_kwargs)
    connector = f"{kind}, {config.num_soft_tokens} soft token{'' if config.num_soft_tokens == 1 else 's'}"
    return towers | {"connector": connector, "output_projection": projection}


def _dtype(model: LusiferModel, part: str) -> str:
    """The dtypes of a part's weights, mostly one."""
    found = {str(p.dtype).removeprefix("torch.") for p in getattr(model, part).parameters()}
    return ", ".join(sorted(found))
