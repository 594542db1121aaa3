"""Stage 1: alignment with `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch.utils.data import Sampler
from transformers import Trainer

from lusifer.data import sources as data_sources
from lusifer.embedder.assemble import lusifer_model
from lusifer.errors import UsageError
from lusifer.io import names
from lusifer.io.rows import BadRows
from lusifer.model import build
from lusifer.model.alignment import LusiferForAlignment
from lusifer.model.bases.reading import is_own
from lusifer.training.objectives import OBJECTIVES
from lusifer.training.objectives.examples import AlignmentCollator, AlignmentExamples
from lusifer.training.objectives.objective import Objective
from lusifer.training.recipe.recipe import AlignmentStage, Recipe
from lusifer.training.stages import teacher
from lusifer.training.stages.measured import read_held
from lusifer.training.stages.trainer import AlignmentArguments, StageTrainer, sharers


class StepsByLength(Sampler[int]):
    """Numbers of a stage's examples, step after step, the longest of each step first.

    Mini-batches are cut from them, and each is as wide as its longest text: cut from texts in drawn order, most of
    what is computed would be padding (benchmarks/padding.py). A step's gradient does not depend on how it was cut,
    except for objectives that compare the texts of a mini-batch: their steps stay as drawn.
    """

    def __init__(self, examples: AlignmentExamples, stage: Any) -> None:
        """Keep the examples; `stage` (an `AlignmentStage`) is what the objectives are asked with."""
        self.examples, self.stage = examples, stage

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[int]:
        size = self.examples.batch_size
        for step in range(self.examples.steps):
            numbers = range(step * size, (step + 1) * size)
            drawn = self.examples.objective(step).keeps_drawn_order(self.stage)
            yield from numbers if drawn else sorted(numbers, key=self.examples.characters, reverse=True)


class ObjectiveNetwork(LusiferForAlignment):
    """The network whose forward pass is the loss of a batch's objective."""

    def forward(self, objective: Objective, stage: AlignmentStage, **batch: Any) -> torch.Tensor:
        """Compute the loss (a scalar) of a batch of `AlignmentCollator`, `objective` being its objective."""
        return objective.loss(self, batch, stage)


