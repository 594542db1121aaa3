"""Stage 2: representation finetuning with sentence-transformers' trainer and cached losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)

from lusifer.data import pairs
from lusifer.data import sources as data_sources
from lusifer.data.batches import PairBatches, StepRows, join_small
from lusifer.errors import UsageError
from lusifer.io import seen
from lusifer.io.rows import BadRows
from lusifer.model import build
from lusifer.model.build import read_tokenizer
from lusifer.training.recipe.recipe import ContrastiveStage, Recipe
from lusifer.training.stages.losses import loss
from lusifer.training.stages.trainer import StageTrainer, processes


@dataclass(frozen=True)
class PairRows:
    """What a stage reads: one set of columns a source, its prompts and its kind of negatives; optimizer steps.

    `dropped` counts rows without any negative and `language` has the code, both also for sets that lost all their rows.
    `skipped` lists the bad rows that were left out, `read` counts the rows of each source as read, and `parts`
    those of the small sets that a joined one is made of.
    """

    sets: dict[str, Dataset]
    prompts: dict[str, dict[str, str]]
    in_batch_negatives: dict[str, bool]
    batches: PairBatches
    steps: int
    dropped: dict[str, int]
    language: dict[str, str]
    skipped: list[str]
    read: list[int]
    parts: dict[str, Mapping[str, int]]

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

    def texts(self) -> Iterator[str]:
        """Yield every text that the stage trains on."""
        for table in self.sets.values():
            yield from seen.table_texts(table)


class ContrastiveTrainer(StageTrainer, SentenceTransformerTrainer):
    """The library's loop with our checkpoints and our plan of batches."""

    def __init__(self, *args: Any, rows: PairRows, **kwargs: Any) -> None:
        self.rows, self._logged = rows, 0
        super().__init__(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Say with each line how many of the steps since the last one were made of which set."""
        if "loss" in logs:
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
    """
    sets: dict[str, Dataset] = {}
    prompts: dict[str, dict[str, str]] = {}
    in_batch: dict[str, bool] = {}
    clusters: dict[str, np.ndarray] = {}
    skipped: list[str] = []
    dropped: dict[str, int] = {}
    language: dict[str, str] = {}
    read: list[int] = []
    parts: dict[str, Mapping[str, int]] = {}
    for source in recipe.sources(stage):
        bad = BadRows(source.skip_bad)
        rows = data_sources.load(source.spec(recipe.seed), "pairs", bad)
        skipped += bad.messages
        read.append(len(rows))
        found = pairs.columns(rows, source, stage.hard_negatives, seed)
        for made in join_small(found, stage.batch_size, source.in_batch_negatives):
            name = pairs.free_name(made.name, dropped)  # files of one name in two folders
            dropped[name], language[name] = made.dropped, source.language_code
            if made.parts:
                parts[name] = made.parts
            if not len(made.rows):
                continue  # the library's trainer cannot read a set without rows
            sets[name], prompts[name] = made.rows, made.prompts
            in_batch[name] = source.in_batch_negatives
            if made.clusters is not None:
                clusters[name] = made.clusters
    steps = stage.steps(sum(map(len, sets.values())))
    batches = PairBatches(sets, in_batch, batch_size=stage.batch_size, steps=steps, seed=seed, clusters=clusters)
    return PairRows(sets, prompts, in_batch, batches, steps, dropped, language, skipped, read, parts)


def refuse(recipe: Recipe, stage: ContrastiveStage) -> None:
    """Refuse a batch that the processes cannot share (UsageError)."""
    processes(stage)


def refuse_rows(recipe: Recipe, stage: ContrastiveStage, rows: PairRows) -> None:
    """Refuse a prompt that fills the texts' length (UsageError): all queries would be cut to the same tokens."""
    base = recipe.model.encoder
    tokenizer = read_tokenizer(build.resolve(base.path), base.revision)
    _refuse_full_prompts(stage, rows, tokenizer, recipe.longest(stage))


def _refuse_full_prompts(stage: ContrastiveStage, rows: PairRows, tokenizer: Any, limit: int) -> None:
    for name, prompts in rows.prompts.items():
        for prompt in set(prompts.values()):
            tokens = len(tokenizer(prompt)["input_ids"])
            if prompt and tokens >= limit:
                raise UsageError(
                    f"stages.{stage.name}: the prompt of {name} ({prompt[:40]!r}) has {tokens} tokens, and max_length "
                    f"{limit} leaves none for the text: raise max_length, or shorten the instruction"
                )


def trainer(
    recipe: Recipe,
    stage: ContrastiveStage,
    embedder: SentenceTransformer,
    rows: PairRows,
    arguments: dict[str, Any],
) -> ContrastiveTrainer:
    """Put a stage together; arguments as for `alignment.trainer`."""
    _refuse_full_prompts(stage, rows, embedder.tokenizer, embedder.max_seq_length)
    embedder.model_card_data.generate_widget_examples = False  # our card is not the library's
    # The library keeps the losses in a ModuleDict: "half" or "train" would be a method of it, and a dot is refused.
    keys = {name: f"{number}-{name.replace('.', '_')}" for number, name in enumerate(rows.sets, start=1)}
    made = ContrastiveTrainer(
        model=embedder,
        args=SentenceTransformerTrainingArguments(
            **arguments,
            per_device_train_batch_size=stage.batch_size,  # split over the processes, see below
            prompts={keys[name]: prompts for name, prompts in rows.prompts.items()},
            # A batch is planned for all processes and cut into equal parts, one for each.
            accelerator_config={"split_batches": True},
            dataloader_drop_last=True,
        ),
        rows=rows,
        train_dataset={keys[name]: table for name, table in rows.sets.items()},
        loss={key: loss(stage, embedder, rows.in_batch_negatives[name]) for name, key in keys.items()},
    )
    made.embedder, made.stage_folder = embedder, Path(arguments["output_dir"])
    return made
