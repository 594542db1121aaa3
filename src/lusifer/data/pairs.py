"""Turn pairs, with lists of positives and negatives, into columns that sentence-transformers trains on (stage 2)."""

from __future__ import annotations

import random
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lusifer.data import tables
from lusifer.data.answers import KnownAnswers, known_answers
from lusifer.data.schema import text_hash
from lusifer.data.sources import short_name
from lusifer.errors import DataError
from lusifer.prompts import ROLES, prompt, table

if TYPE_CHECKING:
    from datasets import Dataset

_SMALL = 256  # up to this many rows are all searched for a missing negative
_TRIES = 64  # from more rows, this many are sampled


class PairSettings(Protocol):
    """The settings of a source of pairs in a recipe."""

    path: str | None
    hub: str | None
    instruction: str | None
    symmetric: bool | None
    in_batch_negatives: bool
    weight: float
    split_by_source: bool


@dataclass(frozen=True)
class PairSet:
    """Rows that may share a batch.

    rows: On disk, with the columns query, positive, negative_1 .. negative_k. May be empty, so that logs can name it.
    prompts: Column -> prefix.
    dropped: The number of rows without any possible negative.
    removed: The number of negatives that were removed because they answer their query.
    clusters: The cluster of each row, (n,) int64, -1 without a cluster; None if no row has one.
    parts: Name -> number of rows, for the sets that this one was joined from.
    """

    name: str
    rows: Dataset
    prompts: dict[str, str]
    dropped: int = 0
    removed: int = 0
    clusters: np.ndarray | None = None
    parts: Mapping[str, int] = field(default_factory=dict)


def columns(
    rows: Dataset, source: PairSettings, negatives: int, seed: int, answers: KnownAnswers | None = None
) -> list[PairSet]:
    """Make the sets of one source: one per instruction and, with `split_by_source`, per value of `source`.

    A row gets one positive, sampled from its list, and the first `negatives` of its list that are no known answers of
    its query. All rows need the same number, so missing negatives are filled up:

    * With in-batch negatives: with sampled positives of other rows of the dataset.
    * Without them, if rows have a `label`: with sampled positives of rows with another label.
    * Without them and without labels: with the row's own negatives again. A row without negatives is dropped.

    If no other text is left, the negatives of the row repeat.

    Args:
        rows: Checked pairs (`sources.load(spec, "pairs")`).
        source: The settings of the recipe. Its instruction has priority over the row's own, and that one over the
            instruction of the row's task.
        negatives: The number of hard negatives of each row, k.
        seed: The seed of all samples, also of the rows by `weight` (0.5: half of them; 2: each twice).
        answers: The known answers over all rows of the stage; None takes those of `rows` only.

    Returns:
        The sets, sorted by part and instruction, also those without rows.

    Raises:
        DataError: A task is unknown, or no row has a negative.
    """
    answers = answers or known_answers(rows)
    found = groups(rows, source, split=source.split_by_source)
    name, made = short_name(source.path, source.hub), []
    cells = _Cells(rows)
    for (part, instruction, symmetric), numbers in sorted(found.items(), key=lambda item: str(item[0])):
        generator = random.Random(f"{seed}/{name}/{part}/{instruction}")
        filler = _Filler(cells, numbers, source.in_batch_negatives, negatives, generator, answers)
        dataset, used = _dataset(_weighted(numbers, source.weight, generator), filler, negatives)
        prompts = {c: prompt(instruction, "document", symmetric=symmetric) for c in dataset.column_names}
        prompts["query"] = prompt(instruction, "query", symmetric=symmetric)
        title = "/".join(word for word in (name, part) if word)
        title = free_name(title, [group.name for group in made])  # sets of one source may differ in their instruction
        clusters = _clusters(rows, used)
        made.append(PairSet(title, dataset, prompts, filler.dropped, filler.removed, clusters))
    if not any(len(group.rows) for group in made):
        if not any(group.dropped for group in made):
            raise DataError(f"{name}: weight {source.weight} leaves none of its {len(rows)} rows: raise it")
        removed = sum(group.removed for group in made)
        why = f" ({removed:,} that answer their query were removed)" if removed else ""
        fix = "set in_batch_negatives: true, or mine negatives first"
        if source.in_batch_negatives:
            fix = f"its {len(rows):,} rows have no other possible text: add rows, or mine negatives first"
        raise DataError(f"{name}: no row has a negative{why}: {fix}")
    return made


class _Cells:
    """Reads single values of rows on disk: all of them as Python objects would take several times the file."""

    def __init__(self, rows: Dataset) -> None:
        self.columns = {name: rows.data.column(name) for name in rows.column_names}
        self.numbers = range(len(rows))

    def get(self, column: str, number: int) -> Any:
        return self.columns[column][int(number)].as_py()


