"""One mini-batch of a contrastive step, 11 texts of 90 tokens, five times: without gradients, with them, and backward.

Adapters computed by ours and by peft's own forward pass, without and with dropout on what they read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import peers
import torch
from medium import VOCABULARY, adapted, flops

ROWS, LENGTH, TIMES, DROPOUT = 11, 90, 5, 0.1


def ways() -> tuple[str, ...]:
    """Ours first."""
    return ("ours", "adapters by peft", "ours, dropout", "adapters by peft, dropout")


def warm_up(work: Callable[[int], None]) -> None:
    """Once, where it is measured five times."""
    work(1)


def prepare(folder: Path, way: str) -> tuple[Callable[..., None], dict[str, float]]:
    """A function that runs the mini-batch some times, and what it does."""
    model = adapted(folder, dropout=DROPOUT if way.endswith("dropout") else 0.0)
    if "peft" in way:
        peers.as_peft(model)
    model.train()
    ids = torch.randint(5, VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    tokens = ROWS * LENGTH

    def work(times: int = TIMES) -> None:
        for _ in range(times):
            with torch.no_grad():
                model(ids)
            model(ids).embedding.sum().backward()

    # Backward computes gradients of what the layers read.
    return work, {"tokens": TIMES * tokens, "flops": TIMES * 3 * flops([LENGTH] * ROWS)[0]}
