"""Stage 2, contrastive fine-tuning, with the trainer of sentence-transformers and cached losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

from lusifer.data import held, pairs, tables
from lusifer.data import sources as data_sources
from lusifer.data.answers import known_answers
from lusifer.data.batches import PairBatches, StepRows, join_small
from lusifer.data.held import HeldPairs
from lusifer.data.pairs import PairSet
from lusifer.embedder.assemble import lusifer_model
from lusifer.errors import UsageError
from lusifer.io import names, seen
from lusifer.io.rows import BadRows
from lusifer.model.bases.reading import is_own
from lusifer.model.build import read_tokenizer
from lusifer.prompts import check_room
from lusifer.training.objectives.reading import TeacherInputs
from lusifer.training.recipe.data import PairSource
from lusifer.training.recipe.recipe import ContrastiveStage, Recipe
from lusifer.training.stages import teacher
from lusifer.training.stages.losses import Keep, loss
from lusifer.training.stages.measured import read_held
from lusifer.training.stages.trainer import PairArguments, StageTrainer, sharers


@dataclass(frozen=True)
class PairRows:
    """The rows of a stage and their plan of batches.

    Args:
        found: Name of a set -> the set and its source, also of sets that lost all their rows.
        sets: Name -> the rows of a set that has any.
        batches: The batches.
        steps: The steps of the stage.
        skipped: The messages of the bad rows that were skipped.
        read: The number of rows that were read of each source.
        held: The held-out pairs to score on, which are not in `sets`.
    """

    found: dict[str, tuple[PairSet, PairSource]]
    sets: dict[str, Dataset]
    batches: PairBatches
    steps: int
    skipped: list[str]
    read: list[int]
    held: HeldPairs | None = None

    @cached_property
    def plan(self) -> list[StepRows]:
        """The set and the rows of each step."""
        return list(self.batches.make_up())

    def reads(self) -> dict[str, dict[str, int]]:
        """Count for each set: its steps, the most reads of a row, and the rows that are never read.

        A set with clusters also has the number of `mixed` steps, whose rows are of several clusters.
        """
        counts = {name: np.zeros(len(table), dtype=np.int64) for name, table in self.sets.items()}
        steps = Counter(step.name for step in self.plan)
        mixed = Counter(step.name for step in self.plan if step.cluster is None)
        for step in self.plan:
            np.add.at(counts[step.name], step.rows, 1)
        return {
            name: {"steps": steps[name], "most": int(often.max()), "unread": int((often == 0).sum())}
            | ({"mixed": mixed[name]} if name in self.batches.clusters else {})
            for name, often in counts.items()
        }

    def first(self, count: int) -> list[str]:
        """Return the first texts that the stage will read, at most `count`."""
        rows = ((self.sets[step.name][row]) for step in self.plan for row in step.rows)
        return list(islice((text for row in rows for text in row.values() if isinstance(text, str)), count))

    def texts(self) -> Iterator[str]:
        """Yield every text that the stage trains on."""
        for table in self.sets.values():
            yield from seen.table_texts(table, table.column_names)


@dataclass
class PairCollator(SentenceTransformerDataCollator):
    """The collator of sentence-transformers. With `teacher`, it also tokenizes texts without prompt for the LLM."""

    teacher: TeacherInputs | None = None

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of rows of one set."""
        batch = super().__call__(features)
        if self.teacher is None:
            return batch
        prompts = self._resolve_prompts(batch)
        for column in (name for name in features[0] if f"{name}_input_ids" in batch):
            lengths = batch[f"{column}_attention_mask"].sum(dim=1).tolist()
            prompt = self._get_prompt_for_column(prompts, column) or ""
            for key, value in self.teacher([row[column] for row in features], lengths, prompt).items():
                batch[f"{column}_{key}"] = value
        return batch


