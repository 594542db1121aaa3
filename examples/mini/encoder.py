"""Second phase: the vectors become the embedding layer of a small XLM-R encoder, trained further."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from batches import Clock, Pairs, Texts, learning_rate, ranking_loss
from teacher import Teacher

LOG = logging.getLogger("mini")


@dataclass(frozen=True)
class Shape:
    """Size of the transformer above the table."""

    layers: int = 2
    heads: int = 6
    feed_forward: int = 768


@dataclass(frozen=True)
class Losses:
    """Weights of what is added to the ranking of the mean states.

    ``state_ranking``: one random state of a sentence must find the mean of the translation.
    ``agreement``: every state is drawn towards the mean of the translation (one minus cosine).
    ``teacher``: the mean of either side is drawn towards the teacher's vector of the English side (one minus cosine).
    """

    state_ranking: float = 1.0
    agreement: float = 1.0
    teacher: float = 1.0


def build_encoder(table: torch.Tensor, tokenizer: PreTrainedTokenizerFast, shape: Shape, seed: int) -> XLMRobertaModel:
    """An encoder that starts from the table (pieces, width) and adds to each state the mean of the sentence.

    Attention starts nearly even, with values passed on unchanged, and the feed-forward parts start near
    zero: training then starts from what the table can do already, where a random start would lose it.
    """
    torch.manual_seed(seed)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=table.shape[1],
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = XLMRobertaModel(config, add_pooling_layer=False)
    width = table.shape[1]
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.copy_(table)
        model.embeddings.token_type_embeddings.weight.zero_()
        # Positions stay zero: the sequences trained on are short, and positions past their end would stay
        # untrained; word order differs between translations and would keep their states apart.
        model.embeddings.position_embeddings.weight.zero_()
        for layer in model.encoder.layer:
            layer.attention.self.value.weight.copy_(torch.eye(width))
            layer.attention.output.dense.weight.copy_(2.0 * torch.eye(width))
            layer.output.dense.weight.mul_(0.2)
    model.embeddings.position_embeddings.weight.requires_grad_(False)
    model.embeddings.token_type_embeddings.weight.requires_grad_(False)
    return model


def states_and_mean(model: XLMRobertaModel, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states (texts, length, width) and their mean over the mask (texts, width)."""
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    share = mask.unsqueeze(-1).to(states.dtype)
    return states, (states * share).sum(1) / share.sum(1)


def agreement_loss(states: torch.Tensor, mask: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One minus the cosine of each state to ``target`` (texts, width), averaged over texts and states."""
    cosine = functional.cosine_similarity(states, target.unsqueeze(1), dim=-1)
    return ((1.0 - cosine) * mask).sum() / mask.sum()


def pair_loss(
    model: XLMRobertaModel, pairs: Pairs, index: np.ndarray, losses: Losses, teacher: Teacher | None = None
) -> torch.Tensor:
    """The loss of one batch of pairs; see Losses."""
    conflicts = pairs.conflicts(index)
    sides = []
    for texts in (pairs.english, pairs.other):
        ids, mask = texts.padded(index)
        sides.append((mask, *states_and_mean(model, ids, mask)))
    (left_mask, left_states, left), (right_mask, right_states, right) = sides
    loss = ranking_loss(left, right, conflicts, temperature=0.05)
    if teacher is not None:
        loss = loss + losses.teacher * (teacher.loss(left, index) + teacher.loss(right, index))
    rows = torch.arange(len(index))
    for mask, states, target in ((left_mask, left_states, right), (right_mask, right_states, left)):
        if losses.state_ranking:
            picked = states[rows, torch.multinomial(mask.float(), 1).squeeze(1)]
            ranked = ranking_loss(picked, target, conflicts, temperature=0.05)
            loss = loss + losses.state_ranking / 2 * ranked
        if losses.agreement:
            # The mean is no part of what is pulled, or all means would be drawn to one point.
            loss = loss + losses.agreement / 2 * agreement_loss(states, mask, target.detach())
    return loss


def train_encoder(
    model: XLMRobertaModel,
    pairs: Pairs,
    weights: np.ndarray,
    losses: Losses,
    clock: Clock,
    seed: int,
    teacher: Teacher | None = None,
    batch: int = 128,
) -> None:
    """Train ``model`` in place by translation ranking of its mean states, and by a teacher where there is one."""
    torch.manual_seed(seed)
    table = model.embeddings.word_embeddings.weight
    others = [value for value in model.parameters() if value.requires_grad and value is not table]
    # The vectors of the table have variance 1, the layers' weights 0.02 squared.
    groups = [{"params": [table], "peak": 2e-3}, {"params": others, "peak": 5e-4}]
    optimizer = torch.optim.Adam(groups, lr=5e-4, betas=(0.9, 0.98), fused=True)
    batches = pairs.draw(weights, batch, seed, pools=8)
    model.train()
    while (progress := clock.tick()) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(group["peak"], progress)
        loss = pair_loss(model, pairs, next(batches), losses, teacher)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        optimizer.step()
        if clock.step % 20 == 0:
            LOG.info("encoder step %d, %.1f min, loss %.3f", clock.step, clock.elapsed(), loss.item())
    model.eval()


@torch.inference_mode()
def embed(
    model: XLMRobertaModel, tokenizer: PreTrainedTokenizerFast, texts: list[str], longest: int = 510, batch: int = 32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean states (texts, width) and the cosine of each text's states to their mean, on average (texts,)."""
    pieces = Texts(tokenizer, texts, longest)
    means = torch.empty(len(texts), model.config.hidden_size)
    agreement = torch.empty(len(texts))
    order = np.argsort(pieces.sizes, kind="stable")
    for start in range(0, len(texts), batch):
        index = order[start : start + batch]
        ids, mask = pieces.padded(index)
        states, mean = states_and_mean(model, ids, mask)
        cosine = functional.cosine_similarity(states, mean.unsqueeze(1), dim=-1)
        place = torch.from_numpy(index)
        means[place] = mean
        agreement[place] = (cosine * mask).sum(1) / mask.sum(1)
    return means, agreement
