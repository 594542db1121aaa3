"""Plan the batches of stage 2: which rows of which dataset make up each optimizer step.

The plan depends only on the seed, over the batch of all processes. A step has the same rows with one process or many,
resumed or not. All rows of a step are from one dataset, and from one cluster if clusters are known. Processes with
rows of different datasets would wait for each other forever, or use texts of another dataset as negatives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TYPE_CHECKING

import numpy as np

from lusifer.data.answers import KnownAnswers
from lusifer.data.pairs import PairSet
from lusifer.data.schema import text_hash
from lusifer.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

_TURNS, _ORDER, _MIX = range(3)  # purposes of random numbers, so that no two of them share a generator
_KEPT = 8  # batches of rows that may wait because of a conflict with the batch; others wait for the next epoch
_TRIES = 100  # how many orders of a dataset's rows are tried to fill a batch
_SOME = 5_000  # rows that are read at once
_MANY = 200_000  # in larger sets one order is enough to tell whether a batch can be filled


class BatchTexts:
    """The texts of a batch as it grows, without false negatives.

    A false negative is a text of a row that is a known answer of another row's query. Two rows may share a negative.
    """

    def __init__(self, answers: KnownAnswers | None) -> None:
        """Begin an empty batch; without `answers` only a query's own positive is known."""
        self.answers = answers
        self.texts: set[int] = set()
        self.known: set[int] = set()

    def add(self, row: Sequence[int]) -> bool:
        """Add a row (hashes of query, positive, negatives) unless that makes a false negative; return whether."""
        known = set(row[:2]) | (self.answers.of(row[0]) if self.answers is not None else set())
        if not (self.known.isdisjoint(row) and self.texts.isdisjoint(known)):
            return False
        self.texts.update(row)
        self.known |= known
        return True


def hashes(rows: Dataset) -> np.ndarray:
    """Return the `text_hash` of every text, (rows, columns) uint64, so that texts of a batch are compared in memory."""
    names = ["query", "positive", *(name for name in rows.column_names if name.startswith("negative"))]
    found = np.empty((len(rows), len(names)), dtype=np.uint64)
    for start in range(0, len(rows), _SOME):
        part = rows[start : start + _SOME]
        for column, name in enumerate(names):
            found[start : start + _SOME, column] = list(map(text_hash, part[name]))
    return found


@dataclass(frozen=True)
class StepRows:
    """One step: the name of its dataset, its row numbers in the dataset, and their cluster if they share one."""

    name: str
    rows: list[int]
    cluster: int | None


