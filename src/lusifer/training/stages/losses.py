"""The losses of stage 2, over texts embedded in mini-batches of like length (`gradient_cache`).

`NTXentL2` is the loss of the published code: NT-Xent on minus the L2 distance, with a multi-similarity miner. It is the
parity option; `infonce` is the default of the recipes. pytorch-metric-learning has both parts, but lists pairs: its
NT-Xent makes a matrix of (positive pairs) x (negative pairs), 6e8 numbers at 256 rows with 7 hard negatives. On the
matrix of similarities the same sums need (anchors) x (texts), and no further dependency.
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
    """The library's loss."""


class OwnNegatives(ByLength, CachedLoss):
    """Cross entropy of each query's positive against that row's hard negatives, cosine / temperature.

    Classification and clustering sets need it: other rows of a batch may carry the same label, so they are no
    negatives.
    """

    def of(self, columns: list[Tensor]) -> Tensor:
        """The mean over rows, of a query, a positive and negatives (B, d); ValueError without a negative."""
        query, *documents = (nn.functional.normalize(column, dim=-1) for column in columns)
        if len(documents) < 2:
            raise ValueError("a set without in-batch negatives needs hard negatives: raise hard_negatives")
        scores = torch.stack([(query * document).sum(-1) for document in documents], dim=1) / self.temperature
        return nn.functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))


class NTXentL2(ByLength, CachedLoss):
    """All-pairs NT-Xent with the library's gradient cache.

    Queries and positives are anchors. Every anchor is drawn to each other text of its own row that is no negative, one
    pair at a time, and away from the other rows' queries and positives and from all hard negatives; two positives of
    one row are never in each other's denominator. The loss is the mean over pairs.

    Across processes the batch is the union of their batches: the gradient, averaged as DDP averages it, is the one that
    a single process would compute on that union. All processes need the same number of rows.
    Arguments that are not listed are those of `CachedLoss`.

    Args:
        in_batch_negatives: False takes a row's own negatives only (and mines nothing, as published): the mean over rows
            of each row's loss.
        miner_epsilon: Only pairs within this margin of cosine similarity count (`mine`); None takes all pairs.
        num_positives: Columns behind the query that are positives; the rest are negatives.
        similarity: "l2" is minus the distance of normalised vectors (published), "cosine" their cosine.
        when_nothing_mined: "all_pairs" takes the batch as if there were no miner; "zero" gives a loss of 0 without
            gradient, as the published code does silently.
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
        """The loss of columns (B, d); ValueError without a query, its positives and some negative."""
        stacked = torch.stack([column.float() for column in columns], dim=1)
        count = 1 + self.num_positives
        if stacked.shape[1] < count + (not self.in_batch_negatives):
            needs = "positives" if self.in_batch_negatives else "positives and a hard negative"
            raise ValueError(f"{stacked.shape[1]} columns are too few: rows need a query, {self.num_positives} {needs}")
        return self._in_batch(stacked) if self.in_batch_negatives else self._own(stacked)

    def _in_batch(self, columns: Tensor) -> Tensor:
        """Rows (B, C, d) of every process against all texts of all of them."""
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
        """The mean over rows (B, C, d) of each row's loss; all rows have as many pairs, so one mean is enough."""
        texts, positive, negative = pairs(columns, 1 + self.num_positives)
        row = torch.arange(len(texts), device=texts.device) % len(columns)
        negative = negative & (row[: len(negative), None] == row)
        return nt_xent(texts[: len(positive)], texts, positive, negative, self.temperature, self.similarity)


def loss(
    stage: ContrastiveStage, embedder: SentenceTransformer, in_batch_negatives: bool, keep: Keep | None = None
) -> torch.nn.Module:
    """The loss of one set; `in_batch_negatives` is False where other rows' texts may share the label."""
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
        # The library trains the listed dimensions only: the whole vector is one of them.
        whole = embedder.get_embedding_dimension()
        made = MatryoshkaLoss(embedder, made, sorted({*stage.matryoshka_dims, whole}, reverse=True))
    return made


def pairs(columns: Tensor, anchors: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which texts belong together.

    Args:
        columns: (B, C, d), a row's texts side by side.
        anchors: columns that are anchors (the query and its positives); the others are negatives of everybody.

    Returns:
        The texts (C * B, d) column by column, and two masks (anchors * B, C * B): positive and negative pairs.
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

    A positive stays when it is less similar than the hardest negative plus `epsilon`, a negative when it is more
    similar than the hardest positive minus `epsilon`; both by cosine.

    Args:
        anchors: (A, d).
        texts: (N, d).
        positive: (A, N).
        negative: (A, N).
        epsilon: the margin.

    Returns:
        The two masks, thinned out.
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
    """Normalised temperature-scaled cross entropy, each positive pair against the anchor's negatives.

    Args:
        anchors: (A, d), of any length: they are normalised here.
        texts: (N, d), likewise.
        positive: (A, N), the pairs that are averaged.
        negative: (A, N), the denominators.
        temperature: similarities are divided by it.
        similarity: "l2" or "cosine".

    Returns:
        A scalar.
    """
    anchors, texts = nn.functional.normalize(anchors, dim=-1), nn.functional.normalize(texts, dim=-1)
    if similarity == "l2":
        # Not by a matrix product: |a|^2 + |b|^2 - 2ab loses the small distances, whose gradients are the large ones.
        scores = -torch.cdist(anchors, texts, compute_mode="donot_use_mm_for_euclid_dist") / temperature
    else:
        scores = anchors @ texts.T / temperature
    # An anchor whose negatives were all mined away keeps a finite number here: -inf has no gradient.
    others = scores.masked_fill(~negative, torch.finfo(scores.dtype).min).logsumexp(dim=1)
    anchor, text = positive.nonzero(as_tuple=True)
    return nn.functional.softplus(others[anchor] - scores[anchor, text]).mean()
