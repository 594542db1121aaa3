"""The LLM as an embedder: the teacher of `distill` in both stages."""

from __future__ import annotations

import torch
from sentence_transformers import SentenceTransformer

from lusifer.errors import UsageError
from lusifer.io import hub, names
from lusifer.model import build
from lusifer.model.lusifer import LusiferModel
from lusifer.training.objectives.distill import by_length
from lusifer.training.recipe.recipe import Recipe


def refuse(recipe: Recipe, advice: str) -> None:
    """Refuse an LLM that is no embedder, before weights are read.

    sentence-transformers would make an embedder of any model, by mean pooling.

    Args:
        recipe: The recipe.
        advice: The end of the message.

    Raises:
        UsageError: The LLM is no embedder, or cannot be found.
    """
    base = recipe.model.llm.base()
    folder, key = names.base(base.path), f"model.llm.path={base.path!r}"
    with hub.asking(key, UsageError):
        is_embedder = hub.has_file(folder, "modules.json", hub.commit(folder, base.revision))
    if not is_embedder:
        raise UsageError(f"{key}: is no embedder (no modules.json): {advice}")


def read(recipe: Recipe, model: LusiferModel) -> SentenceTransformer:
    """Load the LLM with its own tokenizer, pooling and normalization, frozen.

    Args:
        recipe: The recipe.
        model: The model, for the device and the dimensions.

    Raises:
        UsageError: The LLM cannot be read, or its vectors have other dimensions than the model's.
    """
    path, revision = recipe.model.llm.path, recipe.model.llm.revision
    folder = names.base(path)
    with hub.asking(f"model.llm.path={path!r}", UsageError):
        placed = build.place(model.device)
        teacher = SentenceTransformer(
            folder,
            trust_remote_code=False,
            revision=hub.commit(folder, revision),
            device=None if placed else str(model.device),
            model_kwargs={"dtype": getattr(torch, recipe.model.dtype.frozen), **placed},
        )
    dimension, wanted = teacher.get_embedding_dimension(), model.config.hidden_size
    if dimension != wanted:
        words = f"its vectors have {dimension} dimensions and its hidden states {wanted}"
        raise UsageError(f"model.llm: {words}: use another LLM, or no distill")
    return teacher.requires_grad_(False).eval()


@torch.no_grad()
def vectors(teacher: SentenceTransformer, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute the teacher's vectors of a batch.

    Args:
        teacher: The LLM from `read`.
        batch: teacher_ids and teacher_attention_mask (B, T), which are removed from it.

    Returns:
        (B, d).
    """
    return by_length(
        lambda ids, mask: teacher({"input_ids": ids, "attention_mask": mask})["sentence_embedding"],
        batch.pop("teacher_ids"),
        batch.pop("teacher_attention_mask"),
    )
