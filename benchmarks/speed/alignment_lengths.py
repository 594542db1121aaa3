"""A step of alignment on 64 texts of log-normal length, mini-batches of 8: the trainer's order beside the drawn one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alignment import network
from datasets import Dataset
from medium import LONGEST, adapted, texts, tokenizer

from lusifer.training.objectives.examples import AlignmentCollator, AlignmentExamples
from lusifer.training.stages.alignment import StepsByLength

BATCH, ROWS = 64, 8


def ways() -> tuple[str, ...]:
    """Ours first."""
    return ("ours", "rows as drawn")


def prepare(folder: Path, way: str) -> tuple[Callable[[], float], dict[str, float]]:
    """A function that computes gradients and gives the loss, and how many tokens it reads and says."""
    own, table = tokenizer(), Dataset.from_dict({"text": texts(BATCH)})
    rows = AlignmentExamples([(table, "reconstruct")], {"reconstruction": 1}, batch_size=BATCH, steps=1, seed=0)
    order = list(StepsByLength(rows, None) if way == "ours" else range(BATCH))
    collate = AlignmentCollator(own, own, LONGEST, mask_probability=0.5)
    made = [collate([rows[number] for number in order[start : start + ROWS]]) for start in range(0, BATCH, ROWS)]
    for batch in made:
        del batch["objective"]
    labels = sum(int((batch["labels"] >= 0).sum()) for batch in made)
    ours = network(folder, adapted)
    ours.model.config.alignment_bos = True
    trained = [p for p in ours.parameters() if p.requires_grad]

    def step() -> float:
        total = 0.0
        for batch in made:
            part = ours(**batch, num_items_in_batch=labels).loss
            part.backward()
            total += float(part.detach())
        for parameter in trained:
            parameter.grad = None
        return total

    return step, {"tokens": sum(int(b["attention_mask"].sum() + (b["labels"] >= 0).sum()) for b in made)}
