"""Scores while a stage trains: the gap between languages (`watch`), and held-out pairs (`evaluate`).

They do not affect training. They are computed with the model that a checkpoint of that step contains, by
`SentenceTransformer.encode`. The score on held-out pairs can choose the best weights; the gap chooses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import cos_sim
from transformers import TrainerCallback, TrainerState

from lusifer import language_gap
from lusifer.data import held
from lusifer.data import sources as data_sources
from lusifer.data.held import HeldPairs
from lusifer.embedder.assemble import lusifer_model
from lusifer.errors import UsageError
from lusifer.io.rows import BadRows
from lusifer.io.weights import TRAINABLE
from lusifer.model import adapters
from lusifer.training import checkpoints
from lusifer.training.folder import START
from lusifer.training.recipe.data import Evaluate, Watch
from lusifer.training.recipe.recipe import Recipe, Stage
from lusifer.training.stages.trainer import SCORE, MetricsLog, StageTrainer

_MEANS = ("retrieval", "margin", "shift", "shift_share", "hubness", "anisotropy", "own_language", "predicted")


def read_held(recipe: Recipe, stage: Stage, learned: Iterable[str], skipped: list[str]) -> HeldPairs:
    """Read the pairs of `evaluate.data` of a stage.

    Args:
        recipe: The recipe.
        stage: The stage.
        learned: The texts that the stage trains on.
        skipped: A list to which the messages of skipped bad rows are added.

    Raises:
        UsageError: The stage trains on a text of each pair, or every text is an answer of each query.
        DataError: A row cannot be read.
    """
    parts = []
    for source in stage.evaluate.data:
        bad = BadRows(source.skip_bad)
        parts.append((data_sources.load(recipe.spec(stage, source), "pairs", bad), source))
        skipped += bad.messages
    found = held.collect(parts, learned)
    if not found.rows:
        raise UsageError(
            f"stages.{stage.name}.evaluate.data: the stage trains on a text of each of the {found.left_out} rows: give "
            "other rows, or remove evaluate"
        )
    if all(len(positives) == len(found.corpus) for positives in found.relevant.values()):
        raise UsageError(
            f"stages.{stage.name}.evaluate.data: all texts are answers of each query ({found.rows} rows, "
            f"{len(found.corpus)} texts to search), so every model scores 1: give more rows, or remove evaluate"
        )
    return found


class _Finished:
    """The model of a stage, in the state in which it would be saved now, for `encode`."""

    def __init__(self, trainer: StageTrainer) -> None:
        self.max_seq_length = trainer.max_seq_length
        # Another wrapper of the same modules: in a contrastive stage the trainer adds mixed precision to its own.
        self.embedder = SentenceTransformer(
            modules=list(trainer.embedder),
            prompts=trainer.embedder.prompts,
            default_prompt_name=trainer.embedder.default_prompt_name,
            device=str(lusifer_model(trainer.embedder).device),
        )

    @contextmanager
    def _as_finished(self) -> Iterator[None]:
        """Set the maximum length of the finished model, then restore the length, the modes and the random state."""
        modes = [(module, module.training) for module in self.embedder.modules()]
        length, self.embedder.max_seq_length = self.embedder.max_seq_length, self.max_seq_length
        device = self.embedder.device
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                yield
        finally:
            self.embedder.max_seq_length = length
            for module, mode in modes:
                module.training = mode


class Watcher(_Finished, TrainerCallback):
    """Computes the gap between languages during training, on the first process, without affecting training.

    Args:
        watch: The settings: how often, and on which parallel text.
        trainer: The trainer of the model.
        log: The log to write to.
    """

    def __init__(self, watch: Watch, trainer: StageTrainer, log: MetricsLog) -> None:
        super().__init__(trainer)
        self.watch, self.log = watch, log
        self.texts = watch.read().texts

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Compute the gap if it is due. Other processes wait for the first one at the next gradients."""
        due = state.global_step % self.watch.every == 0 or state.global_step >= state.max_steps
        if due and state.is_world_process_zero:
            started = time.perf_counter()
            found = self.measure()
            self.log.leave_out(time.perf_counter() - started)
            means = {name: None if (value := found.mean(name)) is None else round(value, 6) for name in _MEANS}
            retrieval = {code: round(row.retrieval, 4) for code, row in found.against.items()}
            self.log.write({"watch": {"means": means, "retrieval": retrieval}}, state)

    def measure(self) -> language_gap.Gap:
        """Compute the gap of the current model, without changing it."""
        settings = {"batch_size": 32, "normalize_embeddings": True, "show_progress_bar": False}
        with self._as_finished():
            return language_gap.measure(lambda texts: self.embedder.encode(list(texts), **settings), self.texts)


