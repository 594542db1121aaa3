"""The losses of stage 2, with the library's gradient cache over mini-batches of texts of like length.

The library cuts each column of a batch into mini-batches in the order of its rows, by real tokens, and a mini-batch is
as wide as its longest text: in a batch of short and long texts most of what is embedded is padding. Which row and
column a text is in matters only to the loss, so the texts of all columns are sorted by length together, cut where their
padded size reaches the budget, and the embeddings are put back in columns and rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss, MatryoshkaLoss
from torch import Tensor, nn

from lusifer.batching import cut
from lusifer.training.recipe.recipe import ContrastiveStage
from lusifer.training.stages.ntxent import CachedLoss, NTXentL2

Features = dict[str, Tensor]


class ByLength:
    """Mixin in front of a loss with the library's gradient cache (`CachedLossMixin`)."""

    def forward_cached(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The cached forward pass over mini-batches of like length, each a column to the library."""
        columns = list(sentence_features)
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
        """The loss of embeddings (one list a mini-batch), computed in columns and rows.

        Raises:
            ValueError: the loss does not read a column.
        """
        vectors = torch.cat([part for batch in reps for part in batch])
        in_order = vectors[self._place.to(vectors.device)].split(self._sizes)
        if not with_backward:
            return super().calculate_loss([[column] for column in in_order], labels)
        # Leaves, since the library's losses go backward in parts, and through one graph that can be done only once.
        leaves = [column.detach().requires_grad_() for column in in_order]
        loss = super().calculate_loss([[leaf] for leaf in leaves], labels, with_backward=True)
        unread = [str(number) for number, leaf in enumerate(leaves) if leaf.grad is None]
        if unread:  # the library's own check sees the joined texts, all of which have a gradient
            raise ValueError(f"the loss does not read column {', '.join(unread)}: leave it out of the data")
        torch.autograd.backward(in_order, [leaf.grad for leaf in leaves])
        return loss


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


class InfoNCE(ByLength, CachedMultipleNegativesRankingLoss):
    """The library's loss."""


class NTXent(ByLength, NTXentL2):
    """The loss of the published code."""


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


def loss(stage: ContrastiveStage, embedder: SentenceTransformer, in_batch_negatives: bool) -> torch.nn.Module:
    """The loss of one set; `in_batch_negatives` is False where other rows' texts may share the label."""
    chunks = {"mini_batch_size": stage.mini_batch_size, "mini_batch_num_tokens": stage.mini_batch_tokens}
    if stage.loss == "ntxent_l2":
        chunks |= {"in_batch_negatives": in_batch_negatives, "miner_epsilon": stage.miner_epsilon}
        return NTXent(embedder, stage.temperature, **chunks)
    if in_batch_negatives:
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        made = InfoNCE(embedder, scale=1 / stage.temperature, gather_across_devices=several, **chunks)
    else:
        made = OwnNegatives(embedder, stage.temperature, **chunks)
    if stage.matryoshka_dims:
        # The library trains the listed dimensions only: the whole vector is one of them.
        whole = embedder.get_embedding_dimension()
        made = MatryoshkaLoss(embedder, made, sorted({*stage.matryoshka_dims, whole}, reverse=True))
    return made
