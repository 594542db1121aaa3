"""Stage 1: alignment with `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

from lusifer.data import sources as data_sources
from lusifer.data.stages.alignment import PAIRED_ROLES, AlignmentCollator, AlignmentExamples
from lusifer.errors import UsageError
from lusifer.io import hub
from lusifer.io.rows import BadRows
from lusifer.model import build, tokenizer
from lusifer.model.alignment import LusiferForAlignment
from lusifer.model.lusifer import LusiferModel
from lusifer.training.recipe.recipe import AlignmentStage, Recipe
from lusifer.training.stages.trainer import StageTrainer


class StepsByLength(Sampler[int]):
    """Numbers of a stage's examples, step after step, the longest of each step first.

    Mini-batches are cut from them, and each is as wide as its longest text: cut from texts in drawn order, most of
    what is computed would be padding (benchmarks/padding.py). A step's gradient does not depend on how it was cut,
    except in distill with a contrast, whose other texts are those of the mini-batch: such steps stay as drawn.
    """

    def __init__(self, examples: AlignmentExamples, contrast: bool) -> None:
        self.examples, self.contrast = examples, contrast

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[int]:
        size = self.examples.batch_size
        for step in range(self.examples.steps):
            numbers = range(step * size, (step + 1) * size)
            drawn = self.contrast and self.examples.objective(step) == "distill"
            yield from numbers if drawn else sorted(numbers, key=self.examples.characters, reverse=True)


class AlignmentTrainer(StageTrainer, Trainer):
    """The library's loop over examples whose order is fixed by their number."""

    def __init__(self, *args: Any, attention: str, teacher: SentenceTransformer | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.attention = attention
        self.teacher = teacher

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        """Steps in order: shuffling happened when the examples were made."""
        return StepsByLength(self.train_dataset, contrast=self.model.distill_contrast > 0)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of one micro-batch; a distill batch gets the LLM's own vectors first."""
        batch = {key: value for key, value in inputs.items() if torch.is_tensor(value)}
        ids, mask = batch.pop("teacher_ids", None), batch.pop("teacher_attention_mask", None)
        if ids is not None:
            with torch.no_grad():
                own = self.teacher({"input_ids": ids, "attention_mask": mask})
            batch["teacher"] = own["sentence_embedding"]
        outputs = model(**batch, attention=self.attention, num_items_in_batch=num_items_in_batch)
        loss = outputs.loss
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The count is over all processes and DDP takes the mean of their gradients: their sum is wanted.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def examples(recipe: Recipe, stage: AlignmentStage, seed: int) -> AlignmentExamples:
    """The rows of a stage in their order.

    Args:
        recipe: the whole run.
        stage: one of its alignment stages.
        seed: of order, objective and direction.
    """
    loaded, skipped = [], []
    for source in recipe.sources(stage):
        kind = "pairs" if source.role in PAIRED_ROLES else "passages"
        bad = BadRows(source.skip_bad)
        loaded.append((data_sources.load(source.spec(recipe.seed), kind, bad), source.role))
        skipped += bad.messages
    steps = stage.steps(sum(len(rows) for rows, _ in loaded))
    weights = stage.objectives.model_dump()
    made = AlignmentExamples(loaded, weights, batch_size=stage.batch_size, steps=steps, seed=seed)
    made.skipped = skipped
    return made


def trainer(
    recipe: Recipe,
    stage: AlignmentStage,
    embedder: SentenceTransformer,
    model: LusiferModel,
    rows: AlignmentExamples,
    arguments: dict[str, Any],
    frozen: torch.dtype,
) -> AlignmentTrainer:
    """Put a stage together.

    Args:
        recipe: the whole run.
        stage: the stage.
        embedder: holds `model`.
        model: with adapters attached and the rest frozen.
        rows: as `examples` gives them.
        arguments: keywords of `TrainingArguments`.
        frozen: dtype of frozen weights.

    Raises:
        UsageError: the LLM cannot serve an objective of the stage.
    """
    base = build.Base(recipe.model.llm.path, recipe.model.llm.revision, frozen)
    language_model = _language_model(stage)
    llm_tokenizer = tokenizers(recipe, stage)[1]
    model.config.alignment_bos = llm_tokenizer.bos_token_id is not None
    # The head reads the LLM's states: in their dtype, which a stage before may have raised.
    head = build.read_lm_head(replace(base, dtype=model.llm.dtype)).to(model.device) if language_model else None
    teacher = _teacher(base, model) if stage.objectives.distill > 0 else None
    network = LusiferForAlignment(model.config, model, head)
    network.logits_chunk, network.distill_contrast = stage.logits_chunk, stage.distill_contrast
    collator = AlignmentCollator(
        embedder.tokenizer,
        llm_tokenizer,
        embedder.max_seq_length,
        stage.mask_probability,
        stage.attention_mask_probability,
        stage.token_dropout,
        seed=rows.seed,
    )
    made = AlignmentTrainer(
        model=network,
        args=TrainingArguments(**arguments, remove_unused_columns=False),
        data_collator=collator,
        train_dataset=rows,
        attention=stage.attention,
        teacher=teacher,
    )
    made.embedder, made.stage_folder = embedder, Path(arguments["output_dir"])
    return made


def refuse_unfit_llm(recipe: Recipe, stage: AlignmentStage) -> None:
    """Look at what an objective asks of the LLM, before its weights are read.

    Raises:
        UsageError: reconstruction or completion without a decoder, or distill without an embedder.
    """
    base = build.Base(recipe.model.llm.path, recipe.model.llm.revision)
    if _language_model(stage):
        build.refuse_headless(base)
    if stage.objectives.distill > 0:
        folder, key = build.resolve(base.path), f"model.llm.path={base.path!r}"
        with hub.asking(key, UsageError):
            is_embedder = hub.has_file(folder, "modules.json", hub.commit(folder, base.revision))
        if not is_embedder:  # the library would make one of any model, by taking the mean of its states
            raise UsageError(
                f"{key} is no embedder (no modules.json there): distill needs one; use reconstruction or completion"
            )


def tokenizers(recipe: Recipe, stage: AlignmentStage) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """Those of encoder and LLM, with the special tokens that the stage's objectives need.

    Raises:
        UsageError: one is missing, or a token of it.
    """
    encoder, llm = (
        tokenizer.read_tokenizer(build.resolve(base.path), base.revision)
        for base in (recipe.model.encoder, recipe.model.llm)
    )
    tokenizer.check_tokenizers(encoder, llm if _language_model(stage) else None)
    return encoder, llm


def _language_model(stage: AlignmentStage) -> bool:
    """Whether an objective predicts the LLM's tokens."""
    return stage.objectives.reconstruction + stage.objectives.completion > 0


def _teacher(base: build.Base, model: LusiferModel) -> SentenceTransformer:
    """The LLM as the embedder it is: its own tokenizer, pooling and normalisation."""
    folder = build.resolve(base.path)
    with hub.asking(f"model.llm.path={base.path!r}", UsageError):
        commit = hub.commit(folder, base.revision)
        teacher = SentenceTransformer(folder, revision=commit, model_kwargs={"dtype": base.dtype})
    dimension, wanted = teacher.get_embedding_dimension(), model.config.hidden_size
    if dimension != wanted:
        raise UsageError(f"model.llm: its own vectors have {dimension} dimensions, its states {wanted}: cannot distill")
    return teacher.requires_grad_(False).eval().to(model.device)
