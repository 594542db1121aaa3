"""The common part of both trainers: checkpoints, also of the best score, strict resuming, and the log.

A stage stops at the first loss that is NaN or infinite. The training loops are transformers' Trainer (alignment) and
sentence-transformers' trainer (contrastive).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from transformers import TrainerCallback, TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from lusifer.embedder.assemble import lusifer_model
from lusifer.errors import LusiferError, UsageError
from lusifer.io.files import full_disk_named
from lusifer.io.weights import TRAINABLE, TRAINABLE_NAMES
from lusifer.model import adapters
from lusifer.training import checkpoints, processes
from lusifer.training.folder import RunFolder, bad_batch
from lusifer.training.recipe.load import resolved_yaml
from lusifer.training.recipe.recipe import Recipe
from lusifer.training.recipe.stage import StageSettings

FIX = "lower the learning rate or set bf16: false, and start a new run in another --output; the checkpoints stay"
SCHEDULES: dict[str, tuple[str, Callable[[float], dict[str, float]]]] = {
    "cosine": ("cosine_with_min_lr", lambda least: {"min_lr": least}),
    "linear": ("polynomial", lambda least: {"lr_end": least, "power": 1.0}),
    "constant": ("constant_with_warmup", lambda least: {}),
}
"""Name in a recipe -> name in transformers, and its keywords for the final learning rate."""
SCORE = "eval_ndcg@10"
"""The name in the log of the score that chooses the best weights."""


class StageTrainer:
    """Mixin for a Trainer class. Set its attributes before training."""

    embedder: SentenceTransformer
    max_seq_length: int
    """The maximum length that checkpoints store; a stage may truncate its texts to a smaller length."""
    first_step: int = 0
    """The number of steps that were done before this call."""
    score: Callable[[], dict[str, float]]
    """Scores the current model; only the first process calls it."""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the model with `score` and log the result, at the end of a step in which a callback requests it."""
        found = [self.score() if self.args.process_index == 0 else None]
        broadcast_object_list(found)
        self.log(found[0])
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found[0])
        return found[0]

    def _determine_best_metric(self, *args: Any, **kwargs: Any) -> bool:
        """Store the step of the best score as the library does, and write a checkpoint, regardless of `save_steps`."""
        best = super()._determine_best_metric(*args, **kwargs)
        self.control.should_save |= best
        return best

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Write a checkpoint as the library does, with its checksums; an error about a full disk names the folder."""
        folder = checkpoints.checkpoint(Path(self.args.output_dir), self.state.global_step)
        with full_disk_named(folder):
            super()._save_checkpoint(*args, **kwargs)
            if self.args.should_save:
                checkpoints.seal_checkpoint(folder)

    def _save_rng_state(self, output_dir: str) -> None:
        """Write the random state of this process, and wait for the other processes.

        Then the first process writes `trainer_state.json`, which makes a checkpoint complete, and deletes older ones.
        """
        super()._save_rng_state(output_dir)
        processes.state().wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Write a checkpoint: a model folder that can be loaded, and the trainable tensors."""
        if not self.args.should_save:  # the library calls this on every process
            return
        folder = Path(output_dir or self.args.output_dir)
        model = lusifer_model(self.embedder)
        tensors = adapters.trainable_state_dict(model)
        broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
        if broken:
            raise LusiferError(
                f"{broken[0]} is NaN or infinite at step {self.state.global_step}, so no checkpoint is written: {FIX}"
            )
        trained_on, self.embedder.max_seq_length = self.embedder.max_seq_length, self.max_seq_length
        try:
            self.embedder.save_pretrained(str(folder), create_model_card=False)
        finally:
            self.embedder.max_seq_length = trained_on
        save_file(tensors, folder / TRAINABLE)
        (folder / TRAINABLE_NAMES).write_text(json.dumps({"tensors": sorted(tensors)}, indent=1), encoding="utf-8")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """Load the trainable tensors; the frozen ones are loaded from the start of the stage."""
        tensors = load_file(Path(resume_from_checkpoint) / TRAINABLE)  # `last_checkpoint` checked that it exists
        adapters.load_trainable_state_dict(lusifer_model(self.embedder), tensors)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run a step as the library does. If its loss is NaN or infinite, save the batch and stop.

        Raises:
            LusiferError: The loss is NaN or infinite.
        """
        loss = super().training_step(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss).all():
            file = Path(self.args.output_dir) / bad_batch(self.args.process_index)
            tensors = {key: value.cpu().contiguous() for key, value in inputs.items() if torch.is_tensor(value)}
            save_file(tensors, file)
            raise LusiferError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}; the batch is in {file}: {FIX}"
            )
        return loss


class MetricsLog(TrainerCallback):
    """Appends the trainer's log to metrics.jsonl, and passes it to a listener, such as a progress bar.

    Args:
        run: The run.
        stage: The name of the stage.
        listen: Called with each row and the number of steps.
    """

    def __init__(self, run: RunFolder, stage: str, listen: Callable[[dict[str, Any], int], None]) -> None:
        self.run, self.stage, self.listen = run, stage, listen
        self._since = (0.0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Apply the intervals of the current recipe: a resumed state has those of the earlier call."""
        state.compute_steps(args, state.max_steps)
        self._since = (time.perf_counter(), state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        """Write a line: stage, step and the numbers. The listener also gets the seconds a step since the last line."""
        if state.is_world_process_zero:
            now, (then, before) = time.perf_counter(), self._since
            self._since = (now, state.global_step)
            self.write(logs or {}, state, seconds=(now - then) / max(1, state.global_step - before))

    def write(self, numbers: dict[str, Any], state: Any, **said: float) -> None:
        """Append a line with stage, step and numbers.

        Args:
            numbers: The numbers to write.
            state: The state of the trainer.
            **said: More numbers for the listener, which are not written.
        """
        row = {"stage": self.stage, "step": state.global_step, **numbers}
        with full_disk_named(self.run.metrics), self.run.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        self.listen({**row, **said}, state.max_steps)

    def leave_out(self, seconds: float) -> None:
        """Subtract seconds that no step took from the time of the steps."""
        self._since = (self._since[0] + seconds, self._since[1])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report a finished step, so that a progress bar moves between two lines of the log."""
        if state.is_world_process_zero:
            self.listen({"event": "step", "stage": self.stage, "step": state.global_step}, state.max_steps)


def sharers(stage: StageSettings) -> int:
    """Count the processes, among which the batch is divided.

    Raises:
        UsageError: The batch cannot be divided evenly.
    """
    count = processes.state().num_processes
    if stage.batch_size % count:
        words = f"{stage.batch_size} is not a multiple of the {count} processes: change one of them"
        raise UsageError(f"stages.{stage.name}.batch_size: {words}")
    return count


@dataclass
class AlignmentArguments(TrainingArguments):
    """`TrainingArguments` with the recipe, for the services of `report_to`."""

    recipe: str | None = None
    """The resolved recipe as YAML."""


@dataclass
class PairArguments(SentenceTransformerTrainingArguments):
    """`SentenceTransformerTrainingArguments` with the recipe, for the services of `report_to`."""

    recipe: str | None = None
    """The resolved recipe as YAML."""


def refuse_reporters(recipe: Recipe) -> None:
    """Refuse a service in `report_to` whose package is not installed, before anything is read.

    Raises:
        UsageError: A package is not installed.
    """
    there = get_available_reporting_integrations()
    if missing := [name for name in recipe.report_to if name not in there]:
        raise UsageError(f"report_to: {missing[0]} is not installed: pip install {missing[0]}, or remove it")


def kept_checkpoints(stage: StageSettings) -> int:
    """The number of checkpoints to keep: at least the last one, and with `evaluate` also the best one."""
    return max(stage.keep_checkpoints, 2 if stage.evaluate else 1)


def arguments(recipe: Recipe, stage: StageSettings, folder: Path, steps: int, seed: int, bf16: bool) -> dict[str, Any]:
    """Make the keywords of `transformers.TrainingArguments` for a stage.

    Args:
        recipe: The recipe.
        stage: The stage.
        folder: The folder for checkpoints.
        steps: The steps of the stage.
        seed: The seed of the stage.
        bf16: Whether to use mixed precision.
    """
    flat = stage.min_learning_rate == stage.learning_rate  # the library refuses this with a linear schedule
    schedule, keywords = SCHEDULES["constant" if flat else stage.schedule]
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": schedule,
        "lr_scheduler_kwargs": keywords(stage.min_learning_rate),
        "warmup_steps": stage.warmup(steps),
        "weight_decay": stage.weight_decay,
        "max_grad_norm": stage.max_grad_norm,
        "bf16": bf16,
        "gradient_checkpointing": stage.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if stage.gradient_checkpointing else None,
        "save_steps": stage.save_steps,
        "save_total_limit": kept_checkpoints(stage),
        "metric_for_best_model": SCORE if stage.evaluate else None,
        "greater_is_better": True if stage.evaluate else None,
        "logging_steps": stage.logging_steps,
        "logging_nan_inf_filter": False,
        "seed": seed,
        "log_level_replica": "error",  # only the first process logs
        "report_to": list(recipe.report_to) or "none",
        "run_name": f"{recipe.name}-{stage.name}",
        "recipe": resolved_yaml(recipe),
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
        "ddp_timeout": processes.WAIT_HOURS * 3600,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def free_space_for(folder: Path, stage: StageSettings, model: torch.nn.Module) -> None:
    """Refuse a stage whose checkpoints do not fit on the disk, before it starts.

    Args:
        folder: The folder for checkpoints.
        stage: The stage.
        model: The model with its adapters.

    Raises:
        LusiferError: There is too little space.
    """
    left_out = model.delta.bases if model.delta else ()
    whole = [backbone for backbone in adapters.adapted_backbones(model) if backbone not in left_out]
    size = sum(
        p.numel() * (4 if adapters.part_of(name) in whole else p.element_size())
        for name, p in model.named_parameters()
        if adapters.part_of(name) not in left_out or ".lora_" in name
    )
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # A folder, and float32 trainable weights with two Adam moments, for each kept checkpoint and the one being written.
    needed = (kept_checkpoints(stage) + 1) * (size + 3 * 4 * trainable) + size
    needed += 4 * trainable if stage.evaluate else 0  # the weights before the first step may be the best
    # Existing checkpoints of this stage are deleted as new ones are written.
    there = sum(file.stat().st_size for file in folder.glob("checkpoint-*/**/*") if file.is_file())
    free = shutil.disk_usage(folder).free
    if needed > free + there:
        raise LusiferError(
            f"{folder}: checkpoints need about {needed / 1e9:.1f} GB, and {(free + there) / 1e9:.1f} GB are free for "
            "them: lower keep_checkpoints or choose another --output"
        )
