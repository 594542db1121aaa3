"""One step of contrastive training: 32 queries, a positive and 7 negatives each, gradient cache, chunks of 4 rows.

"ours once" is without the cache: all of the batch is in memory, and embedded once.

An instruction of 24 words stands in front of every text, as the authors' code puts it, and texts are cut to 128 tokens:
21,268 tokens, and 36,864 positions where all are padded to the longest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import peers
import torch
from medium import adapted, flops, texts, tokenizer, words
from sentence_transformers.base.losses.gradcache import RandContext
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

from lusifer.embedder.assemble import assemble
from lusifer.model.bases.backbones import compile_layers
from lusifer.training.stages.losses import InfoNCE

ROWS, COLUMNS, CHUNK, TOKENS = 32, 9, 4, 1024
INSTRUCTION, LENGTH = 24, 128

Work = Callable[..., float]


def ways() -> tuple[str, ...]:
    """Ours, plain, compiled, without the cache; the library's loss with 32 rows (its default), 4, and our tokens."""
    pipelines = (f"pipeline, mini-batches of {size}" for size in (32, CHUNK, f"{TOKENS} tokens"))
    return ("ours", "ours compiled", "ours once", *pipelines, "authors")


def warm_up(work: Work) -> None:
    """One text, forward and backward: weights are read from their file, and the libraries have started."""
    work(warm=True)


def prepare(folder: Path, way: str) -> tuple[Work, dict[str, float]]:
    """A function that computes gradients and gives the loss, and what it does."""
    own, told = tokenizer(), " ".join(words()[:INSTRUCTION])
    rows = [f"{told} {text}" for text in texts(ROWS * COLUMNS, seed=1)]
    lengths = [len(ids) for ids in own(rows, truncation=True, max_length=LENGTH)["input_ids"]]
    # Two forward passes are the method's; the backward one computes gradients of what the layers read.
    facts = {"texts": len(rows), "tokens": sum(lengths), "flops": 3 * sum(flops(lengths))}
    columns = [rows[column * ROWS : (column + 1) * ROWS] for column in range(COLUMNS)]
    if way == "authors":
        model = peers.Published(folder, adapted).train()
        kept = {"truncation": True, "max_length": LENGTH}
        padded = own(rows, **kept, padding=True, pad_to_multiple_of=8, return_tensors="pt")
        embed = lambda: model.embed(padded["input_ids"][:1], padded["attention_mask"][:1])  # noqa: E731
        step = lambda: cached(model, padded["input_ids"], padded["attention_mask"])  # noqa: E731
    else:
        if way.startswith("pipeline"):
            model = peers.chain(folder, adapted, merged=False, longest=LENGTH).train()
            kind = "mini_batch_num_tokens" if way.endswith("tokens") else "mini_batch_size"
            loss = CachedMultipleNegativesRankingLoss(model, **{kind: int(way.split()[3])})
        else:
            model = assemble(adapted(folder), own, max_seq_length=LENGTH).train()
            if way.endswith("compiled"):
                compile_layers(model)
            loss = InfoNCE(model, mini_batch_num_tokens=TOKENS)
            loss.caches = not way.endswith("once")
        embed = lambda: model(model.preprocess(rows[:1]))["sentence_embedding"]  # noqa: E731
        features = [model.preprocess(column) for column in columns]

        def step() -> float:
            value = loss(features, None)
            value.backward()
            return float(value.detach())

    trained = [p for p in model.parameters() if p.requires_grad]

    def whole(warm: bool = False) -> float:
        if warm:
            embed().sum().backward()
        value = 0.0 if warm else step()
        for parameter in trained:
            parameter.grad = None
        return value

    return whole, facts


def cached(published: peers.Published, ids: torch.Tensor, mask: torch.Tensor) -> float:
    """The loss, gradients left in the parameters: cached in chunks of 4 rows (36 texts), all padded to one length."""
    order = torch.arange(len(ids)).view(COLUMNS, ROWS).T.reshape(-1)
    parts, vectors, states = order.split(CHUNK * COLUMNS), [], []
    with torch.no_grad():
        for part in parts:
            states.append(RandContext(ids))
            vectors.append(published.embed(ids[part], mask[part]))
    leaf = torch.cat(vectors).requires_grad_()
    in_rows = leaf.view(ROWS, COLUMNS, -1)
    others = in_rows[:, 1:].transpose(0, 1).flatten(0, 1)
    scores = -torch.cdist(in_rows[:, 0], others) / 0.05
    value = torch.nn.functional.cross_entropy(scores, torch.arange(ROWS))
    value.backward()
    for part, state, gradient in zip(parts, states, leaf.grad.split(CHUNK * COLUMNS), strict=True):
        with state:
            vector = published.embed(ids[part], mask[part])
        (vector * gradient).sum().backward()
    return float(value.detach())
