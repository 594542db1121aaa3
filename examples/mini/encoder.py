"""Second phase: the teacher's own layers above word vectors for many languages, trained further."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional
from transformers import BertModel, ElectraConfig, ElectraModel, PreTrainedTokenizerFast

from batches import Clock, English, Pairs, Texts, learning_rate, pad, ranking_loss
from switch import Switcher
from teacher import Teacher

LOG = logging.getLogger("mini")
TABLE_RATE, RATE = 1e-3, 3e-4
PAIRS, ENTRIES, ENGLISH, SWITCHED = 96, 256, 112, 144  # translation pairs, dictionary entries and texts of a step
CONTRAST = 0.2
"""Weight of the loss that tells a text's own vector of the teacher from those of other texts."""
DROPOUT = 0.1
"""Chance that a piece is hidden."""
NEIGHBOURS, SHARPNESS = 8, 0.05
ALONE = 30
"""A piece of ASCII letters that English texts have more often is an English piece."""


def build_encoder(
    table: torch.Tensor,
    tokenizer: PreTrainedTokenizerFast,
    teacher: Teacher,
    english: Texts,
    layers: Sequence[int],
    width: int,
) -> ElectraModel:
    """An encoder of ELECTRA's kind whose layers are some of the teacher's, which it knows how to read words with.

    The teacher's layers read the teacher's word vectors. An English piece gets those of its letters; any other piece
    the weighted mean over the English pieces that are nearest to it in `table`, where a word and its translation lie
    together. So the layers read another language from the start as if its words were translated one by one. Words
    are kept at `width` numbers each, and one linear layer brings them to the width of the layers: many pieces in few
    bytes.
    """
    old, size = teacher.bert, teacher.bert.config
    config = ElectraConfig(
        vocab_size=len(tokenizer),
        embedding_size=width,
        hidden_size=size.hidden_size,
        num_hidden_layers=len(layers),
        num_attention_heads=size.num_attention_heads,
        intermediate_size=size.intermediate_size,
        max_position_embeddings=size.max_position_embeddings,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = ElectraModel(config)
    for new, number in zip(model.encoder.layer, layers, strict=True):
        new.load_state_dict(old.encoder.layer[number].state_dict())
    _factorise(model, _word_vectors(table, tokenizer, teacher, english), old)
    for part in (model.embeddings.position_embeddings, model.embeddings.token_type_embeddings):
        part.requires_grad_(False)
    return model


@torch.no_grad()
def _factorise(model: ElectraModel, words: torch.Tensor, old: BertModel) -> None:
    """Set the embeddings so that the first layer reads nearly what the teacher's would for `words` (pieces, hidden).

    The teacher sums word, position and segment and normalises the sum. Here the sum is normalised at its smaller
    width, so the weight of that norm goes into the linear layer behind it, and a random rotation spreads the words
    over all numbers: the norm takes their mean away, which then is near zero.
    """
    theirs, ours = old.embeddings, model.embeddings
    norm = theirs.LayerNorm
    # The norm of the teacher takes the mean over the numbers away: what is left is what its layers read.
    places = theirs.position_embeddings.weight.float() + theirs.token_type_embeddings.weight[0].float()
    words, places = (part - part.mean(dim=1, keepdim=True) for part in (words.float(), places))
    width = ours.word_embeddings.weight.shape[1]
    _, _, axes = torch.linalg.svd(words * norm.weight, full_matrices=False)
    turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)))[0]
    axes = turn @ axes[:width]
    ours.word_embeddings.weight.copy_((words * norm.weight) @ axes.T)
    ours.position_embeddings.weight.copy_((places * norm.weight) @ axes.T)
    ours.token_type_embeddings.weight.zero_()
    sums = words + places[1:32].mean(dim=0)
    length = ((sums * norm.weight) @ axes.T).std(dim=1) / sums.std(dim=1)
    LOG.info("words at width %d keep %.3f of their length", width, _kept(words * norm.weight, axes))
    model.embeddings_project.weight.copy_(axes.T * length.median())
    model.embeddings_project.bias.copy_(norm.bias)


def _kept(vectors: torch.Tensor, axes: torch.Tensor) -> float:
    """Share of the squared length that lies along the axes."""
    return ((vectors @ axes.T).square().sum() / vectors.square().sum()).item()


