"""One step of alignment: 16 texts of 128 tokens, 128 target tokens each, LLM frozen, half of the target masked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import peers
import torch
from medium import LLM, VOCABULARY, adapted, flops

from lusifer.model import build
from lusifer.model.alignment import LusiferForAlignment
from lusifer.model.bases.backbones import compile_layers
from lusifer.model.lusifer import LusiferModel

BATCH, LENGTH, ROWS = 16, 128, 4


def ways() -> tuple[str, ...]:
    """Ours first."""
    return ("ours", "ours compiled", "authors")


def prepare(folder: Path, way: str) -> tuple[Callable[[], float], dict[str, float]]:
    """A function that computes gradients and gives the loss, and what it does."""
    chance = torch.Generator().manual_seed(0)
    ids, labels = (torch.randint(5, VOCABULARY, (BATCH, LENGTH), generator=chance) for _ in range(2))
    mask = torch.ones_like(ids)
    hidden = torch.rand(labels.shape, generator=chance) < 0.5
    target = labels.masked_fill(hidden, 3)
    facts = {"tokens": 2 * BATCH * LENGTH, "flops": work()}
    if way == "authors":
        published = peers.Published(folder, partial(adapted, llm=False)).train()
        model = published.model
        loss = lambda rows: published.align(ids, mask, target, labels)  # noqa: E731
    else:
        model = ours = network(folder, adapted, way.endswith("compiled"))

        def loss(rows: slice) -> torch.Tensor:
            parts = (part[rows] for part in (ids, mask, target, torch.ones_like(target), labels))
            return ours(*parts, num_items_in_batch=BATCH * LENGTH).loss

    trained = [p for p in model.parameters() if p.requires_grad]

    def step() -> float:
        total, size = 0.0, BATCH if way == "authors" else ROWS
        for start in range(0, BATCH, size):  # the recipe's `mini_batch_size: 4`: parts add up to the batch's gradient
            part = loss(slice(start, start + size))
            part.backward()
            total += float(part.detach())
        for parameter in trained:
            parameter.grad = None
        return total

    return step, facts


def network(folder: Path, make: Callable[..., LusiferModel], compiled: bool = False) -> LusiferForAlignment:
    """The model of stage 1 with the LLM frozen, made by `medium.adapted` or what stands for it."""
    model = make(folder, llm=False)
    model.config.alignment_bos = False
    head = build.read_lm_head(build.Base(str(folder / "llm")))
    ours = LusiferForAlignment(model.config, model, head).train()
    if compiled:
        compile_layers(ours)
    return ours


def work() -> float:
    """Useful operations: forward, and gradients of what the layers read (weights train in a few thin layers only)."""
    prompt = flops([LENGTH] * BATCH)[0]
    m, n = LENGTH + 1, LENGTH
    body = 8 * (2 * n * (3 * 512 * 512 + 3 * 512 * 1408) + 4 * ((m + n) ** 2 - m * m) * 512)
    head = 2.0 * n * LLM["hidden_size"] * VOCABULARY
    return 2 * (prompt + BATCH * (body + head))
