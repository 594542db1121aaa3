"""The rank of a user's model among public models, by language and by type of task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lusifer.evaluation.public import league as leagues
from lusifer.evaluation.public.league import By, League, ranks
from lusifer.evaluation.public.table import NO_SCORE, PublicRun, PublicTable, table
from lusifer.evaluation.scores.folder import EvaluationFolder
from lusifer.evaluation.scores.results import Results


@dataclass(frozen=True)
class Place:
    """The rank of a model over some rows.

    Attributes:
        label: Code of the language, or the type of task; "all" for all rows.
        rank: Rank of the user's model, 1 for the best; equal means share the better rank.
        rows: Number of rows that all compared models have; the means are over these rows.
        measured: Number of rows that the user's model has.
        order: Name and mean in percent of the compared models, best first, with the user's model.
        model: Name of the user's model.
        low: Lower end of the 95 % interval of the user's mean, by resampling its examples; None without an interval.
            Public models have none, because their examples are not published.
        high: Upper end of that interval.
    """

    label: str
    rank: int
    rows: int
    measured: int
    order: tuple[tuple[str, float], ...]
    model: str
    low: float | None = None
    high: float | None = None

    @property
    def reach(self) -> tuple[int, int] | None:
        """Ranks of the user's model at both ends of its interval, the better rank first; public means do not vary."""
        if self.low is None or self.high is None:
            return None
        others = [mean for name, mean in self.order if name != self.model]
        best, worst = (1 + sum(mean > end for mean in others) for end in (self.high, self.low))
        return best, worst

    @property
    def of(self) -> int:
        """Number of compared models, with the user's."""
        return len(self.order)

    @property
    def mean(self) -> float:
        """Mean of the user's model, in percent."""
        return dict(self.order)[self.model]

    @property
    def best(self) -> tuple[str, float]:
        """Name and mean of the best public model."""
        return next(pair for pair in self.order if pair[0] != self.model)


@dataclass(frozen=True, eq=False)
class Standing:
    """The ranks of a user's model among public models, over monolingual or over cross-lingual rows.

    Attributes:
        model: Name of the user's model, as in `League.models`.
        league: The comparison over all its rows.
        whole: Its rank over these.
        languages: Its rank by language (cross-lingual: by task). Each line has its own set of compared models.
        types: Its rank by type of task, with the same caveat.
        alone: Languages (cross-lingual: tasks) and types without any row that a public model has too.
        notes: Differences between its scores and the public ones, in sentences.
        source: Source of the public scores.
    """

    model: str
    league: League
    whole: Place
    languages: tuple[Place, ...]
    types: tuple[Place, ...]
    alone: tuple[str, ...]
    notes: tuple[str, ...]
    source: str


def standings(evaluation: Results, public: PublicTable | None = None, seed: int = 0) -> list[Standing]:
    """Rank the model of an evaluation among public models.

    Only rows with the same metric, split and subsets are compared. Public scores may come from other revisions of the
    data and other versions of mteb; the notes report how many do.

    Args:
        evaluation: An evaluation of any suite; only rows with public scores count.
        public: The table of public scores; None for the packaged one.
        seed: Seed of the resampling for the intervals of the user's means.

    Returns:
        One item for monolingual rows and one for cross-lingual rows, each only if a public model has any of them.
    """
    public = public or table()
    evaluation = own_name(evaluation, public)
    parts = (evaluation.part(cross_lingual) for cross_lingual in (False, True))
    found = [_standing(part, public, seed) for part in parts if any(entry.score is not None for entry in part.scores)]
    return [each for each in found if each is not None]


def own_name(evaluation: Results, public: PublicTable) -> Results:
    """Add "(yours)" to the name of an evaluated model that is also a public model.

    Args:
        evaluation: The evaluation.
        public: The table of public scores.
    """
    name = evaluation.model.name
    return (
        replace(evaluation, model=replace(evaluation.model, name=f"{name} (yours)"))
        if name in public.models
        else evaluation
    )


def _standing(mine: Results, public: PublicTable, seed: int) -> Standing | None:
    rows = [entry for entry in mine.scores if entry.score is not None]
    known = {task for task, _, _ in public.scores}
    if not any(entry.task in known for entry in rows):
        return None
    mine = replace(mine, scores=tuple(rows))
    whole = leagues.league([mine, *(public.results(name, rows) for name in public.models)], first=True, seed=seed)
    model = whole.models[0]
    place = _place(whole, "all", model)
    if place is None:
        return None
    by: dict[By, list[Place]] = {}
    alone = []
    for what in ("task" if whole.cross_lingual else "language", "type"):
        by[what] = []
        for label, keys in leagues.grouped(whole.boards[model], whole.asked, what).items():
            found = _place(leagues.again(whole, keys, first=True), label, model)
            by[what] += [found] if found else []
            alone += [] if found else [label]
    languages, types = (tuple(places) for places in by.values())
    notes = _notes(whole, model, mine, public)
    return Standing(model, whole, place, languages, types, tuple(alone), tuple(notes), public.source)


def _place(found: League, label: str, model: str) -> Place | None:
    """Give the rank over the rows of a comparison; None if there is no model to compare with."""
    if len(found.models) < 2 or not found.keys:
        return None
    means = found.means(found.keys)
    mine, rank = found.mean(model, found.keys), ranks(means)[model]
    return Place(
        label, rank, len(found.keys), len(found.asked), tuple(means.items()), model, low=mine.low, high=mine.high
    )


def _notes(found: League, model: str, mine: Results, public: PublicTable) -> list[str]:
    """Say what differs between the user's and the public scores: metrics, data, versions and sources."""
    notes = [f"Not compared, {reason}: {', '.join(tasks)}." for reason, tasks in _not_comparable(found, model).items()]
    pairs = [(name, task) for name in found.models if name != model for task in {task for _, task in found.keys}]
    runs = [(task, public.runs[name, task]) for name, task in pairs]
    theirs = _data(runs, EvaluationFolder(mine.folder).data_revisions() if mine.folder else {})
    notes += [theirs] if theirs else []
    old = sum(run.before_2 for _, run in runs)
    version = mine.versions.get("mteb")
    notes.append(
        f"Of the {len(runs)} public scores of a model on a task, {old} are from mteb 1 or name no version"
        f"{f'; {model} was evaluated with mteb {version}' if version else ''}."
    )
    cards = sum(run.revision == "external" for _, run in runs)
    notes += [f"{cards} of them are from the model's own card."] if cards else []
    return notes


def _data(runs: Sequence[tuple[str, PublicRun]], revisions: dict[str, str]) -> str | None:
    """Count public scores on other revisions of the data; None if the revision of the user's data is not known."""
    known = [(run.dataset_revision, revisions[task]) for task, run in runs if task in revisions]
    if not known:
        return None
    same = Counter("unknown" if not theirs else theirs[:12] == ours[:12] for theirs, ours in known)
    unknown = f"; for {same['unknown']} it is unknown" if same["unknown"] else ""
    of = f"Of {len(known)} public scores of a model on a task"
    return f"{of}, {same[False]} used another revision of the data{unknown}."


def _not_comparable(found: League, model: str) -> dict[str, list[str]]:
    """Give the reasons why rows with both scores are not compared -> the tasks."""
    said: dict[str, list[str]] = {}
    for name, board in found.boards.items():
        for (_, task), entry in board.entries.items() if name != model else ():
            if entry.missing and not entry.missing.startswith(NO_SCORE):
                tasks = said.setdefault(entry.missing.removeprefix("not comparable: "), [])
                tasks += [task] if task not in tasks else []
    return said