class _Filler:
    """Gives each row its k negatives."""

    def __init__(
        self,
        cells: _Cells,
        group: np.ndarray,
        in_batch: bool,
        negatives: int,
        generator: random.Random,
        answers: KnownAnswers,
    ) -> None:
        self.cells, self.group, self.in_batch = cells, group, in_batch
        self.negatives, self.generator, self.answers = negatives, generator, answers
        self.dropped = self.removed = 0  # counted per source row: a row that its weight repeats counts once
        self._counted = np.zeros(len(cells.numbers), dtype=bool)

    def row(self, number: int) -> list[str] | None:
        """Query, positive, k negatives; None if no negative can be found."""
        query, positives = self.cells.get("query", number), self.cells.get("positive", number)
        known = self.answers.of(text_hash(query)) | set(map(text_hash, positives))
        own = {text_hash(text): text for text in reversed(self.cells.get("negative", number))}
        first, self._counted[number] = not self._counted[number], True
        self.removed += first * len(known & own.keys())
        found = [text for each, text in reversed(own.items()) if each not in known][: self.negatives]
        taken = known | set(map(text_hash, found))
        while len(found) < self.negatives and (text := self._other(number, taken)) is not None:
            found.append(text)
            taken.add(text_hash(text))
        if not found and self.negatives:
            self.dropped += first
            return None
        # If there is no other text, the negatives repeat.
        repeated = islice(cycle(found), self.negatives)
        return [query, self.generator.choice(positives), *repeated]

    def _other(self, number: int, taken: set[int]) -> str | None:
        """A positive of another row that is a valid negative, or None; `taken` are hashes of texts that are not."""
        label = self.cells.get("label", number)
        if not self.in_batch and label is None:
            return None
        # Rows of the same dataset first: texts of other datasets are easier negatives.
        for pool in (self.group, self.cells.numbers):
            # In a large pool sampling fails only if nearly all rows share the label; a small one is searched fully.
            small = len(pool) <= _SMALL
            draws = (pool[self.generator.randrange(len(pool))] for _ in range(_TRIES))
            for other in self.generator.sample(list(pool), len(pool)) if small else draws:
                text, theirs = self.cells.get("positive", other)[0], self.cells.get("label", other)
                same = other == number or (label is not None and theirs == label)
                if not same and text_hash(text) not in taken and (self.in_batch or theirs is not None):
                    return text
        return None


def _clusters(rows: Dataset, numbers: Sequence[int]) -> np.ndarray | None:
    """The clusters of some rows (n,), -1 for rows without one; None if no row has one."""
    import pyarrow.compute as pc

    column = rows.data.column("cluster")
    if column.null_count == len(column):
        return None
    found = pc.fill_null(column.cast("int64"), -1).to_numpy()[numbers]
    return found if (found >= 0).any() else None


def groups(rows: Dataset, source: PairSettings, split: bool) -> dict[tuple[str, str | None, bool], np.ndarray]:
    """Group rows into sets by part, instruction and whether documents get the instruction too.

    Args:
        rows: Checked pairs.
        source: The settings of the recipe.
        split: Whether the part is the row's `source`; else it is "".

    Returns:
        (Part, instruction, symmetric) -> row numbers, (n,) int64.

    Raises:
        DataError: A task is unknown, or an instruction is the name of a role.
    """
    tasks, found = table(), {}
    for part in tables.chunks(rows):
        columns = (tables.values(rows, name, part) for name in ("source", "task", "instruction"))
        for number, (place, task, instruction) in enumerate(zip(*columns, strict=True), start=part.start):
            prefix = instruction_of(number, task, instruction, source, tasks)
            found.setdefault((place or "" if split else "", *prefix), array("q")).append(number)
    return {key: np.asarray(numbers) for key, numbers in found.items()}


def instruction_of(
    number: int, task: str | None, own: str | None, source: PairSettings, tasks: Mapping[str, dict[str, Any]]
) -> tuple[str | None, bool]:
    """Return the instruction of a row's query, and whether its documents get it too.

    Args:
        number: The number of the row, from 0, for error messages.
        task: The row's task.
        own: The row's instruction.
        source: The settings of the recipe.
        tasks: The tasks of `prompts.toml`.

    Raises:
        DataError: The task is unknown, or the instruction is the name of a role.
    """
    instruction = source.instruction or own
    known = tasks.get(task) if task is not None else None
    if task is not None and known is None and not instruction:
        name = short_name(source.path, source.hub)
        raise DataError(
            f"{name}: row {number + 1}: task {task} is unknown: use one of {', '.join(tasks)}, or give an instruction"
        )
    instruction = instruction or (known["instruction"] if known else None)
    if instruction is not None and instruction.strip() in ROLES:  # a model saves each prompt under its instruction
        raise DataError(
            f"{short_name(source.path, source.hub)}: row {number + 1}: the instruction is {instruction.strip()!r}, the "
            "name of a prompt that every model has: write it as a sentence, or leave it out"
        )
    symmetric = source.symmetric if source.symmetric is not None else bool(known and known["symmetric"])
    return instruction, symmetric


def _weighted(numbers: np.ndarray, weight: float, generator: random.Random) -> np.ndarray:
    """Repeat rows by their weight: all of them as often as its integer part, and a sample for the fraction."""
    whole, part = divmod(weight, 1)
    drawn = sorted(generator.sample(range(len(numbers)), round(part * len(numbers))))
    return np.concatenate([np.tile(numbers, int(whole)), numbers[drawn]]).astype(np.int64)


def _dataset(numbers: np.ndarray, filler: _Filler, negatives: int) -> tuple[Dataset, array]:
    """The columns on disk, and the number of the source row of each row."""
    import pyarrow as pa

    names = ["query", "positive", *(f"negative_{number}" for number in range(1, negatives + 1))]
    used = array("q")

    def rows() -> Iterator[dict[str, str]]:
        for number in map(int, numbers):
            row = filler.row(number)
            if row is not None:
                used.append(number)
                yield dict(zip(names, row, strict=True))

    return tables.collect(rows(), pa.schema({name: pa.string() for name in names})), used


def free_name(title: str, taken: Collection[str]) -> str:
    """Return `title`, or `title` with the first number (-2, -3, ...) that makes it a name that is not taken."""
    numbered = (f"{title}-{number}" for number in range(2, len(taken) + 3))
    return next(name for name in (title, *numbered) if name not in taken)
