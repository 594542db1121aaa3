"""The objective that needs no LM head: the vector of a text should be the LLM's own vector of that text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lusifer.training.objectives.objective import Objective, Role, pair_texts

if TYPE_CHECKING:
    import numpy as np
    import torch

    from lusifer.model.alignment import LusiferForAlignment

GROUP, GROUPS = 16, 8  # of texts that are read together: how many at least, and how many groups at most
SAME, TEMPERATURE = 0.9999, 0.05  # of the contrast: cosine of equal texts, what similarities are divided by


class Distill(Objective):
    """The LLM, an embedder, is the teacher: it reads the text itself, with its own tokenizer and pooling."""

    name = "distill"
    stream = 2
    needs_embedder = True
    trains_vector = True
    options = ("distill_contrast",)

    def texts(self, row: Mapping[str, Any], role: Role, generator: np.random.Generator) -> tuple[str, str | None]:
        """The text, or one side of a pair; there is no target."""
        if role == "reconstruct":
            return row["text"], None
        texts, drawn = pair_texts(row, generator)
        return texts["q" if drawn < 0.5 else "p"], None

    def loss(self, network: LusiferForAlignment, batch: dict[str, Any], stage: Any) -> torch.Tensor:
        """Compare the model's vectors with the teacher's."""
        embedding = by_length(
            lambda ids, mask: network.model(ids, mask).embedding, batch["input_ids"], batch["attention_mask"]
        )
        return distill_loss(embedding, batch["teacher"], stage.distill_contrast)

    def keeps_drawn_order(self, stage: Any) -> bool:
        """The contrast compares the texts of a micro-batch: which they are must not depend on their lengths."""
        return stage.distill_contrast > 0

    def words(self, stage: Any) -> dict[str, str]:
        """Describe the weight of the contrast, if there is one."""
        weight = stage.distill_contrast
        return {"distill's contrast with the other texts": f"weight {weight:g}"} if weight else {}


def by_length(
    read: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Read texts in groups of like length, each cut to its longest: the contrast needs them together, padding does not.

    Args:
        read: Ids and mask (B, L) to vectors (B, d).
        ids: (B, L), padded on the right.
        mask: (B, L), 1 for a real token.

    Returns:
        The vectors (B, d), in the order of the texts.
    """
    import torch

    lengths = mask.sum(dim=1)
    order = lengths.argsort()
    groups = max(1, min(GROUPS, len(ids) // GROUP))
    found = []
    for rows in order.tensor_split(groups):
        longest = int(lengths[rows].max())
        found.append(read(ids[rows, :longest], mask[rows, :longest]))
    return torch.cat(found)[order.argsort()]


def distill_loss(embedding: torch.Tensor, teacher: torch.Tensor, contrast: float = 0.0) -> torch.Tensor:
    """How far vectors (B, d) are from the LLM's own vectors (B, d) of the same texts.

    The mean of 1 - cosine, plus `contrast` times the cross-entropy of finding a text's own vector among those of the
    batch (temperature 0.05): what tells a text from others of its topic is a small part of the cosine.
    """
    import torch
    from torch import nn

    with torch.autocast(embedding.device.type, enabled=False):  # its products keep three digits: too few for SAME
        embedding, teacher = (nn.functional.normalize(part.float(), dim=-1) for part in (embedding, teacher))
        loss = (1 - (embedding * teacher).sum(dim=-1)).mean()
        if contrast:
            same = (teacher @ teacher.T > SAME).fill_diagonal_(False)  # a text that comes twice is no wrong answer
            scores = (embedding @ teacher.T / TEMPERATURE).masked_fill(same, float("-inf"))
            target = torch.arange(len(scores), device=scores.device)
            loss = loss + contrast * nn.functional.cross_entropy(scores, target)
        return loss
