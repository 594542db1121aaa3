"""What a report says, as values: means over what models share, what is missing, and what training has seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lusifer.errors import DataError, UsageError
from lusifer.evaluation.scores import averages, compare, results
from lusifer.evaluation.scores.averages import ENGLISH, LANGUAGE, TASK, Board, Mean
from lusifer.evaluation.scores.bootstrap import Key
from lusifer.evaluation.scores.compare import Comparison
from lusifer.evaluation.scores.folder import GAP, EvaluationFolder
from lusifer.evaluation.scores.results import Entry, Results, Seen
from lusifer.language_gap import Gap


@dataclass(frozen=True)
class MeanRow:
    """One line of a table of means.

    Attributes:
        label: The language, type, task or group.
        of: How many scores should be under it.
        shared: How many every model has that has any; the means are over these alone, so they can be compared.
        means: One a model; the value is None where a model has none of the scores, or not all that the others share.
    """

    label: str
    of: int
    shared: int
    means: tuple[Mean, ...]


@dataclass(frozen=True, eq=False)
class ScoreSet:
    """The monolingual scores of all models, or the cross-lingual ones: the two are never in one mean."""

    boards: tuple[Board, ...]
    names: tuple[str, ...]
    cross_lingual: bool
    _means: dict[tuple[Key, ...], tuple[int, tuple[Mean, ...]]] = field(default_factory=dict, init=False, repr=False)

    @property
    def outer(self) -> int:
        """What a mean weighs equally: languages, or tasks where they are cross-lingual, as the paper's tables do."""
        return TASK if self.cross_lingual else LANGUAGE

    @property
    def kind(self) -> str:
        """The word for it: cross-lingual or monolingual."""
        return "cross-lingual" if self.cross_lingual else "monolingual"

    @cached_property
    def keys(self) -> list[Key]:
        """Language and task of all that any model was to be measured on, languages in the order of the paper."""
        return list(self.boards[0].entries)

    def about(self, key: Key) -> Entry:
        """What a language and task are: title, type, metric; of a model with a score if there is one."""
        entries = [board.entries[key] for board in self.boards]
        return next((entry for entry in entries if entry.score is not None), entries[0])

    def shared(self, keys: Iterable[Key]) -> list[Key]:
        """The keys of the scores that every model has that has any of them."""
        keys = list(keys)
        known = [{key for key in keys if board.entries[key].score is not None} for board in self.boards]
        known = [each for each in known if each]
        return [key for key in keys if known and all(key in each for each in known)]

    def row(self, label: str, keys: Iterable[Key]) -> MeanRow:
        """Average some scores, for every model over the same ones; each mean is computed once."""
        keys = tuple(keys)
        if keys not in self._means:
            shared, nothing = self.shared(keys), Mean(None, None, None, (), keys, ())
            means = [board.mean(shared, self.outer) for board in self.boards]
            self._means[keys] = len(shared), tuple(mean if mean.complete else nothing for mean in means)
        return MeanRow(label, len(keys), *self._means[keys])

    @property
    def whole(self) -> MeanRow:
        """The mean over everything."""
        return self.row("all", self.keys)

    def rows(self, label: Callable[[Key], str]) -> list[MeanRow]:
        """Average by what `label` says of a key: its language, type or task."""
        groups: dict[str, list[Key]] = {}
        for key in self.keys:
            groups.setdefault(label(key), []).append(key)
        return [self.row(name, keys) for name, keys in groups.items()]

    def groups(self) -> list[MeanRow]:
        """Average over the groups of languages: all, all but English, resource levels."""
        found = averages.groups({code for code, _ in self.keys})
        return [self.row(name, [key for key in self.keys if key[0] in codes]) for name, codes in found.items()]

    def missing(self) -> dict[tuple[str, str, str], list[str]]:
        """Model, task and reason -> the languages in which the model has no score for that reason."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for name, board in zip(self.names, self.boards, strict=True):
            for (code, task), entry in board.entries.items():
                if entry.missing:
                    found.setdefault((name, task, entry.missing), []).append(code)
        return found


@dataclass(frozen=True, eq=False)
class Facts:
    """The evaluations of a report; a set without scores is None, as is a gap that was not measured."""

    evaluations: tuple[Results, ...]
    names: tuple[str, ...]
    own: ScoreSet | None
    cross: ScoreSet | None
    seed: int
    gaps: tuple[Gap | None, ...]
    islands: tuple[dict[str, np.ndarray] | None, ...] = ()

    @property
    def sets(self) -> list[ScoreSet]:
        """The monolingual and the cross-lingual scores, as far as there are any."""
        return [scores for scores in (self.own, self.cross) if scores is not None]

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The first model against each other one, task by task; none for a single model."""
        return compare.compare_all(self.evaluations, self.seed) if len(self.evaluations) > 1 else []

    def seen(self, model: int) -> dict[Key, Seen | None]:
        """Language and task of each score of a model -> test texts in its training data; None where it is unknown."""
        return {entry.key: entry.seen for entry in self.evaluations[model].scores if entry.score is not None}

    def differing(self, what: str) -> list[str] | None:
        """Name what the models do not share.

        Args:
            what: "data", "settings" or "versions" of the evaluations.

        Returns:
            The keys that differ; None for a single model, and where nothing is known of any.
        """
        values: list[Mapping[str, Any]] = [getattr(each, what) for each in self.evaluations]
        keys = dict.fromkeys(key for value in values for key in value)
        if len(values) < 2 or not keys:
            return None
        return [key for key in keys if any(value.get(key) != values[0].get(key) for value in values)]


