"""The learning rate over a stage: up in the warm-up, down to where the recipe says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments, get_scheduler

from lusifer.training.recipe.load import load_recipe
from lusifer.training.stages.trainer import arguments


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_a_schedule_ends_at_its_lowest_learning_rate(schedule: str, tmp_path: Path) -> None:
    changes = ["learning_rate=0.01", f"schedule={schedule}", "max_steps=20", "warmup_ratio=0.1"]
    changes += [] if schedule == "constant" else ["min_learning_rate=0.002"]
    stage = load_recipe("tiny", [f"stages.alignment.{change}" for change in changes]).stages[0]
    settings = TrainingArguments(**arguments(stage, tmp_path, 20, 0, False))
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=stage.learning_rate)
    kind, keywords = settings.lr_scheduler_type, settings.lr_scheduler_kwargs
    schedule_of = get_scheduler(kind, optimizer, 2, 20, scheduler_specific_kwargs=keywords)
    rates = []
    for _ in range(20):
        optimizer.step()
        schedule_of.step()
        rates.append(schedule_of.get_last_lr()[0])
    assert max(rates) == pytest.approx(0.01) and rates[-1] == pytest.approx(0.01 if schedule == "constant" else 0.002)
