"""A LUSIFER model and its tokenizer as a `SentenceTransformer`."""

from __future__ import annotations

import tempfile
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize
from transformers import PreTrainedTokenizerBase

from lusifer.embedder.contents import MODALITY_CONFIG, MODULE_OUTPUT_NAME
from lusifer.errors import UsageError
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

    class InMemory(Transformer):
        """The library's module, given its model instead of loading one."""

        def _load_model(self, *args: Any, **kwargs: Any) -> LusiferModel:
            return model

    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        transformer = InMemory(folder, modality_config=MODALITY_CONFIG, module_output_name=MODULE_OUTPUT_NAME)
    # From here on an ordinary module: its class is what `modules.json` names.
    transformer.__class__ = Transformer
    modules = [transformer, Normalize()] if normalize else [transformer]
    return SentenceTransformer(modules=modules, prompts=prompts, device=str(model.device))


def lusifer_model(embedder: SentenceTransformer) -> LusiferModel:
    """The composite model inside an embedder.

    Raises:
        UsageError: The embedder is of another kind.
    """
    model = getattr(embedder[0], "model", None)
    if not isinstance(model, LusiferModel):
        raise UsageError(f"this is no LUSIFER model but {type(model).__name__}")
    return model