def read(folders: Sequence[Path], seed: int = 0) -> Facts:
    """Read evaluation folders.

    Args:
        folders: One or more of one suite.
        seed: Of the resampling behind the intervals of means.

    Raises:
        UsageError: None is given, one is given twice, two cannot be told apart by name, or their suites differ.
        DataError: One is no evaluation folder, or damaged.
    """
    if not folders:
        raise UsageError("name one evaluation folder or more: each is what `lusifer evaluate` writes")
    places = [folder.expanduser().resolve() for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UsageError(f"{folders[number]}: this folder is given twice")
    return gather([results.read(folder) for folder in folders], seed)


def gather(evaluations: Sequence[Results], seed: int = 0) -> Facts:
    """Lay evaluations beside each other.

    Args:
        evaluations: As `results.read` gives them.
        seed: Of the resampling behind the intervals of means.

    Raises:
        DataError: A folder's `gap.json` or `islands.safetensors` is damaged.
        UsageError: Two cannot be told apart by model and folder, suites differ, or nothing was evaluated.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        if other.suite != first.suite:
            raise UsageError(
                f"{other.folder}: suite {other.suite!r}, but {first.folder} is of suite {first.suite!r}: "
                "report on each suite alone"
            )
    labels = [(each.model.name, each.folder.name if each.folder else "") for each in evaluations]
    for number, pair in enumerate(labels):
        if pair in labels[:number]:
            raise UsageError(
                f"{evaluations[number].folder}: model {pair[0]!r} in a folder {pair[1]!r} is given already, and a "
                "reader could not tell the two apart: rename one of the folders"
            )
    names = tuple(results.names(evaluations))
    parts = []
    for cross_lingual in (False, True):
        boards = averages.boards([each.part(cross_lingual) for each in evaluations], seed)
        parts.append(ScoreSet(tuple(boards), names, cross_lingual) if boards[0].entries else None)
    if parts == [None, None]:
        raise UsageError(f"{first.folder}: nothing was evaluated in it: there is nothing to report")
    gaps = tuple(_gap(each.folder) for each in evaluations)
    islands = tuple(each.folder and EvaluationFolder(each.folder).read_islands() for each in evaluations)
    return Facts(tuple(evaluations), names, parts[0], parts[1], seed, gaps, islands)


def _gap(folder: Path | None) -> Gap | None:
    """The gap between languages, where the suite measured one."""
    found = None if folder is None else EvaluationFolder(folder).read_gap()
    if folder is not None and found is not None:
        rows = [*found.within.values(), *found.against.values()]
        numbers = [value for row in rows for value in vars(row).values() if value is not None]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
            raise DataError(f"{folder / GAP}: damaged (a value is no finite number): evaluate again")
    return found


@dataclass(frozen=True)
class Distance:
    """How far a model's other languages are from English: means in percent over the same tasks, and their numbers.

    `others` is the mean over the tasks of the mean over the other languages: a language that lacks a task changes
    neither what a task weighs nor which tasks are compared.
    """

    english: float
    others: float
    languages: int
    tasks: int


def distances(scores: ScoreSet) -> dict[str, Distance]:
    """By model, over the tasks that all models have in English and in another language; empty if there are none."""
    spoken: dict[str, list[str]] = {}
    for code, task in scores.shared(scores.keys):
        spoken.setdefault(task, []).append(code)
    tasks = {task: codes for task, codes in spoken.items() if ENGLISH in codes and len(codes) > 1}
    english = [(ENGLISH, task) for task in tasks]
    others = [(code, task) for task, codes in tasks.items() for code in codes if code != ENGLISH]
    found = {}
    for name, board in zip(scores.names, scores.boards, strict=True):
        one, rest = board.mean(english, TASK), board.mean(others, TASK)
        if one.value is not None and rest.value is not None and one.complete and rest.complete:
            found[name] = Distance(one.value, rest.value, len({code for code, _ in others}), len(tasks))
    return found


def in_all_languages(scores: ScoreSet) -> list[Key]:
    """The shared results of those tasks that every language has: over these, languages can be compared."""
    shared = scores.shared(scores.keys)
    codes = {code for code, _ in shared}
    spoken = {task: {code for code, each in shared if each == task} for _, task in shared}
    return [key for key in shared if spoken[key[1]] == codes]
