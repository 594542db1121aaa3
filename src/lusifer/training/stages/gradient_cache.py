"""Texts of a step embedded in mini-batches of like length, twice (the library's gradient cache) or once.

The library cuts each column of a batch into mini-batches in the order of its rows, by real tokens, and a mini-batch is
as wide as its longest text: in a batch of short and long texts most of what is embedded is padding. Which row and
column a text is in matters only to the loss, so the texts of all columns are sorted by length together, cut where their
padded size reaches the budget, and the embeddings are put back in columns and rows.

With the cache (Gao et al. 2021, arXiv 2101.06983) a mini-batch is embedded without gradient, and again when the
gradient of its embeddings is known: memory is that of one mini-batch. Without it the graphs of all are kept, and the
second forward pass is saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.util.distributed import all_gather, all_gather_with_grad
from torch import Tensor, nn

from lusifer.batching import cut
from lusifer.training.objectives.distill import distill_loss
from lusifer.training.stages import teacher

Features = dict[str, Tensor]


@dataclass(frozen=True)
class Keep:
    """The `distill` of a contrastive stage: the teacher, the weight beside the loss, and that of its contrast."""

    teacher: SentenceTransformer
    weight: float
    contrast: float


class ByLength:
    """Mixin in front of a loss with the library's gradient cache (`CachedLossMixin`)."""

    caches: bool = True
    """Whether texts are embedded twice, so that one mini-batch is in memory at a time."""
    keep: Keep | None = None
    """What holds the vectors near the LLM's own; None where the loss stands alone."""
    _own: Tensor | None = None
    """The LLM's own vectors of the texts, column by column."""
    _place: Tensor | None = None
    """Of the texts in their columns and rows, the place among the embedded ones; None before any were."""

    def forward_cached(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The forward pass over mini-batches of like length, each a column to the library."""
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
        return super().forward_cached(batches, labels) if self.caches else self._embedded_once(batches, labels)

    def _embedded_once(self, batches: list[Features], labels: Tensor | None) -> Tensor:
        """The loss of mini-batches that all stay in memory with their graphs."""
        grad = torch.is_grad_enabled()
        vectors = [part for batch in batches for part, _ in self.embed_minibatch_iter(batch, grad, False)]
        if not grad:
            return self.calculate_loss([[part] for part in vectors], labels)
        leaves = [part.detach().requires_grad_() for part in vectors]
        value = self.calculate_loss([[leaf] for leaf in leaves], labels, with_backward=True).detach()
        # As when the cache is replayed: each vector times its gradient has the loss's own gradient behind it.
        pull = sum(
            torch.dot(part.float().flatten(), leaf.grad.float().flatten())
            for part, leaf in zip(vectors, leaves, strict=True)
        )
        return value + (pull - pull.detach())

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
            vectors, own = of_all(vectors), of_all(own)
        return self.keep.weight * distill_loss(vectors, own, self.keep.contrast)


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


def of_all(rows: Tensor) -> Tensor:
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
