"""Stage 2: representation finetuning with sentence-transformers' trainer and cached losses."""

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
    """What a stage reads.

    `found` has each set by name with its source, also those that lost all their rows; `sets` the rows of the others.
    `skipped` lists the bad rows that were left out, `read` counts the rows of each source as read. `held` is what the
    model is scored on while it trains; none of it is in `sets`.
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
        """What each step is made of."""
        return list(self.batches.make_up())

    def reads(self) -> dict[str, dict[str, int]]:
        """Give by set how many steps it gets, how often its rows are read at most, and how many never are.

        Of a set with clusters also how many of its steps are `mixed`: their rows are not of one cluster.
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
        """Give the first texts that the stage will read, `count` at most."""
        rows = ((self.sets[step.name][row]) for step in self.plan for row in step.rows)
        return list(islice((text for row in rows for text in row.values() if isinstance(text, str)), count))

    def texts(self) -> Iterator[str]:
        """Yield every text that the stage trains on."""
        for table in self.sets.values():
            yield from seen.table_texts(table, table.column_names)


@dataclass
class PairCollator(SentenceTransformerDataCollator):
    """The library's batches; with `teacher` each column also as the LLM itself reads it, without its prompt."""

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
    """The library's loop with our checkpoints and our plan of batches."""

    data_collator_class = PairCollator

    def __init__(self, *args: Any, rows: PairRows, **kwargs: Any) -> None:
        self.rows, self._logged = rows, 0
        super().__init__(*args, **kwargs)

    def add_model_card_callback(self, *args: Any, **kwargs: Any) -> None:
        """Collect nothing for the library's model card: ours is another one, and it would read rows and show a bar."""

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Say with each line how many of the steps since the last one were made of which set."""
        if "loss" in logs and self.is_world_process_zero():
            steps = self.rows.plan[max(self._logged, self.first_step) : self.state.global_step]
            self._logged = self.state.global_step
            logs["made_of"] = dict(sorted(Counter(step.name for step in steps).items()))
        super().log(logs, *args, **kwargs)

    def get_multi_dataset_batch_sampler(self, *args: Any, **kwargs: Any) -> PairBatches:
        """The plan, over the sets in the order in which the library lays them one behind the other."""
        return self.rows.batches


def examples(recipe: Recipe, stage: ContrastiveStage, seed: int) -> PairRows:
    """The rows of a stage: columns query, positive, negative_1 .. negative_k.

    `seed` is that of the draws that fill missing negatives, and of weights.

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
    answers = known_answers(*(rows for _, rows in loaded))  # over all sources: an answer may stand in another one
    read, scored = [len(rows) for _, rows in loaded], None
    if stage.evaluate is not None and stage.evaluate.held is not None:
        loaded, scored = _held_back(loaded, stage.evaluate.held, recipe.seed)
    for source, rows in loaded:
        made = pairs.columns(rows, source, stage.hard_negatives, seed, answers)
        for each in join_small(made, stage.batch_size, source.in_batch_negatives, answers):
            found[pairs.free_name(each.name, found)] = each, source  # files of one name in two folders
    # The library's trainer cannot read a set without rows.
    sets = {name: each.rows for name, (each, _) in found.items() if len(each.rows)}
    if not sets:
        dropped = sum(each.dropped for each, _ in found.values())
        raise UsageError(
            f"stages.{stage.name}: no row is left to train on: {scored.rows if scored else 0} are held back for scores "
            f"and for {dropped} no negative could be found: lower evaluate.held, or give more rows"
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
    """What is left to train on, and what is held back; nothing where there are too few rows."""
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
    """Refuse a batch that the processes cannot share, and an LLM that is no embedder for `distill` (UsageError)."""
    sharers(stage)
    if stage.needs_embedder:
        if is_own(recipe.model.llm.base(), "llm"):
            raise UsageError(
                f"stages.{stage.name}.distill needs the LLM's own tokenizer, which the whole model "
                f"{recipe.model.llm.path} does not hold: start from its delta, or set distill: 0"
            )
        teacher.refuse(recipe, f"stages.{stage.name}.distill needs one; set distill: 0")


def refuse_rows(recipe: Recipe, stage: ContrastiveStage, rows: PairRows) -> None:
    """Refuse a prompt that fills the texts' length (UsageError): all queries would be cut to the same tokens."""
    base = recipe.model.encoder
    tokenizer = read_tokenizer(names.base(base.path), base.revision)
    _refuse_full_prompts(stage, rows, tokenizer, recipe.longest(stage))


def _refuse_full_prompts(stage: ContrastiveStage, rows: PairRows, tokenizer: Any, limit: int) -> None:
    for name in rows.sets:
        for prompt in dict.fromkeys(rows.found[name][0].prompts.values()):  # in order: which is named
            check_room(prompt, tokenizer, limit, f"stages.{stage.name}: {name}")


def trainer(
    recipe: Recipe, stage: ContrastiveStage, embedder: SentenceTransformer, rows: PairRows, arguments: dict[str, Any]
) -> ContrastiveTrainer:
    """Put a stage together; arguments as for `alignment.trainer`."""
    _refuse_full_prompts(stage, rows, embedder.tokenizer, embedder.max_seq_length)
    keep = None
    if stage.needs_embedder:
        keep = Keep(teacher.read(recipe, lusifer_model(embedder)), stage.distill, stage.distill_contrast)
    # The library keeps the losses in a ModuleDict: "half" or "train" would be a method of it, and a dot is refused.
    keys = {name: f"{number}-{name.replace('.', '_')}" for number, name in enumerate(rows.sets, start=1)}
    made = ContrastiveTrainer(
        model=embedder,
        args=PairArguments(
            **arguments,
            per_device_train_batch_size=stage.batch_size,  # split over the processes, see below
            prompts={key: rows.found[name][0].prompts for name, key in keys.items()},
            # A batch is planned for all processes and cut into equal parts, one for each.
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
