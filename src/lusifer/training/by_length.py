"""Mini-batches of texts of like length for the library's cached losses.

The library cuts each column of a batch into mini-batches in the order of its rows, and a mini-batch is as wide as its
longest text: in a batch of short and long texts most of what is embedded is padding. Which row a text is in matters
only to the loss, so each column is sorted by length before it is cut, and the embeddings are put back in row order.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class ByLength:
    """Mixin in front of a loss with the library's gradient cache (`CachedLossMixin`)."""

    def forward_cached(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """The cached forward pass over columns whose texts are sorted by their number of tokens."""
        ordered, self._places = [], []
        for features in sentence_features:
            order = features["attention_mask"].sum(dim=1).argsort(stable=True)
            rows = len(order)
            ordered.append({key: value[order] if _by_row(value, rows) else value for key, value in features.items()})
            self._places.append(order.argsort())
        return super().forward_cached(ordered, labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss of embeddings (mini-batches of each column, sorted), computed in the order of the rows."""
        in_order = [torch.cat(column)[place] for column, place in zip(reps, self._places, strict=True)]
        if not with_backward:
            return super().calculate_loss([[column] for column in in_order], labels)
        # Leaves, since the library's losses go backward in parts, and through one graph that can be done only once.
        leaves = [column.detach().requires_grad_() for column in in_order]
        loss = super().calculate_loss([[leaf] for leaf in leaves], labels, with_backward=True)
        # A column the loss does not read has no gradient; the library says so.
        reached = [(column, leaf.grad) for column, leaf in zip(in_order, leaves, strict=True) if leaf.grad is not None]
        torch.autograd.backward([column for column, _ in reached], [gradient for _, gradient in reached])
        return loss


def _by_row(value: object, rows: int) -> bool:
    return torch.is_tensor(value) and value.dim() > 0 and len(value) == rows
