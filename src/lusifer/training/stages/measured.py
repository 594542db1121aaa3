"""What is measured while a stage trains: the gap between languages, and the score on pairs that are held back.

Training does not notice either. What is measured is the model that a checkpoint of that step holds, by
`SentenceTransformer.encode`. By the score the best weights are known; by the gap nothing is chosen.
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
        recipe: The whole run.
        stage: The stage.
        learned: The texts that it trains on.
        skipped: Gets the bad rows that were left out.

    Raises:
        UsageError: Training reads all of them, or there is nothing that a query could find in place of its answer.
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
            f"stages.{stage.name}.evaluate.data: training reads a text of each of the {found.left_out} rows: give "
            "other rows, or take evaluate out"
        )
    if all(len(positives) == len(found.corpus) for positives in found.relevant.values()):
        raise UsageError(
            f"stages.{stage.name}.evaluate.data: no query has a text that is not its answer ({found.rows} rows, "
            f"{len(found.corpus)} texts to search): every model scores 1: give more rows, or take evaluate out"
        )
    return found


class _Finished:
    """The model of a stage as it would be saved now, for `encode`."""

    def __init__(self, trainer: StageTrainer) -> None:
        self.max_seq_length = trainer.max_seq_length
        # A shell of its own around the same modules: in a stage of pairs the trainer puts mixed precision on the other.
        self.embedder = SentenceTransformer(
            modules=list(trainer.embedder),
            prompts=trainer.embedder.prompts,
            default_prompt_name=trainer.embedder.default_prompt_name,
            device=str(lusifer_model(trainer.embedder).device),
        )

    @contextmanager
    def _as_finished(self) -> Iterator[None]:
        """The finished model's length of text, and `encode`'s evaluation mode; then everything as it was."""
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
    """Measures the gap between languages every so many steps, on the first process; training does not notice.

    What is measured is the model that a checkpoint of that step holds, by `SentenceTransformer.encode`.

    Args:
        watch: How often, and on which parallel text.
        trainer: Its embedder is measured.
        log: Gets the row.
    """

    def __init__(self, watch: Watch, trainer: StageTrainer, log: MetricsLog) -> None:
        super().__init__(trainer)
        self.watch, self.log = watch, log
        self.texts = watch.read().texts

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure if it is time; other processes wait for the first one at the next step's gradients."""
        due = state.global_step % self.watch.every == 0 or state.global_step >= state.max_steps
        if due and state.is_world_process_zero:
            started = time.perf_counter()
            found = self.measure()
            self.log.leave_out(time.perf_counter() - started)
            means = {name: None if (value := found.mean(name)) is None else round(value, 6) for name in _MEANS}
            retrieval = {code: round(row.retrieval, 4) for code, row in found.against.items()}
            self.log.write({"watch": {"means": means, "retrieval": retrieval}}, state)

    def measure(self) -> language_gap.Gap:
        """The gap of the model as it stands; the model is left as it was."""
        settings = {"batch_size": 32, "normalize_embeddings": True, "show_progress_bar": False}
        with self._as_finished():
            return language_gap.measure(lambda texts: self.embedder.encode(list(texts), **settings), self.texts)


class Judge(_Finished, TrainerCallback):
    """Scores the model on held pairs before the first step, every so many steps and after the last one.

    The library keeps the checkpoint of the best score (`StageTrainer.evaluate`); weights that were best before the
    first step are kept in a file of their own.

    Args:
        settings: How often, and whether the stage ends with the best weights.
        pairs: What to score on.
        trainer: Its embedder is scored.
        steps: Of the stage.
        listen: Gets an event when the best checkpoint is missing, and one at the end.
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
        # The prompts stand before the texts: rows have different ones, and an evaluator has one for all.
        self.evaluator = InformationRetrievalEvaluator(
            pairs.queries, pairs.corpus, pairs.relevant, accuracy_at_k=[1], precision_recall_at_k=[10],
            score_functions={"cosine": cos_sim}, query_prompt="", corpus_prompt="", write_csv=False,
        )  # fmt: skip

    def scores(self) -> dict[str, float]:
        """Score the model as it stands, in the names of the log."""
        with self._as_finished():
            found = self.evaluator(self.embedder)
        kept = ("ndcg@10", "accuracy@1", "mrr@10", "recall@10", "map@100")
        return {f"eval_{name}": round(float(found[f"cosine_{name}"]), 6) for name in kept}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score what the stage begins with, or look for the best checkpoint of one that goes on."""
        if state.global_step:
            self.look(state)
            return
        self.trainer._determine_best_metric(metrics=self.trainer.evaluate(), trial=None)
        if state.is_world_process_zero:
            save_file(adapters.trainable_state_dict(lusifer_model(self.trainer.embedder)), self.folder / START)
            checkpoints.seal(self.folder, [START])

    def look(self, state: TrainerState) -> None:
        """Forget a best score whose weights are gone or damaged, and say so: those of steps to come count."""
        file = self._file(state.best_global_step)
        if state.best_metric is not None and not (file.is_file() and checkpoints.damaged(file.parent) is None):
            self.listen({"event": "best gone", "step": state.best_global_step})
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a score when it is time."""
        control.should_evaluate |= state.global_step % self.every == 0 or state.global_step >= state.max_steps

    def finish(self, state: TrainerState) -> dict[str, Any]:
        """Put the best weights into the model, if the recipe says so, and say which they are.

        Args:
            state: Of the trainer after the last step.

        Returns:
            The `step` of the best score, that `score`, the `first` and the `last` one, and whether the best is `kept`.
        """
        self.look(state)
        scores = [row[SCORE] for row in state.log_history if SCORE in row]
        first, last = scores[0], scores[-1]
        step, score = state.best_global_step, state.best_metric
        if score is None:  # it is gone, and no step was left to be scored
            step, score = state.global_step, last
        if self.settings.keep_best and step != state.global_step:
            adapters.load_trainable_state_dict(lusifer_model(self.embedder), load_file(self._file(step)))
        best = {"step": step, "score": score, "first": first, "last": last, "kept": self.settings.keep_best}
        self.listen({"event": "best", **best})
        return best

    def _file(self, step: int | None) -> Path:
        """Where the weights of a step are that was the best one."""
        return checkpoints.checkpoint(self.folder, step) / TRAINABLE if step else self.folder / START