def _word_vectors(
    table: torch.Tensor, tokenizer: PreTrainedTokenizerFast, teacher: Teacher, english: Texts
) -> torch.Tensor:
    """The first layer's input for each piece (pieces, width)."""
    theirs, words = teacher.model.tokenizer, teacher.bert.embeddings.word_embeddings.weight.detach().float()
    vocabulary = theirs.get_vocab()
    count = np.bincount(english.flat, minlength=len(tokenizer))
    vectors, anchors = torch.zeros(len(tokenizer), words.shape[1]), []
    for number, piece in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
        text = piece.replace("▁", " ").strip()
        if not text or not text.isascii() or count[number] <= ALONE:
            continue
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        if not piece.startswith("▁") and f"##{text}" in vocabulary:
            ids = [vocabulary[f"##{text}"]]
        if ids and theirs.unk_token_id not in ids:
            vectors[number] = words[ids].mean(dim=0)
            if len(ids) == 1 and len(text) > 1:
                anchors.append(number)
    known = vectors.abs().sum(dim=1) > 0
    near = functional.normalize(table[anchors], dim=-1)
    for rest in (~known).nonzero().squeeze(1).split(2000):
        value, place = (functional.normalize(table[rest], dim=-1) @ near.T).topk(min(NEIGHBOURS, len(anchors)), dim=1)
        share = (value / SHARPNESS).softmax(dim=1)
        mean = (share.unsqueeze(-1) * vectors[anchors][place]).sum(dim=1)
        # A mean is shorter than what it is made of, and the layers expect the usual length.
        vectors[rest] = functional.normalize(mean, dim=1) * vectors[known].norm(dim=1).mean()
    for name in ("cls_token", "sep_token", "pad_token", "unk_token"):
        vectors[getattr(tokenizer, f"{name}_id")] = words[getattr(theirs, f"{name}_id")]
    return vectors


def mean_states(model: ElectraModel, ids: torch.Tensor, mask: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
    """Mean of the last hidden states over the mask (texts, width), computed in bfloat16 where that is faster."""
    if dropout:
        mask = mask * ~((torch.rand(ids.shape) < dropout) & (ids > 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    share = mask.unsqueeze(-1).float()
    return (states.float() * share).sum(1) / share.sum(1)


def train_encoder(
    model: ElectraModel,
    pairs: Pairs,
    weights: tuple[np.ndarray, np.ndarray],
    english: English,
    switcher: Switcher,
    teacher: Teacher,
    clock: Clock,
    seed: int,
) -> None:
    """Train ``model`` in place towards the teacher's vectors, and by translation ranking of its mean states.

    ``weights`` are the chances of the rows of ``pairs`` for batches of sentences and for batches of dictionary entries.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    table = model.embeddings.word_embeddings.weight
    others = [value for value in model.parameters() if value.requires_grad and value is not table]
    groups = [{"params": [table], "peak": TABLE_RATE}, {"params": others, "peak": RATE}]
    optimizer = torch.optim.Adam(groups, lr=RATE, betas=(0.9, 0.98), fused=True)
    sentences, entries = (
        pairs.draw(chances, size, seed, pools=8) for chances, size in zip(weights, (PAIRS, ENTRIES), strict=True)
    )
    plain, mixed = (english.draw(size, generator, pools=8) for size in (ENGLISH, SWITCHED))
    model.train()
    while (progress := clock.tick()) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(group["peak"], progress)
        optimizer.zero_grad()
        # Part by part: one graph at a time is in memory.
        told = [_of_pairs(model, pairs, next(batches), teacher, generator) for batches in (sentences, entries)]
        chosen = next(plain)
        told.append(_of_english(model, *english.texts.padded(chosen), english.teacher[chosen], teacher, generator))
        numbers, pieces = zip(*switcher.draw(next(mixed), generator), strict=True)
        told.append(_of_english(model, *pad(pieces), english.teacher[np.asarray(numbers)], teacher, generator))
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        optimizer.step()
        if clock.step % 20 == 0:
            LOG.info("encoder step %d, %.1f min, losses %s", clock.step, clock.elapsed(), np.round(told, 3).tolist())
    model.eval()


def _of_pairs(
    model: ElectraModel, pairs: Pairs, index: np.ndarray, teacher: Teacher, generator: np.random.Generator
) -> float:
    """Gradients of one batch of translation pairs; returns the loss."""
    left, right = (mean_states(model, *side.padded(index), DROPOUT) for side in (pairs.english, pairs.other))
    numbers = pairs.teacher[index]
    loss = 2 * (teacher.loss(left, numbers) + teacher.loss(right, numbers))
    loss = loss + CONTRAST * teacher.contrast(right, numbers, generator)
    loss = loss + 0.5 * ranking_loss(left, right, pairs.conflicts(index), temperature=0.05)
    loss.backward()
    return loss.item()


def _of_english(
    model: ElectraModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    numbers: np.ndarray,
    teacher: Teacher,
    generator: np.random.Generator,
) -> float:
    """Gradients of one batch of English or code-switched texts; returns the loss."""
    means = mean_states(model, ids, mask, DROPOUT)
    loss = 2 * teacher.loss(means, numbers) + CONTRAST * teacher.contrast(means, numbers, generator)
    loss.backward()
    return loss.item()


@torch.inference_mode()
def embed(model: ElectraModel, tokenizer: PreTrainedTokenizerFast, texts: list[str], batch: int = 32) -> torch.Tensor:
    """Mean states (texts, width)."""
    pieces = Texts(tokenizer, texts, model.config.max_position_embeddings - 2)
    means = torch.empty(len(texts), model.config.hidden_size)
    order = np.argsort(pieces.sizes, kind="stable")
    for start in range(0, len(texts), batch):
        index = order[start : start + batch]
        means[torch.from_numpy(index)] = mean_states(model, *pieces.padded(index))
    return means