class Judge(_Finished, TrainerCallback):
    """Scores the model on held-out pairs before the first step, at intervals and after the last step.

    The library keeps the checkpoint with the best score (`StageTrainer.evaluate`). The weights before the first step
    are stored in a separate file.

    Args:
        settings: The settings: how often, and whether the stage ends with the best weights.
        pairs: The held-out pairs.
        trainer: The trainer of the model.
        steps: The steps of the stage.
        listen: Called with an event if the best checkpoint is missing, and with one at the end.
    """

    def __init__(
        self,
        settings: Evaluate,
        pairs: HeldPairs,
        trainer: StageTrainer,
        steps: int,
        listen: Callable[[dict[str, Any]], None],
    ) -> None:
        super().__init__(trainer)
        self.settings, self.trainer, self.listen = settings, trainer, listen
        self.every = settings.steps_between(steps)
        self.folder = Path(trainer.args.output_dir)
        trainer.score = self.scores
        # The texts have their prompts already: rows have different ones, and an evaluator has one for all.
        self.evaluator = InformationRetrievalEvaluator(
            pairs.queries, pairs.corpus, pairs.relevant, accuracy_at_k=[1], precision_recall_at_k=[10],
            score_functions={"cosine": cos_sim}, query_prompt="", corpus_prompt="", write_csv=False,
        )  # fmt: skip

    def scores(self) -> dict[str, float]:
        """Score the current model; the names are those of the log."""
        with self._as_finished():
            found = self.evaluator(self.embedder)
        kept = ("ndcg@10", "accuracy@1", "mrr@10", "recall@10", "map@100")
        return {f"eval_{name}": round(float(found[f"cosine_{name}"]), 6) for name in kept}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score the model before the first step, or check the best checkpoint of a resumed stage."""
        if state.global_step:
            self.look(state)
            return
        self.trainer._determine_best_metric(metrics=self.trainer.evaluate(), trial=None)
        if state.is_world_process_zero:
            save_file(adapters.trainable_state_dict(lusifer_model(self.trainer.embedder)), self.folder / START)
            checkpoints.seal(self.folder, [START])

    def look(self, state: TrainerState) -> None:
        """Drop the best score if its weights are missing or damaged, and report it: later scores count then."""
        file = self._file(state.best_global_step)
        if state.best_metric is not None and not (file.is_file() and checkpoints.damaged(file.parent) is None):
            self.listen({"event": "best gone", "step": state.best_global_step})
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Request a score if it is due."""
        control.should_evaluate |= state.global_step % self.every == 0 or state.global_step >= state.max_steps

    def finish(self, state: TrainerState) -> dict[str, Any]:
        """Load the best weights into the model if `keep_best` is set, and report them.

        Args:
            state: The state of the trainer after the last step.

        Returns:
            The `step` of the best score, the `score`, the `first` and the `last` score, and `kept`: whether the model
            has the best weights.
        """
        self.look(state)
        scores = [row[SCORE] for row in state.log_history if SCORE in row]
        first, last = scores[0], scores[-1]
        step, score = state.best_global_step, state.best_metric
        if score is None:  # the best weights are missing, and no later step was scored
            step, score = state.global_step, last
        if self.settings.keep_best and step != state.global_step:
            adapters.load_trainable_state_dict(lusifer_model(self.embedder), load_file(self._file(step)))
        best = {"step": step, "score": score, "first": first, "last": last, "kept": self.settings.keep_best}
        self.listen({"event": "best", **best})
        return best

    def _file(self, step: int | None) -> Path:
        """The file with the weights of the best step."""
        return checkpoints.checkpoint(self.folder, step) / TRAINABLE if step else self.folder / START
