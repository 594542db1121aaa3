"""Stage 1, alignment, with `transformers.Trainer`."""

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
    """Yields the numbers of a stage's examples, step after step, the longest example of a step first.

    A mini-batch is as wide as its longest text: in random order most of the computation would be padding
    (benchmarks/padding.py). The gradient of a step does not depend on the order, except with objectives that compare
    the texts of a mini-batch: their steps are not sorted.

    Args:
        examples: The examples of the stage.
        stage: The `AlignmentStage`, for the options of the objectives.
    """

    def __init__(self, examples: AlignmentExamples, stage: Any) -> None:
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
    """The alignment model with a forward pass that returns the loss of an objective."""

    def forward(self, objective: Objective, stage: AlignmentStage, **batch: Any) -> torch.Tensor:
        """Compute the loss of a batch.

        Args:
            objective: The objective of the batch.
            stage: The stage, for its options.
            **batch: The tensors of `AlignmentCollator`.

        Returns:
            A scalar.
        """
        return objective.loss(self, batch, stage)


class AlignmentTrainer(StageTrainer, Trainer):
    """A `Trainer` over examples in a fixed order.

    Args:
        *args: As for `Trainer`.
        stage: The stage.
        teacher: The LLM as an embedder, if an objective needs it.
        **kwargs: As for `Trainer`.
    """

    def __init__(self, *args: Any, stage: AlignmentStage, teacher: SentenceTransformer | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stage, self.teacher = stage, teacher

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        """Return the steps in order: `AlignmentExamples` has shuffled the rows already."""
        return StepsByLength(self.train_dataset, self.stage)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Compute the loss of a mini-batch, with the LLM's own vectors if the objective needs them."""
        objective = OBJECTIVES[inputs["objective"]]
        batch = {key: value for key, value in inputs.items() if torch.is_tensor(value)}
        if objective.needs_embedder:
            batch["teacher"] = teacher.vectors(self.teacher, batch)
        loss = model(objective=objective, stage=self.stage, **batch, num_items_in_batch=num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The labels are counted over all processes, and DDP averages gradients, where their sum is needed.
            loss = loss * self.accelerator.num_processes
        return (loss, {"loss": loss}) if return_outputs else loss


def examples(recipe: Recipe, stage: AlignmentStage, seed: int) -> AlignmentExamples:
    """Read the rows of a stage and draw their order.

    Args:
        recipe: The recipe.
        stage: The stage.
        seed: The seed of order, objective and direction.

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
    """Make the trainer of a stage.

    Args:
        recipe: The recipe, with `auto` replaced.
        stage: The stage.
        embedder: The model, with adapters attached and all else frozen.
        rows: The rows from `examples`.
        arguments: Keywords of `TrainingArguments`.

    Raises:
        UsageError: An objective of the stage cannot use the LLM.
    """
    model = lusifer_model(embedder)
    base = build.Base(recipe.model.llm.path, recipe.model.llm.revision, getattr(torch, recipe.model.dtype.frozen))
    llm_tokenizer = _tokenizers(recipe, stage)[1]
    model.config.alignment_bos = llm_tokenizer.bos_token_id is not None
    # The head needs the dtype of the LLM's hidden states, which an earlier stage may have raised to float32.
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
    # In steps of an objective that does not use the vector, the output projection gets no gradient.
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
    """Compute the mini-batch of a process and the mini-batches of a step, as keywords of `TrainingArguments`.

    Raises:
        UsageError: The batch cannot be divided evenly.
    """
    count = sharers(stage)
    share = stage.batch_size // count
    mini = min(stage.mini_batch_size, share)
    if share % mini:
        raise UsageError(
            f"stages.{stage.name}.mini_batch_size: {share} rows a process ({stage.batch_size} on {count}) are not a "
            f"multiple of {mini}: change one of them"
        )
    drawn = [each.name for each in stage.active if each.keeps_drawn_order(stage)]
    if drawn and mini < stage.mini_batch_size:
        raise UsageError(
            f"stages.{stage.name}.mini_batch_size: {drawn[0]} compares the {stage.mini_batch_size} texts of a "
            f"mini-batch, and a process has {mini} ({stage.batch_size} on {count}), so the result would depend on the "
            f"number of processes: set it to {mini}, or use fewer processes"
        )
    return {"per_device_train_batch_size": mini, "gradient_accumulation_steps": share // mini}


def refuse(recipe: Recipe, stage: AlignmentStage) -> None:
    """Refuse a stage that cannot run, before weights and rows are read.

    Args:
        recipe: The recipe.
        stage: The stage.

    Raises:
        UsageError: The processes cannot divide the batch, an objective cannot use the LLM, or a tokenizer lacks a
            special token.
    """
    micro_batches(stage)
    if is_own(recipe.model.llm.base(), "llm"):
        raise UsageError(
            f"stages.{stage.name}: alignment needs the tokenizer and the LM head of the LLM, which "
            f"{recipe.model.llm.path} does not contain: start from its delta, or remove the stage"
        )
    if stage.needs_embedder:
        needy = " and ".join(each.name for each in stage.active if each.needs_embedder)
        others = " or ".join(each.name for each in OBJECTIVES.values() if not each.needs_embedder)
        teacher.refuse(recipe, f"{needy} needs one: use {others}")
    _tokenizers(recipe, stage)


def refuse_rows(recipe: Recipe, stage: AlignmentStage, rows: AlignmentExamples) -> None:
    """Do nothing: an alignment stage can use all rows that can be read."""


def _tokenizers(recipe: Recipe, stage: AlignmentStage) -> tuple[Any, Any]:
    """Read the tokenizers of encoder and LLM, and check the special tokens that the objectives need."""
    encoder, llm = (
        build.read_tokenizer(names.base(base.path), base.revision) for base in (recipe.model.encoder, recipe.model.llm)
    )
    build.check_tokenizers(encoder, llm if stage.needs_head else None)
    return encoder, llm
