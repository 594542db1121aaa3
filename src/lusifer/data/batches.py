"""Stage 2's batches: which rows of which set make up each optimizer step.

The plan is a pure function of the seed, over the batch of all processes: one process or many, resumed or not, a step
holds the same rows, all of one set, and of one cluster where clusters are known. Processes that held rows of different
sets would wait for each other for ever, or take another set's texts as negatives.
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

_TURNS, _ORDER, _MIX = range(3)  # purposes of draws, so that no two of them share random numbers
_KEPT = 8  # batches of rows that wait because a text of theirs was in the batch; more come again in the next epoch
_TRIES = 100  # orders of a set's rows, one of which must fill the batch
_SOME = 5_000  # rows looked at at once for whether a set fills a batch
_MANY = 200_000  # rows of so large a set that one order tells whether it fills a batch


class BatchTexts:
    """The texts of a batch as it grows: no text of a row may be a known answer of another row's query.

    It would be a false negative. Two rows may share a negative, which does no harm.
    """

    def __init__(self, answers: KnownAnswers | None) -> None:
        """Begin a batch; without `answers` a query's own positive is all that is known."""
        self.answers = answers
        self.texts: set[int] = set()
        self.known: set[int] = set()

    def add(self, row: Sequence[int]) -> bool:
        """Add a row (hashes of query, positive, negatives), unless it and another would be false negatives."""
        known = set(row[:2]) | (self.answers.of(row[0]) if self.answers is not None else set())
        if not (self.known.isdisjoint(row) and self.texts.isdisjoint(known)):
            return False
        self.texts.update(row)
        self.known |= known
        return True


def hashes(rows: Dataset) -> np.ndarray:
    """The `text_hash` of every text, (rows, columns) uint64: comparing texts of a batch costs no reading of texts."""
    names = ["query", "positive", *(name for name in rows.column_names if name.startswith("negative"))]
    found = np.empty((len(rows), len(names)), dtype=np.uint64)
    for start in range(0, len(rows), _SOME):
        part = rows[start : start + _SOME]
        for column, name in enumerate(names):
            found[start : start + _SOME, column] = list(map(text_hash, part[name]))
    return found


@dataclass(frozen=True)
class StepRows:
    """One step: its set, its rows by their number in the set, and their cluster where they share one."""

    name: str
    rows: list[int]
    cluster: int | None


