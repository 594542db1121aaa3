"""The LLM as the embedder it is: the teacher of stage 1, and of stage 2 where that keeps to the LLM's own vectors."""

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
    """Refuse an LLM that is no embedder (UsageError ending with `advice`), before weights are read.

    The library would make an embedder of any model, by taking the mean of its states.
    """
    base = recipe.model.llm.base()
    folder, key = names.base(base.path), f"model.llm.path={base.path!r}"
    with hub.asking(key, UsageError):
        is_embedder = hub.has_file(folder, "modules.json", hub.commit(folder, base.revision))
    if not is_embedder:
        raise UsageError(f"{key} is no embedder (no modules.json there): {advice}")


def read(recipe: Recipe, model: LusiferModel) -> SentenceTransformer:
    """Read the LLM with its own tokenizer, pooling and normalisation, frozen; where and as `model` is held.

    Raises:
        UsageError: It cannot be read, or its vectors are not as long as the model's.
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
        raise UsageError(f"model.llm: its own vectors have {dimension} dimensions, its states {wanted}: cannot distill")
    return teacher.requires_grad_(False).eval()


@torch.no_grad()
def vectors(teacher: SentenceTransformer, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Take teacher_ids and teacher_attention_mask out of `batch` and give the teacher's own vectors (B, d)."""
    return by_length(
        lambda ids, mask: teacher({"input_ids": ids, "attention_mask": mask})["sentence_embedding"],
        batch.pop("teacher_ids"),
        batch.pop("teacher_attention_mask"),
    )
