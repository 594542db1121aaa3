"""The facts of a report: means over shared scores, missing scores, and test texts seen in training."""

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
from lusifer.io.files import expand_user
from lusifer.language_gap import Gap

NOT_COMPARABLE, NOT_PUBLISHED = "not comparable", "not published"


@dataclass(frozen=True)
class MeanRow:
    """One line of a table of means.

    Attributes:
        label: The language, type, task or group.
        of: Number of scores that belong to it.
        shared: Number of scores that all models with any of them have. The means are over these and comparable.
        means: One mean for each model; its value is None if the model lacks any of the shared scores.
        published: One cell for each published model: its score, or why there is none.
    """

    label: str
    of: int
    shared: int
    means: tuple[Mean, ...]
    published: tuple[str, ...]

    @property
    def size(self) -> str:
        """Number of scores in the means, such as "12 of 14"."""
        return f"{self.shared} of {self.of}" if self.shared < self.of else str(self.of)


@dataclass(frozen=True)
class MeanTable:
    """A table of means; `whole` is its last row, and `published` has the heads of columns with published scores."""

    caption: str
    what: str
    rows: Sequence[MeanRow]
    whole: MeanRow | None
    published: Sequence[str]


@dataclass(frozen=True, eq=False)
class ScoreSet:
    """The monolingual or the cross-lingual scores of all models; no mean contains both.

    Attributes:
        boards: One board for each model.
        names: Names of the models.
        cross_lingual: Whether the scores are cross-lingual.
        published: Model -> language (cross-lingual: task) -> published score in percent.
        covers: Language and task of every score in the published averages.
    """

    boards: tuple[Board, ...]
    names: tuple[str, ...]
    cross_lingual: bool
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    covers: Collection[Key] = ()
    _means: dict[tuple[Key, ...], tuple[Any, ...]] = field(default_factory=dict, init=False, repr=False)

    @property
    def outer(self) -> int:
        """What a mean gives equal weights, as in the paper's tables: languages, or tasks if they are cross-lingual."""
        return TASK if self.cross_lingual else LANGUAGE

    @property
    def kind(self) -> str:
        """Either "cross-lingual" or "monolingual"."""
        return "cross-lingual" if self.cross_lingual else "monolingual"

    @cached_property
    def keys(self) -> list[Key]:
        """Language and task of every row of any model, with languages in the order of the paper."""
        return list(self.boards[0].entries)

    def about(self, key: Key) -> Entry:
        """Give an entry of a row for its title, type and metric, from a model with a score if there is one."""
        entries = [board.entries[key] for board in self.boards]
        return next((entry for entry in entries if entry.score is not None), entries[0])

    def shared(self, keys: Iterable[Key]) -> list[Key]:
        """Choose the keys that all models have which have any of them."""
        keys = list(keys)
        known = [{key for key in keys if board.entries[key].score is not None} for board in self.boards]
        known = [each for each in known if each]
        return [key for key in keys if known and all(key in each for each in known)]

    def row(self, label: str, keys: Iterable[Key]) -> MeanRow:
        """Average some scores, over the same scores for every model; each mean is computed once.

        Args:
            label: Label of the row.
            keys: Language and task of the scores.
        """
        keys = tuple(keys)
        if keys not in self._means:
            shared, nothing = self.shared(keys), Mean(None, None, None, False)
            means = [board.mean(shared, self.outer) for board in self.boards]
            known = tuple(mean if mean.complete else nothing for mean in means)
            self._means[keys] = len(shared), known, self._beside({key[self.outer] for key in keys}, shared)
        return MeanRow(label, len(keys), *self._means[keys])

    def _beside(self, members: set[str], shared: Iterable[Key]) -> tuple[str, ...]:
        """Give the published means over languages or tasks, if they are over the same scores as the measured means."""
        if set(shared) != {key for key in self.covers if key[self.outer] in members}:
            return (NOT_COMPARABLE,) * len(self.published)
        known = [[scores[each] for each in sorted(members) if each in scores] for scores in self.published.values()]
        return tuple(score_cell(float(np.mean(row))) if len(row) == len(members) else NOT_PUBLISHED for row in known)

    def not_comparable(self) -> list[str]:
        """Say why a language (cross-lingual: a task) has no published score."""
        lines, outer = [], self.outer
        lacking = f"not measured {'by every model' if len(self.names) > 1 else 'here'}"
        for member in dict.fromkeys(key[outer] for key in self.keys) if self.published else ():
            run = {key[1 - outer] for key in self.shared(key for key in self.keys if key[outer] == member)}
            theirs = {key[1 - outer] for key in self.covers if key[outer] == member}
            apart = {lacking: theirs - run, "not in the published mean": run - theirs}
            why = [f"{words}: {', '.join(sorted(names))}" for words, names in apart.items() if names]
            lines += [f"no comparable published score for {member}: {'; '.join(why)}"] if why else []
        return lines

    @property
    def whole(self) -> MeanRow:
        """The mean over everything."""
        return self.row("all", self.keys)

    def rows(self, label: Callable[[Key], str]) -> list[MeanRow]:
        """Average by group; `label` gives the group of a key, such as its language, type or task."""
        groups: dict[str, list[Key]] = {}
        for key in self.keys:
            groups.setdefault(label(key), []).append(key)
        return [self.row(name, keys) for name, keys in groups.items()]

    groups_note = (
        "Groups of languages: resource classes from 5 (most) to 0 are from Joshi et al. 2020 (arXiv 2004.09095). "
        "Languages seen by XLM-R are those in the list of its training data (arXiv 1911.02116). Scripts are codes of "
        "ISO 15924."
    )

    @cached_property
    def many(self) -> bool:
        """Whether there are so many languages that the tables show groups."""
        return len({code for code, _ in self.keys}) > averages.MANY

    @cached_property
    def everywhere(self) -> list[str]:
        """The tasks that every language has; groups of languages are comparable over these."""
        codes = {code for code, _ in self.keys}
        asked = {task: {code for code, each in self.keys if each == task} for _, task in self.keys}
        return [task for task, there in asked.items() if there == codes]

    def groups(self, keys: Iterable[Key]) -> list[MeanRow]:
        """Average over groups of languages, such as all, all but English, and resource levels."""
        keys = list(keys)
        found = averages.groups({code for code, _ in keys})
        rows = []
        for name, codes in found.items():
            label = f"{name} ({', '.join(codes)})" if "resources" in name else name
            rows.append(self.row(label, [key for key in keys if key[0] in codes]))
        return rows

    def tables(self) -> list[MeanTable]:
        """Make all tables of means, the most important first."""
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
        """Average many languages by group, with one table for each task that all of them have."""
        found = []
        for task in self.everywhere:
            keys = [key for key in self.keys if key[TASK] == task]
            caption = f"Mean by group of languages: {self.about(keys[0]).title}"
            found.append(MeanTable(caption, "languages", self.groups(keys), None, []))
        return found

    def missing(self) -> dict[tuple[str, str, str], list[str]]:
        """Give model, task and reason -> the languages in which the score is missing for that reason."""
        found: dict[tuple[str, str, str], list[str]] = {}
        for name, board in zip(self.names, self.boards, strict=True):
            for (code, task), entry in board.entries.items():
                if entry.missing:
                    found.setdefault((name, task, entry.missing), []).append(code)
        return found


