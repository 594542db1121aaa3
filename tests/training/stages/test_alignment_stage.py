"""Stage 1's mini-batches hold texts of like length, and a step is the same however it is cut."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import TrainingArguments

from lusifer.model.build import make_tiny_bases
from lusifer.training.objectives.examples import AlignmentExamples
from lusifer.training.stages.alignment import AlignmentTrainer, StepsByLength
from support.small_run import train

PASSAGES = Dataset.from_dict({"text": ["a" * (1 + 37 * n % 101) for n in range(101)]})


def stage(contrast: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(distill_contrast=contrast)


def examples(*objectives: str) -> AlignmentExamples:
    weights = dict.fromkeys(objectives, 1)
    return AlignmentExamples([(PASSAGES, "reconstruct")], weights, batch_size=12, steps=9, seed=3)


@pytest.mark.parametrize("objective", ["reconstruction", "distill"])
def test_a_step_keeps_its_rows_and_has_the_longest_first(objective: str) -> None:
    made = examples(objective)
    order = list(StepsByLength(made, stage()))
    assert len(order) == len(StepsByLength(made, stage())) == len(made)
    for step in range(made.steps):
        numbers = order[12 * step : 12 * step + 12]
        assert sorted(numbers) == list(range(12 * step, 12 * step + 12))
        lengths = [len(made[number]["source_text"]) for number in numbers]
        assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) > 1


def test_the_contrast_of_distill_keeps_the_texts_that_were_drawn_together() -> None:
    assert list(StepsByLength(examples("distill"), stage(0.1))) == list(range(108))
    mixed = examples("reconstruction", "distill")
    order, plain = (list(StepsByLength(mixed, stage(contrast))) for contrast in (0.1, 0.0))
    drawn = {step: order[12 * step : 12 * step + 12] == list(range(12 * step, 12 * step + 12)) for step in range(9)}
    assert drawn == {step: mixed.objective(step).name == "distill" for step in range(9)}
    assert len(set(drawn.values())) == 2
    assert all(
        order[12 * step : 12 * step + 12] == plain[12 * step : 12 * step + 12] for step in range(9) if not drawn[step]
    )


@pytest.mark.parametrize("contrast", [0.0, 0.1])
def test_the_trainer_reads_steps_in_this_order(contrast: float, tmp_path: Path) -> None:
    made = examples("distill", "reconstruction")
    settings = TrainingArguments(tmp_path, per_device_train_batch_size=4, use_cpu=True, remove_unused_columns=False)
    trainer = AlignmentTrainer(
        model=torch.nn.Linear(1, 1), args=settings, train_dataset=made,
        data_collator=lambda rows: [row["index"] for row in rows], stage=stage(contrast), teacher=None,
    )  # fmt: skip
    read = [number for batch in trainer.get_train_dataloader() for number in batch]
    assert read == list(StepsByLength(made, stage(contrast))) != list(range(len(made)))


@pytest.mark.slow
def test_mini_batches_of_any_size_have_the_loss_and_gradient_norm_of_the_whole_step(tmp_path: Path) -> None:
    encoder, llm = make_tiny_bases(tmp_path / "bases", 0)
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps(config | quiet))
    rows = {}
    for size in (8, 2):
        run = tmp_path / str(size)
        settings = ["max_steps=3", "logging_steps=1", "lora.encoder.dropout=0.0", "batch_size=8"]
        overrides = [f"stages.0.{setting}" for setting in (*settings, f"mini_batch_size={size}")]
        bases = [f"model.encoder.path={encoder}", f"model.llm.path={llm}", "stages.1.max_steps=1"]
        train("tiny", run, overrides=[*bases, *overrides])
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        rows[size] = [(row["loss"], row["grad_norm"]) for row in lines if "grad_norm" in row][:3]
    assert len(rows[2]) == 3
    assert rows[2] == [pytest.approx(row, rel=1e-4) for row in rows[8]]
