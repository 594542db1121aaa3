"""The losses of stage 2, with the library's gradient cache over mini-batches of texts of like length.

The library cuts each column of a batch into mini-batches in the order of its rows, by real tokens, and a mini-batch is
as wide as its longest text: in a batch of short and long texts most of what is embedded is padding. Which row and
column a text is in matters only to the loss, so the texts of all columns are sorted by length together, cut where their
padded size reaches the budget, and the embeddings are put back in columns and rows.

`NTXentL2` is the loss of the published code: NT-Xent on minus the L2 distance, with a multi-similarity miner. It is the
parity option; `infonce` is the default of the recipes. pytorch-metric-learning has both parts, but lists pairs: its
NT-Xent makes a matrix of (positive pairs) x (negative pairs), 6e8 numbers at 256 rows with 7 hard negatives. On the
matrix of similarities the same sums need (anchors) x (texts), and no further dependency.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss, MatryoshkaLoss
from sentence_transformers.util.distributed import all_gather, all_gather_with_grad
from torch import Tensor, nn

from lusifer.batching import cut
from lusifer.training import processes
from lusifer.training.objectives.distill import distill_loss
from lusifer.training.recipe.recipe import ContrastiveStage
from lusifer.training.stages import teacher

Features = dict[str, Tensor]
Similarity = Literal["l2", "cosine"]


@dataclass(frozen=True)
class Keep:
    """The `distill` of a contrastive stage: the teacher, the weight beside the loss, and that of its contrast."""

    teacher: SentenceTransformer
    weight: float
    contrast: float


class ByLength:
    """Mixin in front of a loss with the library's gradient cache (`CachedLossMixin`)."""

    keep: Keep | None = None
    """What holds the vectors near the LLM's own; None where the loss stands alone."""
    _own: Tensor | None = None
    """The LLM's own vectors of the texts, column by column."""
    _place: Tensor | None = None
    """Of the texts in their columns and rows, the place among the embedded ones; None before any were."""

    def forward_cached(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The cached forward pass over mini-batches of like length, each a column to the library."""
        columns = list(sentence_features)
        if self.keep is not None:
            self._own = torch.cat([teacher.vectors(self.keep.teacher, features) for features in columns])
        self._sizes = [len(features["attention_mask"]) for features in columns]
        first = [sum(self._sizes[:number]) for number in range(len(columns))]
        batches, places = [], []
        embedder = getattr(self.model, "module", self.model)  # several processes: DDP is around it
        for numbers in _alike(columns):
            features = _join([columns[number] for number in numbers], embedder.tokenizer.pad_token_id or 0)
            rows = torch.cat([first[number] + torch.arange(self._sizes[number]) for number in numbers])
            for part in self._cut(features["attention_mask"].sum(dim=1).cpu()):  # one wait for a GPU
                batches.append({k: v[part] if _by_row(v, len(rows)) else v for k, v in features.items()})
                places.append(rows[part])
        self._place = torch.cat(places).argsort()
        return super().forward_cached(batches, labels)

    def _cut(self, lengths: Tensor) -> list[list[int]]:
        """Row numbers of each mini-batch, the longest texts first: if memory runs out, it does so at once."""
        if self.mini_batch_num_tokens is not None:
            return cut(lengths.tolist(), self.mini_batch_num_tokens)
        order = lengths.argsort(descending=True, stable=True).tolist()
        return [order[start : start + self.mini_batch_size] for start in range(0, len(order), self.mini_batch_size)]

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss of embeddings (one list a mini-batch; given by hand, one list a column), in columns and rows.

        Raises:
            ValueError: the loss does not read a column.
        """
        if self._place is None:
            return super().calculate_loss(reps, labels, with_backward=with_backward)
        vectors = torch.cat([part for batch in reps for part in batch])
        in_order = vectors[self._place.to(vectors.device)].split(self._sizes)
        if not with_backward:
            return super().calculate_loss([[column] for column in in_order], labels) + self._kept(in_order)
        # Leaves, since the library's losses go backward in parts, and through one graph that can be done only once.
        leaves = [column.detach().requires_grad_() for column in in_order]
        loss = super().calculate_loss([[leaf] for leaf in leaves], labels, with_backward=True)
        unread = [str(number) for number, leaf in enumerate(leaves) if leaf.grad is None]
        if unread:  # the library's own check sees the joined texts, all of which have a gradient
            raise ValueError(f"the loss does not read column {', '.join(unread)}: leave it out of the data")
        if self.keep is not None:
            kept = self._kept(leaves)
            kept.backward()
            loss = loss + kept.detach()
        torch.autograd.backward(in_order, [leaf.grad for leaf in leaves])
        return loss

    def _kept(self, columns: Sequence[Tensor]) -> Tensor | float:
        """How far the vectors of columns (B, d) are from the LLM's own, weighted.

        A contrast compares the texts of the step, those of all processes.
        """
        if self.keep is None:
            return 0.0
        vectors, own = torch.cat(list(columns)), self._own
        if self.keep.contrast:
            vectors, own = _of_all(vectors), _of_all(own)
        return self.keep.weight * distill_loss(vectors, own, self.keep.contrast)


class InfoNCE(ByLength, CachedMultipleNegativesRankingLoss):
    """The library's loss."""


class CachedLoss(CachedLossMixin, nn.Module):
    """A loss on embedded columns (queries, positives, hard negatives) with the library's gradient cache.

    Args:
        model: The embedder.
        temperature: Similarities are divided by it.
        mini_batch_size: Texts embedded at once.
        mini_batch_num_tokens: Tokens embedded at once, in place of `mini_batch_size`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float = 0.05,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature
        self.mini_batch_size, self.mini_batch_num_tokens = mini_batch_size, mini_batch_num_tokens

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """The loss of a batch of tokenised columns, one dictionary of tensors (B, L) each; `labels` are not used."""
        return self.forward_cached(sentence_features, labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss from embeddings: one list of mini-batches (b, d) a column.

        Raises:
            ValueError: Too few columns.
        """
        loss = self.of([torch.cat(column) for column in reps])
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss

    def of(self, columns: list[Tensor]) -> Tensor:
        """The loss, a scalar, of columns (B, d); ValueError where they are too few."""
        raise NotImplementedError


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
        columns = _of_all(columns)
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
    made.keep = keep
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


def _of_all(rows: Tensor) -> Tensor:
    """Rows (B, ...) of this process -> those of all processes, (processes * B, ...), with their gradient."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    if not rows.requires_grad:
        return all_gather(rows)
    # The backward of this gather sums over processes, DDP divides by their number: no factor is left over.
    rows = all_gather_with_grad(rows)
    # gloo's backward sends raw memory: a transposed gradient would arrive in another order.
    rows.register_hook(Tensor.contiguous)
    return rows


def _alike(columns: Sequence[Features]) -> list[list[int]]:
    """Numbers of the columns that can be embedded together: same keys, and same values where they are none of rows."""
    found: dict[object, list[int]] = {}
    for number, features in enumerate(columns):
        rows = len(features["attention_mask"])
        alike = [
            (key, None if _by_row(value, rows) else id(value) if torch.is_tensor(value) else repr(value))
            for key, value in sorted(features.items())
        ]
        found.setdefault(tuple(alike), []).append(number)
    return list(found.values())


def _join(columns: Sequence[Features], pad_id: int) -> Features:
    """Columns of one kind below each other, padded on the right to one width (what nobody reads is cut off again)."""
    widths = [features["attention_mask"].shape[1] for features in columns]
    joined = dict(columns[0])
    for key, value in columns[0].items():
        if not _by_row(value, len(columns[0]["attention_mask"])):
            continue
        parts = [features[key] for features in columns]
        if value.dim() == 2 and all(part.shape[1] == width for part, width in zip(parts, widths, strict=True)):
            fill = pad_id if key == "input_ids" else 0
            parts = [
                nn.functional.pad(part, (0, max(widths) - width), value=fill)
                for part, width in zip(parts, widths, strict=True)
            ]
        joined[key] = torch.cat(parts)
    return joined


def _by_row(value: object, rows: int) -> bool:
    return torch.is_tensor(value) and value.dim() > 0 and len(value) == rows
