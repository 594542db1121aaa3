"""InfoNCE over a row's own negatives only, with the library's gradient cache.

Classification and clustering sets need it: other rows of a batch may carry the same label, so they are no negatives.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from torch import Tensor, nn


class CachedOwnNegativesLoss(CachedLossMixin, nn.Module):
    """Cross entropy of each query's positive against that row's hard negatives, cosine / temperature.

    Args:
        model: the embedder.
        temperature: similarities are divided by it.
        mini_batch_size: texts embedded at once.
        mini_batch_num_tokens: tokens embedded at once, in place of `mini_batch_size`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float = 0.05,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The mean over rows; embeddings come as one list of mini-batches a column (query, positive, negatives).

        Raises:
            ValueError: there is no negative column.
        """
        query, *documents = (nn.functional.normalize(torch.cat(column), dim=-1) for column in reps)
        if len(documents) < 2:
            raise ValueError("a set without in-batch negatives needs hard negatives: raise hard_negatives")
        scores = torch.stack([(query * document).sum(-1) for document in documents], dim=1) / self.temperature
        loss = nn.functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """The loss of a batch of tokenised columns."""
        return self.forward_cached(sentence_features, labels)
