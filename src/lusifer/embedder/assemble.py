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
    """Wrap a model that is in memory, without copying it.

    Args:
        model: The LUSIFER model. The embedder is on its device.
        tokenizer: The encoder's tokenizer. Its `model_max_length` is set.
        prompts: Prompt name -> prefix, saved with the model. `encode_query` uses "query" and `encode_document`
            "document".
        max_seq_length: The maximum number of tokens of a text, special tokens included. None takes the limit of the
            backbones.
        normalize: Whether to scale vectors to length 1.

    Raises:
        UsageError: `max_seq_length` is larger than the limit of the backbones.
    """
    limit = model.config.max_position_embeddings
    if max_seq_length is not None and max_seq_length > limit:
        raise UsageError(f"max_length: {max_seq_length} is too large: the backbones read at most {limit} tokens")
    tokenizer.model_max_length = max_seq_length or limit
    settings = {"modality_config": MODALITY_CONFIG, "module_output_name": MODULE_OUTPUT_NAME}
    transformer = _transformer(model, tokenizer, **settings)
    modules = [transformer, Normalize()] if normalize else [transformer]
    return SentenceTransformer(modules=modules, prompts=prompts, device=str(model.device))


def packed(file: Path, device: str | None, dtype: str | None, attn_implementation: str | None) -> SentenceTransformer:
    """Load an E5 model from its packed file, with mean pooling and vectors of length 1.

    E5 was trained with the prefixes "query: " and "passage: " (Wang et al. 2024, arXiv 2402.05672). They are set as
    the prompts; without a prompt name a text gets "query: ".

    Args:
        file: The packed file.
        device: Where to put the model. None takes the best device of the machine.
        dtype: The dtype of the weights, such as "bfloat16". None is float32.
        attn_implementation: "sdpa" or "eager". None leaves it to transformers.

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
    """Make the sentence-transformers module of a model that is in memory."""

    class InMemory(Transformer):
        """A `Transformer` that takes its model from memory instead of loading it."""

        def _load_model(self, *args: Any, **kwargs: Any) -> nn.Module:
            return model

    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        transformer = InMemory(folder, **settings)
    # sentence-transformers writes the class of a module to `modules.json`.
    transformer.__class__ = Transformer
    return transformer


def lusifer_model(embedder: SentenceTransformer) -> LusiferModel:
    """Return the LUSIFER model inside an embedder.

    Raises:
        UsageError: The embedder holds another kind of model.
    """
    model = getattr(embedder[0], "model", None)
    if not isinstance(model, LusiferModel):
        raise UsageError(f"expected a LUSIFER model, found {type(model).__name__}: give a model of this library")
    return model