class AlignmentTrainer(StageTrainer, Trainer):
    """The library's loop over examples whose order is fixed by their number."""

    def __init__(self, *args: Any, stage: AlignmentStage, teacher: SentenceTransformer | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stage, self.teacher = stage, teacher

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        """Steps in order: shuffling happened when the examples were made."""
        return StepsByLength(self.train_dataset, self.stage)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of one micro-batch; an objective that needs them gets the LLM's own vectors first."""
        objective = OBJECTIVES[inputs["objective"]]
        batch = {key: value for key, value in inputs.items() if torch.is_tensor(value)}
        if objective.needs_embedder:
            batch["teacher"] = teacher.vectors(self.teacher, batch)
        loss = model(objective=objective, stage=self.stage, **batch, num_items_in_batch=num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The count is over all processes and DDP takes the mean of their gradients: their sum is wanted.
            loss = loss * self.accelerator.num_processes
        return (loss, {"loss": loss}) if return_outputs else loss


def examples(recipe: Recipe, stage: AlignmentStage, seed: int) -> AlignmentExamples:
    """The rows of a stage in their order; `seed` is that of order, objective and direction.

    Raises:
        DataError: A row cannot be read.
        UsageError: An objective has no rows.
    """
    loaded, skipped = [], []
    for source in recipe.sources(stage):
        bad = BadRows(source.skip_bad)
        loaded.append((data_sources.load(recipe.spec(stage, source), source.row_kind, bad), source.role))
        skipped += bad.messages
    steps = stage.steps(sum(len(rows) for rows, _ in loaded))
    made = AlignmentExamples(loaded, stage.objectives, batch_size=stage.batch_size, steps=steps, seed=seed)
    made.skipped = skipped
    if stage.evaluate is not None:
        made.held = read_held(recipe, stage, made.texts(), skipped)
    return made


def trainer(
    recipe: Recipe,
    stage: AlignmentStage,
    embedder: SentenceTransformer,
    rows: AlignmentExamples,
    arguments: dict[str, Any],
) -> AlignmentTrainer:
    """Put a stage together.

    Args:
        recipe: The whole run, `auto` replaced.
        stage: The stage.
        embedder: Its model has adapters attached and the rest frozen.
        rows: As `examples` gives them.
        arguments: Keywords of `TrainingArguments`.

    Raises:
        UsageError: The LLM cannot serve an objective of the stage.
    """
    model = lusifer_model(embedder)
    base = build.Base(recipe.model.llm.path, recipe.model.llm.revision, getattr(torch, recipe.model.dtype.frozen))
    llm_tokenizer = _tokenizers(recipe, stage)[1]
    model.config.alignment_bos = llm_tokenizer.bos_token_id is not None
    # The head reads the LLM's states: in their dtype, which a stage before may have raised.
    held = replace(base, dtype=model.llm.dtype, device=str(model.device))
    head = build.read_lm_head(held, model.llm) if stage.needs_head else None
    network = ObjectiveNetwork(model.config, model, head)
    network.logits_chunk = stage.logits_chunk
    llm = teacher.read(recipe, model) if stage.needs_embedder else None
    collator = AlignmentCollator(
        embedder.tokenizer,
        llm_tokenizer,
        embedder.max_seq_length,
        stage.mask_probability,
        stage.attention_mask_probability,
        stage.token_dropout,
        seed=rows.seed,
        teacher_length=llm.max_seq_length if llm else None,
    )
    # Steps of an objective that does not read the vector leave the output projection without gradient.
    unused = stage.train.output_projection and not all(each.trains_vector for each in stage.active)
    arguments = {**arguments, **micro_batches(stage), "ddp_find_unused_parameters": unused}
    made = AlignmentTrainer(
        model=network,
        args=AlignmentArguments(**arguments, remove_unused_columns=False),
        data_collator=collator,
        train_dataset=rows,
        stage=stage,
        teacher=llm,
    )
    made.embedder = embedder
    return made


def micro_batches(stage: AlignmentStage) -> dict[str, int]:
    """Rows that a process holds and micro-batches of a step, in the library's names.

    Raises:
        UsageError: They cannot be divided evenly.
    """
    count = sharers(stage)
    share = stage.batch_size // count
    mini = min(stage.mini_batch_size, share)
    if share % mini:
        raise UsageError(
            f"stages.{stage.name}.mini_batch_size: {share} rows a process ({stage.batch_size} on {count}) are no "
            f"multiple of {mini}"
        )
    drawn = [each.name for each in stage.active if each.keeps_drawn_order(stage)]
    if drawn and mini < stage.mini_batch_size:
        raise UsageError(
            f"stages.{stage.name}.mini_batch_size: {drawn[0]} compares the {stage.mini_batch_size} texts of a "
            f"mini-batch, and a process has {mini} ({stage.batch_size} on {count}): on one process it would learn "
            f"something else; set it to {mini}, or take fewer processes"
        )
    return {"per_device_train_batch_size": mini, "gradient_accumulation_steps": share // mini}


def refuse(recipe: Recipe, stage: AlignmentStage) -> None:
    """Look at batch size, tokenizers and what the objectives need of the LLM, before weights and rows are read.

    Raises:
        UsageError: The processes cannot share the batch, the LLM is no embedder but one is needed, or a tokenizer lacks
            a token.
    """
    micro_batches(stage)
    if is_own(recipe.model.llm.base(), "llm"):
        raise UsageError(
            f"stages.{stage.name}: alignment needs the LLM's own tokenizer and head, which the whole model "
            f"{recipe.model.llm.path} does not hold: start from its delta, or take the stage out"
        )
    if stage.needs_embedder:
        needy = " and ".join(each.name for each in stage.active if each.needs_embedder)
        others = " or ".join(each.name for each in OBJECTIVES.values() if not each.needs_embedder)
        teacher.refuse(recipe, f"{needy} needs one; use {others}")
    _tokenizers(recipe, stage)


def refuse_rows(recipe: Recipe, stage: AlignmentStage, rows: AlignmentExamples) -> None:
    """Rows of this kind of stage that can be read are fit."""


def _tokenizers(recipe: Recipe, stage: AlignmentStage) -> tuple[Any, Any]:
    """Those of encoder and LLM, with the special tokens that the stage's objectives need."""
    encoder, llm = (
        build.read_tokenizer(names.base(base.path), base.revision) for base in (recipe.model.encoder, recipe.model.llm)
    )
    build.check_tokenizers(encoder, llm if stage.needs_head else None)
    return encoder, llm