@dataclass(frozen=True, eq=False)
class Facts:
    """The evaluations of one suite in a report.

    Attributes:
        evaluations: The evaluations.
        names: Names of the models.
        own: Monolingual scores; None if there are none.
        cross: Cross-lingual scores; None if there are none.
        seed: Seed of the resampling.
        gaps: Gap between languages of each model; None if it was not measured.
        islands: Vectors of each model for the t-SNE figure; None without any.
    """

    evaluations: tuple[Results, ...]
    names: tuple[str, ...]
    own: ScoreSet | None
    cross: ScoreSet | None
    seed: int
    gaps: tuple[Gap | None, ...]
    islands: tuple[dict[str, np.ndarray] | None, ...] = ()

    @property
    def title(self) -> str:
        """The suite, and the embedder of the documents if it is another one."""
        first = self.evaluations[0]
        against = f", documents by {first.model.against.name}" if first.model.against else ""
        return f"suite {first.suite}{against}"

    @property
    def sets(self) -> list[ScoreSet]:
        """The monolingual and the cross-lingual scores, if there are any."""
        return [scores for scores in (self.own, self.cross) if scores is not None]

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The first model compared with each other model, task by task; none for a single model."""
        return compare.compare_all(self.evaluations, self.seed) if len(self.evaluations) > 1 else []

    def seen(self, model: int) -> dict[Key, Seen | None]:
        """Give language and task of each score of a model -> test texts in its training data; None if unknown."""
        return {entry.key: entry.seen for entry in self.evaluations[model].scores if entry.score is not None}

    def differing(self, what: str) -> list[str] | None:
        """List the keys of "data", "settings" or "versions" that differ; None for one model or if nothing is known."""
        values: list[Mapping[str, Any]] = [getattr(each, what) for each in self.evaluations]
        keys = dict.fromkeys(key for value in values for key in value)
        if len(values) < 2 or not keys:
            return None
        return [key for key in keys if any(value.get(key) != values[0].get(key) for value in values)]


def read(folders: Sequence[Path], seed: int = 0) -> list[Facts]:
    """Read evaluation folders and group those that can be compared.

    Args:
        folders: Output folders of `lusifer evaluate`.
        seed: Seed of the resampling.

    Returns:
        The facts of each suite, in the order of the folders. Scores against the documents of another embedder are
        separate; the scores of the same models alone, in the same languages and tasks, are added to them.

    Raises:
        UsageError: There are no folders, one is given twice, or two of a suite have the same model and folder name.
        DataError: A folder is no evaluation folder, or it is damaged.
    """
    if not folders:
        raise UsageError("no evaluation folder: name one or more output folders of `lusifer evaluate`")
    evaluations: list[Results] = []
    for number, folder in enumerate(folders):
        if expand_user(folder).resolve() in [expand_user(each).resolve() for each in folders[:number]]:
            raise UsageError(f"{folder}: this folder is given twice: name it once")
        each = results.read(folder)
        known = [(e.suite, e.model.name, e.folder.name) for e in evaluations if e.folder]
        if (each.suite, each.model.name, folder.name) in known:
            raise UsageError(
                f"{folder}: another folder has the same name {folder.name!r} and the same model "
                f"{each.model.name!r}: rename one of the folders"
            )
        evaluations.append(each)
    if not any(each.scores for each in evaluations):
        raise UsageError(f"{folders[0]}: nothing was evaluated in it: evaluate again, or name another folder")
    parts: dict[tuple[str, str | None], list[Results]] = {}
    for each in evaluations:
        index = each.model.against
        parts.setdefault((each.suite, index.identity if index else None), []).append(each)
    for (suite, index), part in parts.items():
        part += _alone(part, parts.get((suite, None), [])) if index else []
    return [gather(part, seed) for part in parts.values()]


def _alone(against: Sequence[Results], others: Sequence[Results]) -> list[Results]:
    """Give the scores of the same models with their own documents, in the languages and tasks of `against`.

    The comparison shows what an index of one's own would gain.
    """
    models = {each.model.identity for each in against}
    keys = {entry.key for each in against for entry in each.scores}
    keys |= {(code, task) for each in against for task, about in _worn(each).items() for code in about["changed"]}
    parts = [_only(each, keys) for each in others if each.model.identity in models]
    return [part for part in parts if part.scores]


def _only(result: Results, keys: Collection[Key]) -> Results:
    """Give the results with only some languages and tasks."""
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
    """Give the perturbed tasks in the settings of the suite `robust`; none for other suites."""
    return {} if perturbed.least_share(result) is None else result.settings[perturbed.FACTS]["tasks"]


def gather(evaluations: Sequence[Results], seed: int = 0) -> Facts:
    """Gather the facts of evaluations, whatever their suites and names.

    Args:
        evaluations: The evaluations.
        seed: Seed of the resampling.

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
    """Compare English with the other languages, over the tasks that all models have in English and another language.

    Returns:
        Model -> means of English and of the other languages in percent; the number of other languages; the number of
        tasks. The mean of the others is over the languages of a task, then over tasks, so that a language without a
        task does not change the weight of the task.
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
    """Give the shared results of the tasks that every language has; languages are comparable over these."""
    shared = scores.shared(scores.keys)
    codes = {code for code, _ in shared}
    spoken = {task: {code for code, each in shared if each == task} for _, task in shared}
    return [key for key in shared if spoken[key[1]] == codes]
