"""A step of distill with its contrast on 64 texts of log-normal length: read in groups of like length, and as drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from alignment import network
from medium import LLM, LONGEST, adapted, texts, tokenizer

from lusifer.training.objectives import distill
from lusifer.training.objectives.examples import AlignmentCollator

BATCH = 64


def ways() -> tuple[str, ...]:
    """Ours first."""
    return ("ours", "rows as drawn")


def prepare(folder: Path, way: str) -> tuple[Callable[[], float], dict[str, float]]:
    """A function that computes gradients and gives the loss, and how many tokens it reads."""
    own = tokenizer()
    collate = AlignmentCollator(own, own, LONGEST, mask_probability=0.0)
    rows = [
        {"index": number, "objective": "distill", "source_text": text, "target_text": None}
        for number, text in enumerate(texts(BATCH))
    ]
    batch = collate(rows)
    batch["teacher"] = torch.randn(BATCH, LLM["hidden_size"], generator=torch.Generator().manual_seed(0))
    ours = network(folder, adapted)
    trained = [p for p in ours.parameters() if p.requires_grad]
    stage = SimpleNamespace(distill_contrast=0.3)

    def step() -> float:
        with mock.patch.object(distill, "GROUPS", distill.GROUPS if way == "ours" else 1):
            loss = distill.Distill().loss(ours, batch, stage)
        loss.backward()
        for parameter in trained:
            parameter.grad = None
        return float(loss.detach())

    return step, {"tokens": int(batch["attention_mask"].sum())}
