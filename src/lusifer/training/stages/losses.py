"""The losses of stage 2, over texts that are embedded in mini-batches of similar length (`gradient_cache`).

`NTXentL2` is the loss of the published code: NT-Xent on minus the L2 distance, with a multi-similarity miner. It is
there for comparison; `infonce` is the default of the recipes. pytorch-metric-learning has both parts, but its NT-Xent
makes a matrix of (positive pairs) x (negative pairs), 6e8 numbers at 256 rows with 7 hard negatives. Here the same sums
need a matrix of (anchors) x (texts), and no further dependency.
"""

from __future__ import annotations

from typing import Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss, MatryoshkaLoss
from torch import Tensor, nn

from lusifer.training import processes
from lusifer.training.recipe.recipe import ContrastiveStage
from lusifer.training.stages.gradient_cache import ByLength, CachedLoss, Keep, of_all

Similarity = Literal["l2", "cosine"]


class InfoNCE(ByLength, CachedMultipleNegativesRankingLoss):
    """InfoNCE with in-batch negatives, from sentence-transformers."""


class OwnNegatives(ByLength, CachedLoss):
    """Cross-entropy of each query's positive against the hard negatives of its row, on cosine / temperature.

    Classification and clustering sets need it: other rows of a batch may have the same label, so they are no negatives.
    """

    def of(self, columns: list[Tensor]) -> Tensor:
        """Compute the mean over rows of columns (B, d): a query, a positive and negatives.

        Raises:
            ValueError: There is no negative.
        """
        query, *documents = (nn.functional.normalize(column, dim=-1) for column in columns)
        if len(documents) < 2:
            raise ValueError("a set without in-batch negatives needs hard negatives: raise hard_negatives")
        scores = torch.stack([(query * document).sum(-1) for document in documents], dim=1) / self.temperature
        return nn.functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))


class NTXentL2(ByLength, CachedLoss):
    """All-pairs NT-Xent with a gradient cache.

    Queries and positives are anchors. An anchor is pulled to each other text of its row that is no negative, one pair
    at a time, and pushed away from the queries and positives of other rows and from all hard negatives. Two positives
    of a row are never in each other's denominator. The loss is the mean over pairs.

    With several processes the batch is the union of their batches: the gradient that DDP averages is that of a single
    process on the union. All processes need the same number of rows.
    Arguments that are not listed are those of `CachedLoss`.

    Args:
        in_batch_negatives: False uses only the negatives of a row, without mining, as published: the mean over rows of
            each row's loss.
        miner_epsilon: Use only pairs within this margin of cosine similarity (`mine`). None uses all pairs.
        num_positives: The number of columns after the query that are positives; the rest are negatives.
        similarity: "l2" is minus the distance of normalized vectors (published), "cosine" their cosine.
        when_nothing_mined: "all_pairs" uses all pairs of the batch; "zero" gives a loss of 0 without gradient, as the
            published code does.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float = 0.05,
        mini_batch_size: int = 32,
        in_batch_negatives: bool = True,
        miner_epsilon: float | None = None,
        *,
        num_positives: int = 1,
        similarity: Similarity = "l2",
        when_nothing_mined: Literal["all_pairs", "zero"] = "all_pairs",
        mini_batch_num_tokens: int | None = None,
    ) -> None:
        super().__init__(model, temperature, mini_batch_size, mini_batch_num_tokens)
        self.in_batch_negatives, self.miner_epsilon = in_batch_negatives, miner_epsilon
        self.num_positives, self.similarity = num_positives, similarity
        self.when_nothing_mined = when_nothing_mined

    def of(self, columns: list[Tensor]) -> Tensor:
        """Compute the loss of columns (B, d).

        Raises:
            ValueError: A query, its positives or a negative is missing.
        """
        stacked = torch.stack([column.float() for column in columns], dim=1)
        count = 1 + self.num_positives
        if stacked.shape[1] < count + (not self.in_batch_negatives):
            needs = "positives" if self.in_batch_negatives else "positives and a hard negative"
            raise ValueError(f"{stacked.shape[1]} columns are too few: give a query, {self.num_positives} {needs}")
        return self._in_batch(stacked) if self.in_batch_negatives else self._own(stacked)

    def _in_batch(self, columns: Tensor) -> Tensor:
        """Compute the loss of rows (B, C, d) against the texts of all processes."""
        columns = of_all(columns)
        texts, positive, negative = pairs(columns, 1 + self.num_positives)
        if self.miner_epsilon is not None:
            mined = mine(texts[: len(positive)], texts, positive, negative, self.miner_epsilon)
            if all(bool(kind.any()) for kind in mined):
                positive, negative = mined
            elif self.when_nothing_mined == "zero":
                return columns.sum() * 0
        return nt_xent(texts[: len(positive)], texts, positive, negative, self.temperature, self.similarity)

    def _own(self, columns: Tensor) -> Tensor:
        """Compute the mean over rows (B, C, d) of each row's loss; all rows have the same number of pairs."""
        texts, positive, negative = pairs(columns, 1 + self.num_positives)
        row = torch.arange(len(texts), device=texts.device) % len(columns)
        negative = negative & (row[: len(negative), None] == row)
        return nt_xent(texts[: len(positive)], texts, positive, negative, self.temperature, self.similarity)


