"""Embed the texts of a step in mini-batches of similar length, twice (with a gradient cache) or once.

sentence-transformers divides each column of a batch into mini-batches in the order of its rows. A mini-batch is as wide
as its longest text, so most of the computation is padding if short and long texts are mixed. Row and column of a text
matter only for the loss. So the texts of all columns are sorted by length, divided by their padded size, and the
embeddings are put back into columns and rows.

With the cache (Gao et al. 2021, arXiv 2101.06983) a mini-batch is embedded without gradient, and again when the
gradient of its embeddings is known, so that memory holds one mini-batch. Without it memory holds the graphs of all
mini-batches, and the second forward pass is not needed.
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
    """The `distill` of a contrastive stage.

    Args:
        teacher: The LLM as an embedder.
        weight: Its weight, relative to the loss.
        contrast: The weight of its contrastive term.
    """

    teacher: SentenceTransformer
    weight: float
    contrast: float


class ByLength:
    """Mixin for a loss with the gradient cache of sentence-transformers (`CachedLossMixin`)."""

    caches: bool = True
    """Whether texts are embedded twice, so that memory holds one mini-batch at a time."""
    keep: Keep | None = None
    """The distillation that is added to the loss, if there is one."""
    _own: Tensor | None = None
    """The LLM's own vectors of the texts, column by column, (N, d)."""
    _place: Tensor | None = None
    """For each text, in columns and rows, its index in the embedded order, (N,); None before the first batch."""

    def forward_cached(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """Compute the loss over mini-batches of similar length; the library sees each one as a column.

        Args:
            sentence_features: The tokenized columns of a batch, dictionaries of tensors (B, L).
            labels: As for the loss.
        """
        columns = list(sentence_features)
        if self.keep is not None:
            self._own = torch.cat([teacher.vectors(self.keep.teacher, features) for features in columns])
        self._sizes = [len(features["attention_mask"]) for features in columns]
        first = [sum(self._sizes[:number]) for number in range(len(columns))]
        batches, places = [], []
        embedder = getattr(self.model, "module", self.model)  # DDP wraps it if there are several processes
        for numbers in _alike(columns):
            features = _join([columns[number] for number in numbers], embedder.tokenizer.pad_token_id or 0)
            rows = torch.cat([first[number] + torch.arange(self._sizes[number]) for number in numbers])
            for part in self._cut(features["attention_mask"].sum(dim=1).cpu()):  # one GPU synchronization
                batches.append({k: v[part] if _by_row(v, len(rows)) else v for k, v in features.items()})
                places.append(rows[part])
        self._place = torch.cat(places).argsort()
        return super().forward_cached(batches, labels) if self.caches else self._embedded_once(batches, labels)

    def _embedded_once(self, batches: list[Features], labels: Tensor | None) -> Tensor:
        """Compute the loss with the graphs of all mini-batches in memory."""
        grad = torch.is_grad_enabled()
        vectors = [part for batch in batches for part, _ in self.embed_minibatch_iter(batch, grad, False)]
        if not grad:
            return self.calculate_loss([[part] for part in vectors], labels)
        leaves = [part.detach().requires_grad_() for part in vectors]
        value = self.calculate_loss([[leaf] for leaf in leaves], labels, with_backward=True).detach()
        # As with the cache: the gradient of (vector . its gradient) is the gradient of the loss.
        pull = sum(
            torch.dot(part.float().flatten(), leaf.grad.float().flatten())
            for part, leaf in zip(vectors, leaves, strict=True)
        )
        return value + (pull - pull.detach())

    def _cut(self, lengths: Tensor) -> list[list[int]]:
        """The row numbers of each mini-batch, longest texts first, so that memory runs out early if at all."""
        if self.mini_batch_num_tokens is not None:
            return cut(lengths.tolist(), self.mini_batch_num_tokens)
        order = lengths.argsort(descending=True, stable=True).tolist()
        return [order[start : start + self.mini_batch_size] for start in range(0, len(order), self.mini_batch_size)]

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Compute the loss of embeddings, after putting them back into columns and rows.

        Args:
            reps: Embeddings (b, d), one list for each mini-batch; before `forward_cached`, one list for each column.
            labels: As for the loss.
            with_backward: Whether to run the backward pass.

        Raises:
            ValueError: The loss does not use a column.
        """
        if self._place is None:
            return super().calculate_loss(reps, labels, with_backward=with_backward)
        vectors = torch.cat([part for batch in reps for part in batch])
        in_order = vectors[self._place.to(vectors.device)].split(self._sizes)
        if not with_backward:
            return super().calculate_loss([[column] for column in in_order], labels) + self._kept(in_order)
        # Detach first: the library's losses run backward in parts, and one graph allows only one backward pass.
        leaves = [column.detach().requires_grad_() for column in in_order]
        loss = super().calculate_loss([[leaf] for leaf in leaves], labels, with_backward=True)
        unread = [str(number) for number, leaf in enumerate(leaves) if leaf.grad is None]
        if unread:  # the library's own check cannot see this in the joined texts
            raise ValueError(f"the loss does not use column {', '.join(unread)}: remove it from the data")
        if self.keep is not None:
            kept = self._kept(leaves)
            kept.backward()
            loss = loss + kept.detach()
        torch.autograd.backward(in_order, [leaf.grad for leaf in leaves])
        return loss

    def _kept(self, columns: Sequence[Tensor]) -> Tensor | float:
        """Compute the weighted distillation loss of columns (B, d); 0 if there is none.

        The contrastive term compares the texts of the step from all processes.
        """
        if self.keep is None:
            return 0.0
        vectors, own = torch.cat(list(columns)), self._own
        if self.keep.contrast:
            vectors, own = of_all(vectors), of_all(own)
        return self.keep.weight * distill_loss(vectors, own, self.keep.contrast)


class CachedLoss(CachedLossMixin, nn.Module):
    """Base class of losses on columns (queries, positives, hard negatives) with a gradient cache.

    Args:
        model: The embedder.
        temperature: Similarities are divided by it.
        mini_batch_size: Texts of one forward pass.
        mini_batch_num_tokens: Tokens of one forward pass, in place of `mini_batch_size`.
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
        """Compute the loss of a batch, a scalar.

        Args:
            sentence_features: The tokenized columns, dictionaries of tensors (B, L).
            labels: Not used.
        """
        return self.forward_cached(sentence_features, labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Compute the loss of embeddings, a scalar.

        Args:
            reps: One list of mini-batches (b, d) for each column.
            labels: Not used.
            with_backward: Whether to run the backward pass.

        Raises:
            ValueError: There are too few columns.
        """
        loss = self.of([torch.cat(column) for column in reps])
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss

    def of(self, columns: list[Tensor]) -> Tensor:
        """Compute the loss of columns (B, d), a scalar; raise ValueError if there are too few."""
        raise NotImplementedError


def of_all(rows: Tensor) -> Tensor:
    """Gather the rows (B, ...) of all processes, with gradients: (processes * B, ...)."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    if not rows.requires_grad:
        return all_gather(rows)
    # The backward pass sums over processes and DDP divides by their number, so no factor is needed.
    rows = all_gather_with_grad(rows)
    # gloo's backward pass sends raw memory: a transposed gradient would arrive in another order.
    rows.register_hook(Tensor.contiguous)
    return rows


def _alike(columns: Sequence[Features]) -> list[list[int]]:
    """Group the columns that can be embedded together: same keys, and same values that are not per row."""
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
    """Concatenate columns, padded on the right to one width."""
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
