"""What a report says, as values: means over what models share, what is missing, and what training has seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lusifer.errors import UsageError
from lusifer.evaluation.report.words import language_name, score_cell
from lusifer.evaluation.scores import averages, compare, perturbed, results
from lusifer.evaluation.scores.averages import ENGLISH, LANGUAGE, TASK, Board, Mean
from lusifer.evaluation.scores.bootstrap import Key
from lusifer.evaluation.scores.compare import Comparison
from lusifer.evaluation.scores.folder import EvaluationFolder
from lusifer.evaluation.scores.results import Entry, Results, Seen
from lusifer.evaluation.suites import benchmark
from lusifer.language_gap import Gap

NOT_COMPARABLE, NOT_PUBLISHED = "not comparable", "not published"


@dataclass(frozen=True)
class MeanRow:
    """One line of a table of means.

    Attributes:
        label: The language, type, task or group.
        of: How many scores should be under it.
        shared: How many every model has that has any; the means are over these alone, so they can be compared.
        means: One a model; the value is None where a model has none of the scores, or not all that the others share.
        published: One a published model: its score as a cell, or why none stands here.
    """

    label: str
    of: int
    shared: int
    means: tuple[Mean, ...]
    published: tuple[str, ...]

    @property
    def size(self) -> str:
        """How many scores are under the means, and of how many: 12 of 14."""
        return f"{self.shared} of {self.of}" if self.shared < self.of else str(self.of)


@dataclass(frozen=True)
class MeanTable:
    """A table of means; `whole` is its last line, and `published` names the columns of published scores."""

    caption: str
    what: str
    rows: Sequence[MeanRow]
    whole: MeanRow | None
    published: Sequence[str]


@dataclass(frozen=True, eq=False)
class ScoreSet:
    """The monolingual scores of all models, or the cross-lingual ones: the two are never in one mean.

    Attributes:
        published: Model -> language (cross-lingual: task) -> published score in percent.
        covers: Language and task of every score under the published ones.
    """

    boards: tuple[Board, ...]
    names: tuple[str, ...]
    cross_lingual: bool
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    covers: Collection[Key] = ()
    _means: dict[tuple[Key, ...], tuple[Any, ...]] = field(default_factory=dict, init=False, repr=False)

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
            shared, nothing = self.shared(keys), Mean(None, None, None, False)
            means = [board.mean(shared, self.outer) for board in self.boards]
            known = tuple(mean if mean.complete else nothing for mean in means)
            self._means[keys] = len(shared), known, self._beside({key[self.outer] for key in keys}, shared)
        return MeanRow(label, len(keys), *self._means[keys])

    def _beside(self, members: set[str], shared: Iterable[Key]) -> tuple[str, ...]:
        """The published means over these languages or tasks, where they are over the same scores as ours."""
        if set(shared) != {key for key in self.covers if key[self.outer] in members}:
            return (NOT_COMPARABLE,) * len(self.published)
        known = [[scores[each] for each in sorted(members) if each in scores] for scores in self.published.values()]
        return tuple(score_cell(float(np.mean(row))) if len(row) == len(members) else NOT_PUBLISHED for row in known)

    def not_comparable(self) -> list[str]:
        """Why no published score stands beside a language, or beside a task where they are cross-lingual."""
        lines, outer = [], self.outer
        lacking = f"not measured {'by every model' if len(self.names) > 1 else 'here'}"
        for member in dict.fromkeys(key[outer] for key in self.keys) if self.published else ():
            run = {key[1 - outer] for key in self.shared(key for key in self.keys if key[outer] == member)}
            theirs = {key[1 - outer] for key in self.covers if key[outer] == member}
            apart = {lacking: theirs - run, "not under the published mean": run - theirs}
            why = [f"{words}: {', '.join(sorted(names))}" for words, names in apart.items() if names]
            lines += [f"no published score beside {member}: {'; '.join(why)}"] if why else []
        return lines

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

    groups_note = (
        "Groups of languages: the class of resources, from 5 (most) to 0, is that of Joshi et al. 2020 (arXiv "
        "2004.09095); seen by XLM-R are those on the list of what it was trained on (arXiv 1911.02116); scripts are by "
        "ISO 15924."
    )

    @cached_property
    def many(self) -> bool:
        """Whether there are so many languages that they are shown by groups."""
        return len({code for code, _ in self.keys}) > averages.MANY

    @cached_property
    def everywhere(self) -> list[str]:
        """The tasks that were asked in every language: over these, groups of languages can be compared."""
        codes = {code for code, _ in self.keys}
        asked = {task: {code for code, each in self.keys if each == task} for _, task in self.keys}
        return [task for task, there in asked.items() if there == codes]

    def groups(self, keys: Iterable[Key]) -> list[MeanRow]:
        """Average over the groups of languages: all, all but English, resource levels."""
        keys = list(keys)
        found = averages.groups({code for code, _ in keys})
        rows = []
        for name, codes in found.items():
            label = f"{name} ({', '.join(codes)})" if "resources" in name else name
            rows.append(self.row(label, [key for key in keys if key[0] in codes]))
        return rows

    def tables(self) -> list[MeanTable]:
        """The means in all their tables, those that weigh most first."""
        by = {
            "language": self.rows(lambda key: language_name(key[0])),
            "languages": self.groups(self.keys),
            "type": self.rows(lambda key: self.about(key).type),
            "task": self.rows(lambda key: self.about(key).title),
        }
        if self.cross_lingual:
            by = {what: by[what] for what in ("task", "language", "type")}
        found = []
        for what, rows in by.items():
            words = {"languages": "group of languages", "type": "type of task"}.get(what, what)
            caption = f"Mean by {words}{', cross-lingual' if self.cross_lingual else ''}"
            whole = self.whole if what != "languages" and len(rows) > 1 else None
            numbers = {cell for row in rows for cell in row.published} - {NOT_COMPARABLE, NOT_PUBLISHED}
            published = [f"{name} (published)" for name in self.published] if numbers else []
            found.append(MeanTable(caption, what, rows, whole, published))
        return [*self.grouped(), *(table for table in found if table.what != "languages")] if self.many else found

    def grouped(self) -> list[MeanTable]:
        """The means of many languages: by group, a table for each task that all of them have."""
        found = []
        for task in self.everywhere:
            keys = [key for key in self.keys if key[TASK] == task]
            caption = f"Mean by group of languages: {self.about(keys[0]).title}"
            found.append(MeanTable(caption, "languages", self.groups(keys), None, []))
        return found

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
    def title(self) -> str:
        """What was measured: the suite, and the embedder of the documents where that is another one."""
        first = self.evaluations[0]
        against = f", documents by {first.model.against.name}" if first.model.against else ""
        return f"suite {first.suite}{against}"

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
        """Name the "data", "settings" or "versions" that differ; None for one model, and where nothing is known."""
        values: list[Mapping[str, Any]] = [getattr(each, what) for each in self.evaluations]
        keys = dict.fromkeys(key for value in values for key in value)
        if len(values) < 2 or not keys:
            return None
        return [key for key in keys if any(value.get(key) != values[0].get(key) for value in values)]


def read(folders: Sequence[Path], seed: int = 0) -> list[Facts]:
    """Read evaluation folders, and lay those beside each other that can be compared.

    Args:
        folders: What `lusifer evaluate` wrote.
        seed: Of the resampling behind the intervals of means.

    Returns:
        The facts of each suite in the order of the folders. Scores against the documents of another embedder are apart
        from those of a model alone, which has tasks that the others cannot have; what it has of theirs stands beside.

    Raises:
        UsageError: None is given, one is given twice, or two of a suite cannot be told apart by name.
        DataError: One is no evaluation folder, or damaged.
    """
    if not folders:
        raise UsageError("name one evaluation folder or more: each is what `lusifer evaluate` writes")
    evaluations: list[Results] = []
    for number, folder in enumerate(folders):
        if folder.expanduser().resolve() in [each.expanduser().resolve() for each in folders[:number]]:
            raise UsageError(f"{folder}: this folder is given twice")
        each = results.read(folder)
        known = [(e.suite, e.model.name, e.folder.name) for e in evaluations if e.folder]
        if (each.suite, each.model.name, folder.name) in known:
            raise UsageError(
                f"{folder}: model {each.model.name!r} in a folder {folder.name!r} is given already, and a "
                "reader could not tell the two apart: rename one of the folders"
            )
        evaluations.append(each)
    if not any(each.scores for each in evaluations):
        raise UsageError(f"{folders[0]}: nothing was evaluated in it: there is nothing to report")
    parts: dict[tuple[str, str | None], list[Results]] = {}
    for each in evaluations:
        index = each.model.against
        parts.setdefault((each.suite, index.identity if index else None), []).append(each)
    for (suite, index), part in parts.items():
        part += _alone(part, parts.get((suite, None), [])) if index else []
    return [gather(part, seed) for part in parts.values()]


def _alone(against: Sequence[Results], others: Sequence[Results]) -> list[Results]:
    """What the same models have with documents of their own, in the languages and tasks of the scores against others'.

    Beside these it says what an index of one's own would bring.
    """
    models = {each.model.identity for each in against}
    keys = {entry.key for each in against for entry in each.scores}
    keys |= {(code, task) for each in against for task, about in _worn(each).items() for code in about["changed"]}
    parts = [_only(each, keys) for each in others if each.model.identity in models]
    return [part for part in parts if part.scores]


def _only(result: Results, keys: Collection[Key]) -> Results:
    """The scores of some languages and tasks, with what else there is of these alone."""
    settings = result.settings
    if worn := _worn(result):
        kept = {}
        for task, about in worn.items():
            changed = {code: counts for code, counts in about["changed"].items() if (code, task) in keys}
            kept |= {task: {**about, "changed": changed}} if changed else {}
        settings = {**settings, perturbed.FACTS: {**settings[perturbed.FACTS], "tasks": kept}}
    return replace(
        result,
        scores=tuple(entry for entry in result.scores if entry.key in keys),
        examples={key: each for key, each in result.examples.items() if key in keys},
        details={key: each for key, each in result.details.items() if key in keys},
        settings=settings,
    )


def _worn(result: Results) -> Mapping[str, Any]:
    """Task perturbed -> what the settings say of it; none in another suite than `robust`."""
    return {} if perturbed.least_share(result) is None else result.settings[perturbed.FACTS]["tasks"]


def gather(evaluations: Sequence[Results], seed: int = 0) -> Facts:
    """Lay evaluations beside each other, as `read` does, but of any suites and names.

    Raises:
        DataError: A folder's `gap.json` or `islands.safetensors` is damaged.
    """
    names = tuple(results.names(evaluations))
    parts = []
    for cross_lingual, table in ((False, "by_language"), (True, "cross_lingual")):
        boards = averages.boards([each.part(cross_lingual) for each in evaluations], seed)
        known = evaluations[0].suite in benchmark.names() and evaluations[0].suite != "robust-hub"
        beside = (benchmark.published(table), benchmark.covers(table)) if known else ()
        found = ScoreSet(tuple(boards), names, cross_lingual, *beside)
        parts.append(found if found.keys else None)
    folders = [each.folder and EvaluationFolder(each.folder) for each in evaluations]
    gaps = tuple(folder and folder.read_gap() for folder in folders)
    islands = tuple(folder and folder.read_islands() for folder in folders)
    return Facts(tuple(evaluations), names, *parts, seed, gaps, islands)


def english_lead(scores: ScoreSet) -> tuple[dict[str, tuple[float, float]], int, int]:
    """Compare English over the tasks that all models have in English and in another language.

    Returns:
        Model -> means of English and of the other languages in percent; then how many other languages and tasks. The
        mean of the others is over tasks, of the mean over a task's languages: a language that lacks a task changes
        neither what a task weighs nor which tasks are compared.
    """
    shared = scores.shared(scores.keys)
    tasks = {task for code, task in shared if code == ENGLISH} & {task for code, task in shared if code != ENGLISH}
    others = [(code, task) for code, task in shared if task in tasks and code != ENGLISH]
    means = {}
    for name, board in zip(scores.names, scores.boards, strict=True):
        one, rest = board.mean([(ENGLISH, task) for task in tasks], TASK), board.mean(others, TASK)
        if one.value is not None and rest.value is not None and one.complete and rest.complete:
            means[name] = one.value, rest.value
    return means, len({code for code, _ in others}), len(tasks)


def in_all_languages(scores: ScoreSet) -> list[Key]:
    """The shared results of those tasks that every language has: over these, languages can be compared."""
    shared = scores.shared(scores.keys)
    codes = {code for code, _ in shared}
    spoken = {task: {code for code, each in shared if each == task} for _, task in shared}
    return [key for key in shared if spoken[key[1]] == codes]
