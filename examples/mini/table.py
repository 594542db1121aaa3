"""First phase: one vector a piece, so that the mean over a sentence says what the teacher says of it."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from batches import Clock, English, Pairs, Texts, learning_rate, ranking_loss
from switch import Switcher
from teacher import Teacher

LOG = logging.getLogger("mini")
RATE = 1e-3
BATCH = 1024
DROPOUT = 0.15
"""Chance that a piece is left out, so that no single piece carries a sentence."""
COMMON = 20
"""A piece that English texts have more often starts from the teacher's vector of it, others from nearly nothing."""


def bag_sum(table: torch.Tensor, ids: torch.Tensor, offsets: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
    """Sum of the vectors of each text's pieces, (texts, width); its direction is that of the mean."""
    keep = (torch.rand(len(ids)) >= dropout).float() if dropout else torch.ones(len(ids))
    return functional.embedding_bag(ids, table, offsets, mode="sum", per_sample_weights=keep)


def initial_table(tokenizer: PreTrainedTokenizerFast, teacher: Teacher, english: Texts, seed: int) -> torch.Tensor:
    """The teacher's vector of each common English piece, centred, rare pieces longer (as by inverse frequency)."""
    torch.manual_seed(seed)
    table = torch.randn(len(tokenizer), teacher.vectors.shape[1]) * 0.02
    count = np.bincount(english.flat, minlength=len(tokenizer))
    common = np.flatnonzero(count > COMMON)
    words = [piece.replace("▁", " ").strip() or "." for piece in tokenizer.convert_ids_to_tokens(common.tolist())]
    vectors = teacher.model.encode(words, batch_size=256, convert_to_tensor=True, show_progress_bar=False).float()
    share = torch.from_numpy(count[common] / count.sum()).float()
    table[common] = (vectors - vectors.mean(dim=0)) * (0.4 * 1e-3 / (1e-3 + share)).unsqueeze(1)
    return table


def train_table(
    start: torch.Tensor,
    pairs: Pairs,
    weights: np.ndarray,
    english: English,
    switcher: Switcher,
    teacher: Teacher,
    clock: Clock,
    seed: int,
) -> torch.Tensor:
    """Train the vectors (pieces, width) and return them.

    Both sides of a translation pair, English texts and code-switched ones should point where the teacher's vector of
    the English text does; and a sentence must find its translation among the others of the batch.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    table = torch.nn.Parameter(start)
    optimizer = torch.optim.Adam([table], lr=RATE, fused=True)
    batches = pairs.draw(weights, BATCH, seed)
    plain, mixed = (english.draw(BATCH, generator) for _ in range(2))
    while (progress := clock.tick()) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(RATE, progress)
        index = next(batches)
        left, right = (bag_sum(table, *side.bag(index), DROPOUT) for side in (pairs.english, pairs.other))
        loss = ranking_loss(left, right, pairs.conflicts(index), temperature=0.05)
        # Sums of a pair should be as long as each other too: lengths are the weights in a sentence's sum.
        loss = loss + 0.5 * (1 - _overlap(left.detach(), right)).mean()
        loss = loss + teacher.loss(left, pairs.teacher[index]) + teacher.loss(right, pairs.teacher[index])
        chosen = next(plain)
        loss = loss + teacher.loss(bag_sum(table, *english.texts.bag(chosen), DROPOUT), english.teacher[chosen])
        numbers, pieces = zip(*switcher.draw(next(mixed), generator), strict=True)
        offsets = torch.from_numpy(np.cumsum([0, *map(len, pieces[:-1])]))
        switched = bag_sum(table, torch.from_numpy(np.concatenate(pieces)).long(), offsets, DROPOUT)
        loss = loss + teacher.loss(switched, english.teacher[np.asarray(numbers)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if clock.step % 100 == 0:
            LOG.info("table step %d, %.1f min, loss %.3f", clock.step, clock.elapsed(), loss.item())
    return table.detach()


def _overlap(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """2ab / (aa + bb), (texts,): 1 where direction and length agree."""
    return 2 * (left * right).sum(1) / (left.square().sum(1) + right.square().sum(1) + 1e-6)
