"""First phase: one vector a piece, trained so that the means of a sentence and its translation agree."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch.nn import functional

from batches import Clock, Pairs, Texts, learning_rate, ranking_loss
from teacher import Teacher

LOG = logging.getLogger("mini")


def mean_vectors(table: torch.Tensor, texts: Texts, index: np.ndarray, dropout: float = 0.0) -> torch.Tensor:
    """Mean of the layer-normalised vectors of each text's pieces, (texts, width).

    The encoder that takes the table over normalises each vector by itself, so the mean is trained that way.
    ``dropout`` is the chance that a piece is left out, so that no single piece carries a sentence.
    """
    normal = functional.layer_norm(table, table.shape[-1:])
    ids, offsets = texts.bag(index)
    keep = (torch.rand(len(ids)) >= dropout).float() if dropout else torch.ones(len(ids))
    # The sum serves for the mean: what follows looks at directions only.
    return functional.embedding_bag(ids, normal, offsets, mode="sum", per_sample_weights=keep)


def train_table(
    pairs: Pairs,
    weights: np.ndarray,
    vocabulary: int,
    width: int,
    clock: Clock,
    seed: int,
    teacher: Teacher | None = None,
    batch: int = 1024,
) -> torch.Tensor:
    """Return the trained vectors (vocabulary, width), each of mean 0 and variance 1.

    With a teacher the mean of a sentence, in either language, should also point where the teacher's vector of the
    English one does.
    """
    torch.manual_seed(seed)
    table = torch.nn.Parameter(torch.randn(vocabulary, width) * 0.02)
    optimizer = torch.optim.Adam([table], lr=1e-3, fused=True)
    batches = pairs.draw(weights, batch, seed)
    while (progress := clock.tick()) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(1e-3, progress)
        index = next(batches)
        english = mean_vectors(table, pairs.english, index, dropout=0.1)
        other = mean_vectors(table, pairs.other, index, dropout=0.1)
        loss = ranking_loss(english, other, pairs.conflicts(index), temperature=0.05)
        if teacher is not None:
            loss = loss + teacher.loss(english, index) + teacher.loss(other, index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if clock.step % 100 == 0:
            LOG.info("table step %d, %.1f min, loss %.3f", clock.step, clock.elapsed(), loss.item())
    return functional.layer_norm(table.detach(), (width,))
