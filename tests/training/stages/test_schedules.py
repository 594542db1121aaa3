"""The learning rate over a stage, and how long its steps take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import TrainerState, TrainingArguments, get_scheduler

from lusifer.training.folder import RunFolder
from lusifer.training.recipe.load import load_recipe
from lusifer.training.stages import trainer
from lusifer.training.stages.trainer import AlignmentArguments, MetricsLog, arguments


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_a_schedule_ends_at_its_lowest_learning_rate(schedule: str, tmp_path: Path) -> None:
    changes = ["learning_rate=0.01", f"schedule={schedule}", "max_steps=20", "warmup_ratio=0.1"]
    changes += [] if schedule == "constant" else ["min_learning_rate=0.002"]
    recipe = load_recipe("tiny", [f"stages.alignment.{change}" for change in changes])
    stage = recipe.stages[0]
    settings = AlignmentArguments(**arguments(recipe, stage, tmp_path, 20, 0, False))
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


def test_the_seconds_of_a_step_are_without_those_of_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [100.0], []
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: now[0])
    log = MetricsLog(RunFolder(tmp_path), "align", lambda row, steps: told.append(row))
    state = TrainerState(max_steps=10, is_world_process_zero=True)
    log.on_train_begin(TrainingArguments(str(tmp_path)), state, None)
    for step in (5, 10):
        now[0], state.global_step = now[0] + 10, step
        now[0] += 7  # a measurement, at the same step as the line of the log
        log.leave_out(7)
        log.write({"watch": {}}, state)
        log.on_log(None, state, None, logs={"loss": 1.0})
    assert [row["seconds"] for row in told if "loss" in row] == [2.0, 2.0]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4
    assert "seconds" not in (tmp_path / "metrics.jsonl").read_text()
