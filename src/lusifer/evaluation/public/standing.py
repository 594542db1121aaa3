"""Where a user's model stands among the public ones, by language and by type of task."""

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
    """One line: a model's place over some rows.

    Attributes:
        label: Code of the language, or the type of task; "all" for everything.
        rank: 1 for the best; equal means share the better place.
        rows: How many rows all compared models have; the means are over these alone.
        measured: How many of these the user's model has.
        order: Compared models with their means in per cent, the best first, the user's among them.
        model: The user's.
        low: Lower end of the 95 % interval of the user's mean, by resampling its examples; None where it has none.
            Examples of the public models are not published.
        high: Upper end.
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
        """The ranks at the two ends of the interval, the better one first, the public means as they stand."""
        if self.low is None or self.high is None:
            return None
        others = [mean for name, mean in self.order if name != self.model]
        best, worst = (1 + sum(mean > end for mean in others) for end in (self.high, self.low))
        return best, worst

    @property
    def of(self) -> int:
        """How many models are compared, the user's counted."""
        return len(self.order)

    @property
    def mean(self) -> float:
        """The user's model's mean, in per cent."""
        return dict(self.order)[self.model]

    @property
    def best(self) -> tuple[str, float]:
        """The best public model and its mean."""
        return next(pair for pair in self.order if pair[0] != self.model)


@dataclass(frozen=True, eq=False)
class Standing:
    """One model among the public ones, over the monolingual rows or over the cross-lingual ones.

    Attributes:
        model: Its name, as in `League.models`.
        league: All rows that it has, over the models that give the most scores.
        whole: Its place over these.
        languages: Its place by language, each over the models that give the most scores there: so two lines may be
            over different models. Cross-lingual: by task.
        types: Its place by type of task, likewise.
        alone: Languages (cross-lingual: tasks) and types in which no public model has a row of its.
        notes: What differs between its scores and the public ones, in sentences.
        source: Of the public scores.
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
    """Place an evaluation's model among the public ones.

    Only rows that agree in metric, split and subsets are compared. The public models did not run here: revisions of
    data and versions of mteb may differ, and notes say how often.

    Args:
        evaluation: Of any suite; what it shares with the public scores counts.
        public: Another table than the packaged one.
        seed: Of the resampling behind the intervals of the user's means.

    Returns:
        One for its monolingual rows and one for its cross-lingual ones, each only where a public model has any of them.
    """
    public = public or table()
    evaluation = own_name(evaluation, public)
    parts = (evaluation.part(cross_lingual) for cross_lingual in (False, True))
    found = [_standing(part, public, seed) for part in parts if any(entry.score is not None for entry in part.scores)]
    return [each for each in found if each is not None]


def own_name(evaluation: Results, public: PublicTable) -> Results:
    """Tell a public model that was evaluated again from its public scores, by name."""
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
    """None where there is nobody to compare with."""
    if len(found.models) < 2 or not found.keys:
        return None
    means = found.means(found.keys)
    mine, rank = found.mean(model, found.keys), ranks(means)[model]
    return Place(
        label, rank, len(found.keys), len(found.asked), tuple(means.items()), model, low=mine.low, high=mine.high
    )


def _notes(found: League, model: str, mine: Results, public: PublicTable) -> list[str]:
    """What differs: metrics, data, versions, who measured."""
    notes = [f"Not compared, {reason}: {', '.join(tasks)}." for reason, tasks in _not_comparable(found, model).items()]
    pairs = [(name, task) for name in found.models if name != model for task in {task for _, task in found.keys}]
    runs = [(task, public.runs[name, task]) for name, task in pairs]
    theirs = _data(runs, EvaluationFolder(mine.folder).data_revisions() if mine.folder else {})
    notes += [theirs] if theirs else []
    old = sum(run.before_2 for _, run in runs)
    version = mine.versions.get("mteb")
    notes.append(
        f"Of the {len(runs)} public scores of a model on a task, {old} are from mteb 1 or name no version"
        f"{f', and {model} was scored by mteb {version}' if version else ''}."
    )
    cards = sum(run.revision == "external" for _, run in runs)
    notes += [f"{cards} of them are what the model's own card says."] if cards else []
    return notes


def _data(runs: Sequence[tuple[str, PublicRun]], revisions: dict[str, str]) -> str | None:
    """How often the public scores are of other data; None where the user's data is not known."""
    known = [(run.dataset_revision, revisions[task]) for task, run in runs if task in revisions]
    if not known:
        return None
    same = Counter("unknown" if not theirs else theirs[:12] == ours[:12] for theirs, ours in known)
    unknown = f", and of {same['unknown']} it is unknown" if same["unknown"] else ""
    of = f"Of {len(known)} public scores of a model on a task"
    return f"{of}, {same[False]} are of another revision of the data{unknown}."


def _not_comparable(found: League, model: str) -> dict[str, list[str]]:
    """Why rows that both have are not compared -> the tasks."""
    said: dict[str, list[str]] = {}
    for name, board in found.boards.items():
        for (_, task), entry in board.entries.items() if name != model else ():
            if entry.missing and not entry.missing.startswith(NO_SCORE):
                tasks = said.setdefault(entry.missing.removeprefix("not comparable: "), [])
                tasks += [task] if task not in tasks else []
    return said
