"""The objective `distill`: the model's vector of a text should equal the LLM's own vector of that text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lusifer.training.objectives.objective import Objective, Role, pair_texts

if TYPE_CHECKING:
    import numpy as np
    import torch

    from lusifer.model.alignment import LusiferForAlignment

GROUP, GROUPS = 16, 8  # texts of similar length in one forward pass: smallest group, and most groups
SAME, TEMPERATURE = 0.9999, 0.05  # of the contrastive term: the cosine from which texts count as equal, the temperature


class Distill(Objective):
    """Distillation from the LLM, an embedder, which reads the text itself with its own tokenizer and pooling."""

    name = "distill"
    stream = 2
    needs_embedder = True
    trains_vector = True
    options = ("distill_contrast",)

    def texts(self, row: Mapping[str, Any], role: Role, generator: np.random.Generator) -> tuple[str, str | None]:
        """Choose the text, or one side of a pair; there is no target."""
        if role == "reconstruct":
            return row["text"], None
        texts, drawn = pair_texts(row, generator)
        return texts["q" if drawn < 0.5 else "p"], None

    def loss(self, network: LusiferForAlignment, batch: dict[str, Any], stage: Any) -> torch.Tensor:
        """Compute `distill_loss` between the model's vectors and the teacher's."""
        embedding = by_length(
            lambda ids, mask: network.model(ids, mask).embedding, batch["input_ids"], batch["attention_mask"]
        )
        return distill_loss(embedding, batch["teacher"], stage.distill_contrast)

    def keeps_drawn_order(self, stage: Any) -> bool:
        """True with the contrastive term: the texts of a mini-batch must not depend on their lengths."""
        return stage.distill_contrast > 0

    def words(self, stage: Any) -> dict[str, str]:
        """Describe the weight of the contrastive term, if there is one."""
        weight = stage.distill_contrast
        return {"distill's contrast with the other texts": f"weight {weight:g}"} if weight else {}


def by_length(
    read: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Embed the texts of a batch in groups of similar length, which saves padding.

    Args:
        read: Maps ids and mask (B, L) to vectors (B, d).
        ids: (B, L), int64, padded on the right.
        mask: (B, L), 1 for a token.

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
    """Compute the distance of vectors from the LLM's own vectors of the same texts.

    It is the mean of 1 - cosine, plus `contrast` times the cross-entropy of finding a text's own vector among those of
    the batch (temperature 0.05). The second term is there because texts of one topic differ in a small part of the
    cosine only.

    Args:
        embedding: The model's vectors (B, d).
        teacher: The LLM's own vectors (B, d).
        contrast: The weight of the second term.

    Returns:
        A scalar, float32.
    """
    import torch
    from torch import nn

    with torch.autocast(embedding.device.type, enabled=False):  # bfloat16 keeps three digits, too few for SAME
        embedding, teacher = (nn.functional.normalize(part.float(), dim=-1) for part in (embedding, teacher))
        loss = (1 - (embedding * teacher).sum(dim=-1)).mean()
        if contrast:
            same = (teacher @ teacher.T > SAME).fill_diagonal_(False)  # a duplicate text is no wrong answer
            scores = (embedding @ teacher.T / TEMPERATURE).masked_fill(same, float("-inf"))
            target = torch.arange(len(scores), device=scores.device)
            loss = loss + contrast * nn.functional.cross_entropy(scores, target)
        return loss