class PairBatches:
    """A batch sampler for torch: batches of row numbers, counted over all sets in order.

    Datasets take turns in proportion to their size. In a dataset with in-batch negatives no text of a row is a known
    answer of another row in its batch. A dataset without them is only shuffled, since its few labels must repeat.
    """

    drop_last = True

    def __init__(
        self,
        sets: Mapping[str, Dataset],
        in_batch_negatives: Mapping[str, bool],
        *,
        batch_size: int,
        steps: int,
        seed: int,
        clusters: Mapping[str, np.ndarray] | None = None,
        answers: KnownAnswers | None = None,
    ) -> None:
        """Prepare the plan.

        Args:
            sets: Name -> rows with the columns query, positive, negative_1 .. negative_k.
            in_batch_negatives: Name -> whether texts of other rows are negatives.
            batch_size: The rows of a step, over all processes.
            steps: The number of batches.
            seed: The seed of all random choices.
            clusters: Name -> the cluster of each row, (n,) int64, below 0 without a cluster.
            answers: The known answers over all rows of the stage; None takes only each row's own positive.

        Raises:
            UsageError: A dataset with in-batch negatives cannot fill one batch.
        """
        # Copies: the library's trainer adds columns of its own to the sets, in place.
        self.sets = {name: rows.with_format(None) for name, rows in sets.items()}
        self.distinct = dict(in_batch_negatives)
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.clusters, self.answers = dict(clusters or {}), answers
        self._texts = {name: hashes(rows) for name, rows in self.sets.items() if self.distinct[name]}
        for name in self.sets:
            # A batch has no query and no positive twice, so the number of distinct ones is a bound.
            if self.distinct[name]:
                most = min(len(np.unique(self._texts[name][:, column])) for column in range(2))
                if most < batch_size:
                    raise UsageError(self._too_few(name, most))
            next(self._of(name))

    def __len__(self) -> int:
        """The number of batches."""
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches, the same ones in every iteration."""
        offsets = dict(zip(self.sets, accumulate(map(len, self.sets.values()), initial=0), strict=False))
        streams = {name: self._of(name) for name in self.sets}
        for name in islice(self._turns(), self.steps):
            yield [offsets[name] + row for row in next(streams[name])]

    def make_up(self) -> Iterator[StepRows]:
        """Yield the dataset, rows and cluster of each step."""
        starts = list(accumulate(map(len, self.sets.values()), initial=0))
        names = list(self.sets)
        for batch in self:
            place = int(np.searchsorted(starts, batch[0], side="right")) - 1
            rows = [row - starts[place] for row in batch]
            known = self.clusters.get(names[place])
            found = [] if known is None else np.unique(known[rows]).tolist()
            yield StepRows(names[place], rows, found[0] if len(found) == 1 and found[0] >= 0 else None)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the plan is one epoch with all steps."""

    def _turns(self) -> Iterator[str]:
        """The dataset of each step: in each round a dataset comes as often as it fills batches, in a random order."""
        number = 0
        while True:
            # The rest of a dataset's last batch counts in a later round, so that none is read more often than others.
            often = [name for name in self.sets for _ in range(self._full(name, number + 1) - self._full(name, number))]
            for place in np.random.default_rng([self.seed, _TURNS, number]).permutation(len(often)):
                yield often[place]
            number += 1

    def _full(self, name: str, rounds: int) -> int:
        """The number of batches of a dataset in its first `rounds` rounds, rounded up."""
        return -(-len(self.sets[name]) * rounds // self.batch_size)

    def _of(self, name: str) -> Iterator[list[int]]:
        """Yield batches of one dataset without end, with its rows in a new order each epoch."""
        if name in self.clusters:
            yield from self._of_clusters(name)
        epochs = self._epochs(name)
        tries = 1 if len(self.sets[name]) > _MANY else _TRIES
        waiting: deque[int] = deque()
        while True:
            batch: list[int] = []
            taken = BatchTexts(self.answers)
            later: list[int] = []
            refills = 0
            while len(batch) < self.batch_size:
                if not waiting:
                    if refills and self.distinct[name]:
                        if refills >= tries:
                            raise UsageError(self._too_few(name, len(batch)))
                        # A row that comes early can exclude several others: another order may fill the batch.
                        batch, taken, later = [], BatchTexts(self.answers), []
                    waiting.extend(next(epochs))
                    refills += 1
                row = waiting.popleft()
                if not self.distinct[name] or taken.add(self._texts[name][row].tolist()):
                    batch.append(row)
                else:
                    later.append(row)
            waiting.extendleft(reversed(later[: _KEPT * self.batch_size]))
            yield batch

    def _of_clusters(self, name: str) -> Iterator[list[int]]:
        """Yield batches of one cluster each, without end; the remaining rows of all clusters make mixed batches.

        Rows that remain from those, too few or in conflict, go into the mixed batches of the next epoch.
        """
        number, left = list(self.sets).index(name), []
        for epoch, rows in enumerate(self._epochs(name)):
            order = np.array(rows)
            _, first, inverse = np.unique(self.clusters[name][order], return_index=True, return_inverse=True)
            batches: list[list[int]] = []
            for cluster in np.argsort(first):  # clusters and their rows stay in the order of the epoch
                members = order[inverse == cluster].tolist()
                whole, over = self._fill(name, members) if self.clusters[name][members[0]] >= 0 else ([], members)
                batches += whole
                left += over
            whole, left = self._fill(name, left)
            batches += whole
            if not batches:
                raise UsageError(self._too_few(name, min(len(left), self.batch_size - 1)))
            left = left[: _KEPT * self.batch_size]
            for place in np.random.default_rng([self.seed, _MIX, number, epoch]).permutation(len(batches)):
                yield batches[place]

    def _fill(self, name: str, rows: Sequence[int]) -> tuple[list[list[int]], list[int]]:
        """Full batches of rows in their order, and the remaining rows."""
        batches: list[list[int]] = []
        waiting, left = deque(rows), []
        while len(waiting) >= self.batch_size:
            batch, taken, later = [], BatchTexts(self.answers), []
            while waiting and len(batch) < self.batch_size:
                row = waiting.popleft()
                # A row that remained from the epoch before may come again in this one.
                fits = row not in batch if not self.distinct[name] else taken.add(self._texts[name][row].tolist())
                (batch if fits else later).append(row)
            most = _KEPT * self.batch_size  # a limit, because waiting rows are tried again for every batch
            waiting.extendleft(reversed(later[:most]))
            left += later[most:]
            if len(batch) < self.batch_size:
                left += batch
                break
            batches.append(batch)
        return batches, [*left, *waiting]

    def _epochs(self, name: str) -> Iterator[list[int]]:
        number, epoch = list(self.sets).index(name), 0
        while True:
            generator = np.random.default_rng([self.seed, _ORDER, number, epoch])
            yield generator.permutation(len(self.sets[name])).tolist()
            epoch += 1

    def _too_few(self, name: str, found: int) -> str:
        if len(self.sets[name]) < self.batch_size:
            return few_rows(name, len(self.sets[name]), self.batch_size, found)
        lower = f"lower batch_size to {found}, " if found > 1 else ""  # a row alone has no in-batch negative
        return (
            f"{name}: only {found} of its rows {'fit' if found > 1 else 'fits'} into one batch without false negatives "
            f"(a known answer of one row that is a text of another), and batch_size is {self.batch_size}: {lower}add "
            "rows to the source, or set split_by_source: false to join its parts, or in_batch_negatives: false if its "
            "texts are labels"
        )


def few_rows(name: str, rows: int, batch_size: int, fit: int | None) -> str:
    """Return the message for a set that has fewer rows than a batch.

    Args:
        name: The name of the set.
        rows: The number of its rows that train.
        batch_size: The number of rows of a batch.
        fit: The number of its rows that may be in one batch; None if it is not known.
    """
    found = "1 row" if rows == 1 else f"{rows:,} rows"
    change = "lower batch_size" if fit is None else f"set batch_size to {fit}"
    lower = f", or {change}, which leaves few in-batch negatives" if (rows if fit is None else fit) > 1 else ""
    return f"{name}: has only {found} to train on, and a batch needs {batch_size:,} (batch_size): add rows{lower}"


def join_small(
    sets: Sequence[PairSet], batch_size: int, in_batch_negatives: bool = True, answers: KnownAnswers | None = None
) -> list[PairSet]:
    """Join the sets of one source that are too small for a batch.

    Alone, a small dataset could not be trained on, or without in-batch negatives would repeat in every batch. The
    smallest datasets with the same prompts are joined until they fill a batch. A joined dataset is named after its
    largest part.

    Args:
        sets: The sets of one source.
        batch_size: The rows of a batch, over all processes.
        in_batch_negatives: Whether texts of other rows are negatives, so that rows in conflict cannot share a batch.
        answers: The known answers over all rows of the stage.

    Returns:
        The datasets; `parts` of a joined dataset has the number of rows of each part.
    """

    def fills(some: Sequence[PairSet]) -> bool:
        if in_batch_negatives:
            return _fills(some, batch_size, answers)
        return sum(len(each.rows) for each in some) >= batch_size

    groups: dict[str, list[PairSet]] = {}
    for each in sets:
        groups.setdefault(str(sorted(each.prompts.items())), []).append(each)
    joined: list[PairSet] = []
    for group in groups.values():
        small: list[PairSet] = []
        for each in sorted(group, key=lambda made: len(made.rows)):
            if len(each.rows) and not (fills([each]) and (not small or fills(small))):
                small.append(each)
            else:
                joined.append(each)
        joined += [_one(small)] if len(small) > 1 else small
    return joined


def _fills(sets: Sequence[PairSet], batch_size: int, answers: KnownAnswers | None) -> bool:
    """Whether `batch_size` rows of the sets may share a batch."""
    taken, found = BatchTexts(answers), 0
    for each in sets:
        for start in range(0, len(each.rows), _SOME):
            for row in hashes(each.rows.select(range(start, min(start + _SOME, len(each.rows))))).tolist():
                found += taken.add(row)
                if found == batch_size:
                    return True
    return False


def _one(sets: Sequence[PairSet]) -> PairSet:
    from datasets import concatenate_datasets

    rows = concatenate_datasets([each.rows for each in sets])
    name = f"{sets[-1].name} and {len(sets) - 1} smaller"
    dropped, removed = (sum(getattr(each, what) for each in sets) for what in ("dropped", "removed"))
    parts = {each.name: len(each.rows) for each in sets}
    return PairSet(name, rows, sets[0].prompts, dropped, removed, _joined_clusters(sets), parts)


def _joined_clusters(sets: Sequence[PairSet]) -> np.ndarray | None:
    """The clusters of joined datasets: each one gets its own range, because numbers are only comparable within one."""
    if all(each.clusters is None for each in sets):
        return None
    parts, start = [], 0
    for each in sets:
        numbers = np.full(len(each.rows), -1, dtype=np.int64) if each.clusters is None else each.clusters
        parts.append(np.where(numbers < 0, -1, numbers + start))
        start += int(numbers.max(initial=-1)) + 1
    return np.concatenate(parts)
