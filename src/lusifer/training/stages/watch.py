"""Watching the gap between languages while a stage trains: measure, remember the best, end the stage in time.

What is measured is the model that a checkpoint of that step would hold, on the one way from text to vector that there
is (`SentenceTransformer.encode`). Training does not notice: modes and the random generator are put back. The first
process measures, the others wait for its number and decide by it, so all of them stop at one step. What was decided
lies in every checkpoint, so a resumed stage goes on as an unbroken one would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback

from lusifer import language_gap
from lusifer.embedder.assemble import lusifer_model
from lusifer.errors import LusiferError
from lusifer.io.atomic import write_file
from lusifer.model import adapters
from lusifer.model.adapters import TRAINABLE
from lusifer.model.lusifer import LusiferModel
from lusifer.training.folder import BEST, WATCH
from lusifer.training.recipe.data import Watch
from lusifer.training.recipe.stage import StageSettings
from lusifer.training.stages.trainer import StageTrainer

_MEANS = ("retrieval", "margin", "shift", "shift_share", "hubness", "anisotropy", "own_language", "predicted")

Write = Callable[[dict[str, Any], Any], None]
"""Takes a row of the log and the trainer's state."""


@dataclass
class Course:
    """What was measured so far.

    `best` value, `best_step`, the last step that had it (where a measure is at its top the model may still learn what
    it does not show), measurements `waited` since the value rose, and the step at which the stage was `stopped`, None
    if it was not.
    """

    best: float | None = None
    best_step: int | None = None
    waited: int = 0
    stopped: int | None = None

    def add(self, step: int, value: float, patience: int | None) -> bool:
        """Take one measurement in (higher is better), and say whether it is the best so far."""
        rose = self.best is None or value > self.best
        self.waited = 0 if rose else self.waited + 1
        if patience is not None and self.waited >= patience:
            self.stopped = step
        if not rose and value != self.best:
            return False
        self.best, self.best_step = value, step
        return True


class Watcher(TrainerCallback):
    """Measures every so many steps, keeps the best tensors where the recipe has `patience`, and stops the trainer."""

    def __init__(self, watch: Watch, embedder: SentenceTransformer, max_seq_length: int, write: Write) -> None:
        self.watch, self.max_seq_length, self.write = watch, max_seq_length, write
        self.texts = watch.read().texts
        self.model = lusifer_model(embedder)
        # A shell of its own around the same modules: in a stage of pairs the trainer puts mixed precision on the other.
        self.embedder = SentenceTransformer(
            modules=list(embedder),
            prompts=embedder.prompts,
            default_prompt_name=embedder.default_prompt_name,
            device=str(self.model.device),
        )
        self.course = Course()
        self.tensors: dict[str, torch.Tensor] = {}
        """What trains, at the best step, on the CPU of the first process; empty without `patience`."""

    @property
    def stopped(self) -> bool:
        """Whether the stage was ended."""
        return self.course.stopped is not None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure if it is time, on the first process, and let all of them stop together."""
        if state.global_step % self.watch.every and state.global_step < state.max_steps:
            return
        found = self.measure() if state.is_world_process_zero else None
        value = 0.0 if found is None else found.mean(self.watch.metric)
        value = float(broadcast(torch.tensor([value], dtype=torch.float64, device=args.device)))
        value = round(value, 6)  # equal counts in other languages must not differ by the rounding of their mean
        best = self.course.add(state.global_step, value, self.watch.patience)
        if found is not None:
            if best and self.watch.patience is not None:
                self.tensors = adapters.trainable_state_dict(self.model)
            row = {"metric": self.watch.metric, "value": value, **asdict(self.course), **_row(found)}
            self.write({"watch": row}, state)
        if self.stopped:
            control.should_training_stop = control.should_save = True

    def measure(self) -> language_gap.Gap:
        """The gap of the model as it stands; the model is left as it was."""
        settings = {"batch_size": 32, "normalize_embeddings": True, "show_progress_bar": False}
        with self._as_finished():
            return language_gap.measure(lambda texts: self.embedder.encode(list(texts), **settings), self.texts)

    def save(self, folder: Path, step: int) -> None:
        """Put into the checkpoint of `step` what a resume needs: the course, and the best tensors if not its own."""
        (folder / WATCH).write_text(json.dumps(asdict(self.course)), encoding="utf-8")
        if self.tensors and self.course.best_step != step:
            save_file(self.tensors, folder / BEST)

    def load(self, checkpoint: Path, step: int) -> None:
        """Go on from the checkpoint of `step`.

        Raises:
            LusiferError: A file of it is missing or damaged.
        """
        file = checkpoint / WATCH
        try:
            self.course = Course(**json.loads(file.read_text(encoding="utf-8")))
            # The first process writes the model.
            if self.watch.patience is not None and self.course.best_step is not None and PartialState().is_main_process:
                file = checkpoint / (TRAINABLE if self.course.best_step == step else BEST)
                self.tensors = load_file(file)
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise LusiferError(
                f"{file}: missing or damaged; remove {checkpoint} to resume from the checkpoint before it"
            ) from error

    def finish(self, model: LusiferModel, folder: Path, last: int) -> None:
        """Put the best tensors back where the recipe has `patience`; `watch.json` says which step the model is from.

        The model's adapters are not merged yet; `last` is the number of steps that were trained.
        """
        if self.tensors and self.course.best_step != last:
            adapters.load_trainable_state_dict(model, self.tensors)
        taken = self.course.best_step if self.tensors else last
        about = {"parallel": self.watch.parallel.rpartition("/")[2], "languages": list(self.texts)}
        told = self.watch.model_dump() | about | asdict(self.course) | {"model_step": taken}
        with write_file(folder / WATCH) as temporary:
            temporary.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    @contextmanager
    def _as_finished(self) -> Iterator[None]:
        """Evaluation mode and the finished model's length of text; then everything as it was."""
        modes = [(module, module.training) for module in self.embedder.modules()]
        length, self.embedder.max_seq_length = self.embedder.max_seq_length, self.max_seq_length
        device = self.model.device
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                yield
        finally:
            self.embedder.max_seq_length = length
            for module, mode in modes:
                module.training = mode


def attach(trainer: StageTrainer, stage: StageSettings, write: Write, checkpoint: Path | None) -> None:
    """Let a stage be watched if its recipe says so, from where its checkpoint left off.

    Raises:
        DataError: The parallel text cannot be read.
        LusiferError: The checkpoint does not hold what was decided before it.
    """
    if stage.watch is None:
        return
    trainer.watcher = Watcher(stage.watch, trainer.embedder, trainer.max_seq_length, write)
    if checkpoint is not None:
        trainer.watcher.load(checkpoint, trainer.first_step)
    trainer.add_callback(trainer.watcher)


def _row(found: language_gap.Gap) -> dict[str, Any]:
    """The numbers of a line: means over languages, and retrieval by language."""
    means = {name: None if (value := found.mean(name)) is None else round(value, 6) for name in _MEANS}
    return {"means": means, "retrieval": {code: round(row.retrieval, 4) for code, row in found.against.items()}}