class PairBatches:
    """Batches of row numbers, counted over all sets in their order; what torch calls a batch sampler.

    Sets take turns in proportion to their size. In a set with in-batch negatives no text of a row is a known answer of
    another row of its batch: it would be a false negative. A set without them is shuffled and no more, since its few
    labels must repeat.
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
            sets: Rows by name, columns query, positive, negative_1 .. negative_k.
            in_batch_negatives: By name, whether other rows' texts are negatives.
            batch_size: Rows of a step, over all processes.
            steps: Batches to give.
            seed: Of everything drawn.
            clusters: By name, the cluster of each row, below 0 where it has none.
            answers: Known answers over all rows of the stage; None takes the query and positive of each row alone.

        Raises:
            UsageError: A set with in-batch negatives cannot fill one batch.
        """
        # Copies: the library's trainer adds columns of its own to the sets, in place.
        self.sets = {name: rows.with_format(None) for name, rows in sets.items()}
        self.distinct = dict(in_batch_negatives)
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.clusters, self.answers = dict(clusters or {}), answers
        self._texts = {name: hashes(rows) for name, rows in self.sets.items() if self.distinct[name]}
        for name in self.sets:
            # A batch has no query and no positive twice: where texts are labels, that is known without trying.
            if self.distinct[name]:
                most = min(len(np.unique(self._texts[name][:, column])) for column in range(2))
                if most < batch_size:
                    raise UsageError(self._too_few(name, most))
            next(self._of(name))

    def __len__(self) -> int:
        """Batches of the stage."""
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        """Give the batches, always the same ones."""
        offsets = dict(zip(self.sets, accumulate(map(len, self.sets.values()), initial=0), strict=False))
        streams = {name: self._of(name) for name in self.sets}
        for name in islice(self._turns(), self.steps):
            yield [offsets[name] + row for row in next(streams[name])]

    def make_up(self) -> Iterator[StepRows]:
        """Tell what each step is made of, without its texts."""
        starts = list(accumulate(map(len, self.sets.values()), initial=0))
        names = list(self.sets)
        for batch in self:
            place = int(np.searchsorted(starts, batch[0], side="right")) - 1
            rows = [row - starts[place] for row in batch]
            known = self.clusters.get(names[place])
            found = [] if known is None else np.unique(known[rows]).tolist()
            yield StepRows(names[place], rows, found[0] if len(found) == 1 and found[0] >= 0 else None)

    def set_epoch(self, epoch: int) -> None:
        """Nothing depends on it: the plan is one epoch that holds all steps."""

    def _turns(self) -> Iterator[str]:
        """Whose turn it is: in all rounds together each set as often as it fills batches, in a new order each round."""
        number = 0
        while True:
            # What is over from a set's last batch counts in a later round: no set is read more often than another.
            often = [name for name in self.sets for _ in range(self._full(name, number + 1) - self._full(name, number))]
            for place in np.random.default_rng([self.seed, _TURNS, number]).permutation(len(often)):
                yield often[place]
            number += 1

    def _full(self, name: str, rounds: int) -> int:
        """Batches of a set in its first `rounds` rounds, the last of them begun."""
        return -(-len(self.sets[name]) * rounds // self.batch_size)

    def _of(self, name: str) -> Iterator[list[int]]:
        """Batches of one set, for ever: through its rows in a new order each epoch."""
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
                        # A row met early can shut out several others: in another order the batch may be full.
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
        """Batches of one cluster each, for ever; what is over from all clusters makes mixed ones.

        What is over from those, less than a batch or in each other's way, comes in the mixed ones of the next epoch.
        """
        number, left = list(self.sets).index(name), []
        for epoch, rows in enumerate(self._epochs(name)):
            order = np.array(rows)
            _, first, inverse = np.unique(self.clusters[name][order], return_index=True, return_inverse=True)
            batches: list[list[int]] = []
            for cluster in np.argsort(first):  # in the order of the epoch, as are the rows of each
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
        """Full batches of rows taken in their order, and the rows that are over."""
        batches: list[list[int]] = []
        waiting, left = deque(rows), []
        while len(waiting) >= self.batch_size:
            batch, taken, later = [], BatchTexts(self.answers), []
            while waiting and len(batch) < self.batch_size:
                row = waiting.popleft()
                # A row that was over from the epoch before may come again in this one.
                fits = row not in batch if not self.distinct[name] else taken.add(self._texts[name][row].tolist())
                (batch if fits else later).append(row)
            most = _KEPT * self.batch_size  # more would be looked at again for every batch
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
        lower = f"lower batch_size to {found}, " if found > 1 else ""  # a row alone has no in-batch negative
        return (
            f"{name}: only {found} of its rows {'fit' if found > 1 else 'fits'} into one batch without a known answer "
            f"of one being a text of another, and batch_size is {self.batch_size}: {lower}give the source more rows, "
            "set split_by_source: false to keep its parts together, or in_batch_negatives: false if its texts are "
            "labels"
        )


def join_small(
    sets: Sequence[PairSet], batch_size: int, in_batch_negatives: bool = True, answers: KnownAnswers | None = None
) -> list[PairSet]:
    """Join the sets of one source that are too small for a batch of `batch_size` rows.

    A file of many sources has small ones; alone they could never be trained on, or with own negatives only they would
    be repeated in every batch. The smallest sets with the same prompts are joined until they fill a batch. A joined set
    is named after its largest part; `parts` has the rows of each. `in_batch_negatives`: whether rows of which one has a
    known answer of another (`answers`) cannot share a batch.
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
    """Whether `batch_size` rows can be found that may share a batch."""
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
    """Clusters of sets that are put together: numbers of one mean nothing in another, so each gets its own range."""
    if all(each.clusters is None for each in sets):
        return None
    parts, start = [], 0
    for each in sets:
        numbers = np.full(len(each.rows), -1, dtype=np.int64) if each.clusters is None else each.clusters
        parts.append(np.where(numbers < 0, -1, numbers + start))
        start += int(numbers.max(initial=-1)) + 1
    return np.concatenate(parts)
