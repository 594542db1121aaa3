"""A LUSIFER model and its tokenizer as a `SentenceTransformer`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import nn
from transformers import PreTrainedTokenizerBase

from lusifer.embedder.contents import MODALITY_CONFIG, MODULE_OUTPUT_NAME
from lusifer.errors import UsageError
from lusifer.model.build import Base, read_backbone, read_tokenizer
from lusifer.model.lusifer import LusiferModel


def assemble(
    model: LusiferModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompts: dict[str, str] | None = None,
    max_seq_length: int | None = None,
    normalize: bool = True,
) -> SentenceTransformer:
    """Wrap a model in memory; nothing is copied.

    Args:
        model: The composite model; the embedder is on its device.
        tokenizer: The encoder's tokenizer.
        prompts: Prompt name -> prefix, saved with the model; "query" and "document" are used by `encode_query` and
            `encode_document`.
        max_seq_length: Most tokens a text, special tokens included; None takes what the backbones allow.
        normalize: Whether vectors get length 1.

    Raises:
        UsageError: `max_seq_length` is more than the backbones have positions for.
    """
    limit = model.config.max_position_embeddings
    if max_seq_length is not None and max_seq_length > limit:
        raise UsageError(f"max_length: {max_seq_length} is more than the {limit} tokens that the backbones can read")
    tokenizer.model_max_length = max_seq_length or limit
    settings = {"modality_config": MODALITY_CONFIG, "module_output_name": MODULE_OUTPUT_NAME}
    transformer = _transformer(model, tokenizer, **settings)
    modules = [transformer, Normalize()] if normalize else [transformer]
    return SentenceTransformer(modules=modules, prompts=prompts, device=str(model.device))


def packed(file: Path, device: str | None, dtype: str | None, attn_implementation: str | None) -> SentenceTransformer:
    """Load an E5 model from its packed file: the mean of its states, length 1, "query: " and "passage: ".

    These words belong to the model (Wang et al. 2024, arXiv 2402.05672): no text goes without one of them.

    Raises:
        LusiferError: The file is damaged.
    """
    base = Base(str(file), dtype=getattr(torch, dtype or "float32"))
    model = read_backbone(base, "encoder", attn_implementation).eval()
    tokenizer = read_tokenizer(str(file))
    tokenizer.model_max_length = model.config.max_position_embeddings
    pooling = Pooling(model.config.hidden_size, pooling_mode="mean")
    return SentenceTransformer(
        modules=[_transformer(model, tokenizer), pooling, Normalize()],
        prompts={"query": "query: ", "document": "passage: "},
        default_prompt_name="query",
        device=device,
    )


def _transformer(model: nn.Module, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> Transformer:
    """The library's module around a model that is in memory."""

    class InMemory(Transformer):
        """The library's module, given its model instead of loading one."""

        def _load_model(self, *args: Any, **kwargs: Any) -> nn.Module:
            return model

    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        transformer = InMemory(folder, **settings)
    # From here on an ordinary module: its class is what `modules.json` names.
    transformer.__class__ = Transformer
    return transformer


def lusifer_model(embedder: SentenceTransformer) -> LusiferModel:
    """The composite model inside an embedder.

    Raises:
        UsageError: The embedder is of another kind.
    """
    model = getattr(embedder[0], "model", None)
    if not isinstance(model, LusiferModel):
        raise UsageError(f"this is no LUSIFER model but {type(model).__name__}")
    return model