class ContrastiveTrainer(StageTrainer, SentenceTransformerTrainer):
    """The trainer of sentence-transformers with the checkpoints of `StageTrainer` and the batches of `PairRows`."""

    data_collator_class = PairCollator

    def __init__(self, *args: Any, rows: PairRows, **kwargs: Any) -> None:
        self.rows, self._logged = rows, 0
        super().__init__(*args, **kwargs)

    def add_model_card_callback(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the card of sentence-transformers is not used, and its callback reads rows and shows a bar."""

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add `made_of` to each log line: the number of steps of each set since the last line."""
        if "loss" in logs and self.is_world_process_zero():
            steps = self.rows.plan[max(self._logged, self.first_step) : self.state.global_step]
            self._logged = self.state.global_step
            logs["made_of"] = dict(sorted(Counter(step.name for step in steps).items()))
        super().log(logs, *args, **kwargs)

    def get_multi_dataset_batch_sampler(self, *args: Any, **kwargs: Any) -> PairBatches:
        """Return the planned batches; the library concatenates the sets in the same order."""
        return self.rows.batches


def examples(recipe: Recipe, stage: ContrastiveStage, seed: int) -> PairRows:
    """Read the rows of a stage: columns query, positive, negative_1 .. negative_k.

    Args:
        recipe: The recipe.
        stage: The stage.
        seed: The seed of the draws of missing negatives and of batches.

    Raises:
        UsageError: No row is left to train on.
    """
    found: dict[str, tuple[PairSet, PairSource]] = {}
    skipped: list[str] = []
    loaded: list[tuple[PairSource, Dataset]] = []
    for source in recipe.sources(stage):
        bad = BadRows(source.skip_bad)
        loaded.append((source, data_sources.load(recipe.spec(stage, source), "pairs", bad)))
        skipped += bad.messages
    answers = known_answers(*(rows for _, rows in loaded))  # an answer may be in another source
    read, scored = [len(rows) for _, rows in loaded], None
    if stage.evaluate is not None and stage.evaluate.held is not None:
        loaded, scored = _held_back(loaded, stage.evaluate.held, recipe.seed)
    for source, rows in loaded:
        made = pairs.columns(rows, source, stage.hard_negatives, seed, answers)
        for each in join_small(made, stage.batch_size, source.in_batch_negatives, answers):
            found[pairs.free_name(each.name, found)] = each, source  # two folders may have files of one name
    # The library's trainer cannot read a set without rows.
    sets = {name: each.rows for name, (each, _) in found.items() if len(each.rows)}
    if not sets:
        dropped = sum(each.dropped for each, _ in found.values())
        raise UsageError(
            f"stages.{stage.name}: no row is left to train on: {scored.rows if scored else 0} are held out for scores, "
            f"and for {dropped} no negative was found: lower evaluate.held, or add rows"
        )
    in_batch = {name: found[name][1].in_batch_negatives for name in sets}
    clusters = {name: found[name][0].clusters for name in sets if found[name][0].clusters is not None}
    steps = stage.steps(sum(map(len, sets.values())))
    batches = PairBatches(
        sets, in_batch, batch_size=stage.batch_size, steps=steps, seed=seed, clusters=clusters, answers=answers
    )
    if stage.evaluate is not None and stage.evaluate.data:
        learned = (seen.table_texts(table, ["query", "positive"]) for table in sets.values())
        scored = read_held(recipe, stage, chain.from_iterable(learned), skipped)
    return PairRows(found, sets, batches, steps, skipped, read, scored)


def _held_back(
    loaded: list[tuple[PairSource, Dataset]], share: float, seed: int
) -> tuple[list[tuple[PairSource, Dataset]], HeldPairs | None]:
    """Split rows into those to train on and the held-out pairs; None of the latter if there are too few rows."""
    chosen = held.draw([rows for _, rows in loaded], share, seed)
    if not any(each.any() for each in chosen):
        return loaded, None
    rest, apart = (
        [
            (source, tables.take(rows, np.flatnonzero(each == side), "pairs"))
            for (source, rows), each in zip(loaded, chosen, strict=True)
        ]
        for side in (False, True)
    )
    return [each for each in rest if len(each[1])], held.collect((rows, source) for source, rows in apart)


def refuse(recipe: Recipe, stage: ContrastiveStage) -> None:
    """Refuse a stage that cannot run, before weights and rows are read.

    Args:
        recipe: The recipe.
        stage: The stage.

    Raises:
        UsageError: The processes cannot divide the batch, or `distill` cannot use the LLM.
    """
    sharers(stage)
    if stage.needs_embedder:
        if is_own(recipe.model.llm.base(), "llm"):
            raise UsageError(
                f"stages.{stage.name}.distill needs the tokenizer of the LLM, which {recipe.model.llm.path} does not "
                "contain: start from its delta, or set distill: 0"
            )
        teacher.refuse(recipe, f"stages.{stage.name}.distill needs one: set distill: 0")


def refuse_rows(recipe: Recipe, stage: ContrastiveStage, rows: PairRows) -> None:
    """Refuse prompts that leave no room for a text: all queries would be truncated to the same tokens.

    Args:
        recipe: The recipe.
        stage: The stage.
        rows: Its rows.

    Raises:
        UsageError: A prompt is too long.
    """
    base = recipe.model.encoder
    tokenizer = read_tokenizer(names.base(base.path), base.revision)
    _refuse_full_prompts(stage, rows, tokenizer, recipe.longest(stage))


def _refuse_full_prompts(stage: ContrastiveStage, rows: PairRows, tokenizer: Any, limit: int) -> None:
    for name in rows.sets:
        for prompt in dict.fromkeys(rows.found[name][0].prompts.values()):  # in order, so that messages are stable
            check_room(prompt, tokenizer, limit, f"stages.{stage.name}: {name}")


def trainer(
    recipe: Recipe, stage: ContrastiveStage, embedder: SentenceTransformer, rows: PairRows, arguments: dict[str, Any]
) -> ContrastiveTrainer:
    """Make the trainer of a stage. The arguments are those of `alignment.trainer`."""
    _refuse_full_prompts(stage, rows, embedder.tokenizer, embedder.max_seq_length)
    keep = None
    if stage.needs_embedder:
        keep = Keep(teacher.read(recipe, lusifer_model(embedder)), stage.distill, stage.distill_contrast)
    # The library stores the losses in a ModuleDict, which refuses names with a dot and names of its methods ("half").
    keys = {name: f"{number}-{name.replace('.', '_')}" for number, name in enumerate(rows.sets, start=1)}
    made = ContrastiveTrainer(
        model=embedder,
        args=PairArguments(
            **arguments,
            per_device_train_batch_size=stage.batch_size,  # divided among the processes, see below
            prompts={key: rows.found[name][0].prompts for name, key in keys.items()},
            # A batch is planned for all processes, and each process gets an equal part.
            accelerator_config={"split_batches": True},
            dataloader_drop_last=True,
        ),
        rows=rows,
        train_dataset={keys[name]: table for name, table in rows.sets.items()},
        loss={key: loss(stage, embedder, rows.found[name][1].in_batch_negatives, keep) for name, key in keys.items()},
    )
    if keep is not None:
        llm = keep.teacher
        made.data_collator.teacher = TeacherInputs(
            embedder.tokenizer, llm.tokenizer, embedder.max_seq_length, llm.max_seq_length
        )
    made.embedder = embedder
    return made