def loss(
    stage: ContrastiveStage, embedder: SentenceTransformer, in_batch_negatives: bool, keep: Keep | None = None
) -> torch.nn.Module:
    """Make the loss of one set of pairs.

    Args:
        stage: The stage.
        embedder: The model.
        in_batch_negatives: Whether the texts of other rows are negatives.
        keep: The distillation that is added, if there is one.
    """
    chunks = {"mini_batch_size": stage.mini_batch_size, "mini_batch_num_tokens": stage.mini_batch_tokens}
    if stage.loss == "ntxent_l2":
        chunks |= {"in_batch_negatives": in_batch_negatives, "miner_epsilon": stage.miner_epsilon}
        made = NTXentL2(embedder, stage.temperature, **chunks)
    elif in_batch_negatives:
        several = processes.state().num_processes > 1
        made = InfoNCE(embedder, scale=1 / stage.temperature, gather_across_devices=several, **chunks)
    else:
        made = OwnNegatives(embedder, stage.temperature, **chunks)
    made.keep, made.caches = keep, stage.gradient_cache
    if stage.matryoshka_dims:
        # The library trains the listed dimensions only, so the full dimension must be among them.
        whole = embedder.get_embedding_dimension()
        made = MatryoshkaLoss(embedder, made, sorted({*stage.matryoshka_dims, whole}, reverse=True))
    return made


def pairs(columns: Tensor, anchors: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find the positive and the negative pairs of a batch.

    Args:
        columns: The texts of each row (B, C, d).
        anchors: The number of columns that are anchors (the query and its positives); the others are negatives.

    Returns:
        The texts (C * B, d) column by column, and two masks (anchors * B, C * B), bool: positive and negative pairs.
    """
    rows, width, _ = columns.shape
    texts = columns.transpose(0, 1).flatten(0, 1)
    row = torch.arange(rows, device=columns.device).repeat(width)
    hard = torch.arange(width, device=columns.device).repeat_interleave(rows) >= anchors
    together = (row[:, None] == row) & ~hard
    itself = torch.eye(len(row), dtype=torch.bool, device=columns.device)
    return texts, (together & ~itself)[: anchors * rows], ~together[: anchors * rows]


@torch.no_grad()
def mine(anchors: Tensor, texts: Tensor, positive: Tensor, negative: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Keep informative pairs (multi-similarity miner, Wang et al. 2019, arXiv 1904.06627, section 3.3.1).

    A positive stays if it is less similar than the hardest negative plus `epsilon`. A negative stays if it is more
    similar than the hardest positive minus `epsilon`. Both use the cosine.

    Args:
        anchors: (A, d).
        texts: (N, d).
        positive: The mask of positive pairs (A, N), bool.
        negative: The mask of negative pairs (A, N), bool.
        epsilon: The margin.

    Returns:
        The two masks with the remaining pairs.
    """
    cosine = nn.functional.normalize(anchors, dim=-1) @ nn.functional.normalize(texts, dim=-1).T
    hardest_negative = cosine.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)
    hardest_positive = cosine.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
    return positive & (cosine - epsilon < hardest_negative), negative & (cosine + epsilon > hardest_positive)


def nt_xent(
    anchors: Tensor,
    texts: Tensor,
    positive: Tensor,
    negative: Tensor,
    temperature: float,
    similarity: Similarity = "l2",
) -> Tensor:
    """Compute the normalized temperature-scaled cross-entropy of each positive pair against the anchor's negatives.

    Args:
        anchors: (A, d), of any length; they are normalized here.
        texts: (N, d), likewise.
        positive: The mask of the pairs to average (A, N), bool.
        negative: The mask of the pairs in the denominators (A, N), bool.
        temperature: Similarities are divided by it.
        similarity: "l2" or "cosine".

    Returns:
        A scalar.
    """
    anchors, texts = nn.functional.normalize(anchors, dim=-1), nn.functional.normalize(texts, dim=-1)
    if similarity == "l2":
        # Without a matrix product: |a|^2 + |b|^2 - 2ab is inaccurate for small distances, which have large gradients.
        scores = -torch.cdist(anchors, texts, compute_mode="donot_use_mm_for_euclid_dist") / temperature
    else:
        scores = anchors @ texts.T / temperature
    # Not -inf, which has no gradient: mining may leave an anchor without negatives.
    others = scores.masked_fill(~negative, torch.finfo(scores.dtype).min).logsumexp(dim=1)
    anchor, text = positive.nonzero(as_tuple=True)
    return nn.functional.softplus(others[anchor] - scores[anchor, text]).mean()
