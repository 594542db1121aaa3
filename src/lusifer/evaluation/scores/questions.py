"""What a mean over questions hides: places of needed documents, errors by language, controls, and the worst questions.

It is read from the details that a task of questions keeps (`evaluation.search.ranked`), as plain values for a page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from lusifer.errors import DataError
from lusifer.evaluation.scores.averages import FLAT, Mean, order_of
from lusifer.evaluation.scores.bootstrap import RESAMPLES, Examples, blocks, interval, percentiles, score
from lusifer.evaluation.scores.results import AGAIN, DETAILS, Results

KIND = "ranked"
WORST = 20
ACCEPTED = 0.9
"""Share of the questions with an answer that a threshold lets through, to see what else it does."""
UNKNOWN = "und"
LEVEL = 0.05
POWER_Z = 1.959964 + 0.841621
"""Normal quantiles of a two-sided test at 5 % that sees a difference in 80 of 100 cases."""
DISAGREE = 0.2
"""Share of the questions that one of two models has right and the other not, as assumed where a number needs one."""


@dataclass(frozen=True)
class QuestionHit:
    """A document that was found: its id, its language and its cosine."""

    id: str
    language: str
    score: float


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question as the details have it; `right`, `ranks` and `languages` are empty for a negative control."""

    id: str
    language: str
    right: tuple[str, ...]
    ranks: tuple[int, ...]
    languages: tuple[str, ...]
    measures: Mapping[str, float] | None
    chance: float | None
    hits: tuple[QuestionHit, ...]

    @property
    def pair(self) -> tuple[str, str]:
        """Its language, and that of the documents it needs; several with + between."""
        return self.language, "+".join(order_of(set(self.languages)))

    @property
    def wrong_first(self) -> bool:
        """Whether the first document is none that it needs."""
        return bool(self.ranks) and not self.right_first

    @property
    def right_first(self) -> bool:
        """Whether the first document is one that it needs."""
        return bool(self.ranks) and min(self.ranks) == 1


@dataclass(frozen=True)
class QuestionDetails:
    """The details of one language."""

    kind: str
    documents: int
    passages: int
    cut: int
    questions: tuple[AnsweredQuestion, ...]
    sent: Mapping[str, str]
    texts: Mapping[str, str | None]


@dataclass(frozen=True)
class QuestionRow:
    """Questions in one language, or those that need documents in one: each figure with its 95 % interval.

    Attributes:
        language: Of the questions.
        documents: Language of the documents that they need; None for all.
        n: How many questions.
        ndcg: nDCG@10 in percent.
        first: The percent of the questions whose first document is a needed one, however many they need.
        ten: Recall among the first ten.
        mrr: Mean of 1 / the place of the first needed document, in percent.
        worst_place: Median of Max@R, the place of the needed document that stands furthest behind.
        last: The largest Max@R.
        errors: Questions whose first document is wrong.
        told: Of these, those where the language of the question and that of the first document are known.
        own: Of `told`, the percent whose first document is in the language of the question; None without any, and where
            no wrong document is in that language.
        chance: The percent that it would be if the wrong document was drawn from all of known language.
    """

    language: str
    documents: str | None
    n: int
    ndcg: Mean
    first: Mean
    ten: Mean
    mrr: Mean
    worst_place: Mean
    last: int
    errors: int
    told: int
    own: Mean | None
    chance: float | None


@dataclass(frozen=True)
class ControlRow:
    """How well the cosine of the first document tells questions with an answer from those without.

    Attributes:
        language: Of the questions.
        answered: How many have an answer.
        controls: How many have none.
        auc: How often, in percent, one with an answer has the higher cosine than one without; 50 is chance.
        threshold: The cosine above which 90 % of those with an answer lie.
        passed: The percent of the controls above it.
    """

    language: str
    answered: int
    controls: int
    auc: Mean
    threshold: float
    passed: float


@dataclass(frozen=True)
class WorstQuestion:
    """A question with the texts that a reader needs to see why: what was sent, what it needs, what was found.

    `right` holds id, place and text of each needed document, `found` id, language, cosine and text of each first one.
    """

    id: str
    language: str
    sent: str
    right: tuple[tuple[str, int, str | None], ...]
    found: tuple[tuple[str, str, float, str | None], ...]

    @property
    def place(self) -> int:
        """That of the needed document that stands furthest behind."""
        return max(place for _, place, _ in self.right)


@dataclass(frozen=True)
class QuestionReport:
    """One model on one task of questions; `cut` counts documents that are longer than what the embedder reads."""

    name: str
    task: str
    title: str
    documents: int
    passages: int
    cut: int
    languages: tuple[QuestionRow, ...]
    pairs: tuple[QuestionRow, ...]
    controls: tuple[ControlRow, ...]
    worst: tuple[WorstQuestion, ...]
    reach: tuple[str, ...]


def reports(results: Sequence[Results], names: Sequence[str], seed: int = 0) -> list[QuestionReport]:
    """Read what each model's details say of questions, one report for each model and task that has them.

    Raises:
        DataError: Details are damaged; the message names file and key.
    """
    found = []
    for result, name in zip(results, names, strict=True):
        for task in dict.fromkeys(task for _, task in result.details):
            parts = {code: each for (code, of), each in result.details.items() if of == task}
            parts = {code: _parsed(result, task, code, each) for code, each in parts.items() if each["kind"] == KIND}
            title = next((entry.title for entry in result.scores if entry.task == task), task)
            if parts:
                found.append(_report(name, task, title, {code: parts[code] for code in order_of(parts)}, seed))
    return found


def _parsed(result: Results, task: str, code: str, details: Mapping[str, Any]) -> QuestionDetails:
    try:
        made = TypeAdapter(QuestionDetails).validate_python(details)
        for each in made.questions:
            if len({len(each.right), len(each.ranks), len(each.languages)}) > 1 or bool(each.right) != bool(
                each.measures
            ):
                raise DataError(f"question {each.id!r}: an id, a place and a language for each needed document")
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except DataError as error:
        problem = str(error)
    else:
        return made
    raise DataError(f"{(result.folder or '')}/{DETAILS}/{task}.json: {code}: {problem}; {AGAIN}")


def _report(name: str, task: str, title: str, parts: Mapping[str, QuestionDetails], seed: int) -> QuestionReport:
    first = next(iter(parts.values()))
    languages, pairs, controls = [], [], []
    for code, part in parts.items():
        asked = [each for each in part.questions if each.right]
        languages.append(row(asked, code, None, seed))
        groups = {each.pair[1]: [other for other in asked if other.pair == each.pair] for each in asked}
        pairs += [row(groups[documents], code, documents, seed) for documents in order_of(groups)]
        made = control(part.questions, code, seed)
        controls += [made] if made is not None else []
    every = [each for part in parts.values() for each in part.questions if each.right]
    return QuestionReport(
        name,
        task,
        title,
        first.documents,
        first.passages,
        first.cut,
        tuple(languages),
        tuple(pairs),
        tuple(controls),
        _worst(parts),
        tuple(reach(len(every), 100 * float(np.mean([each.right_first for each in every])), len(parts))),
    )


def row(asked: Sequence[AnsweredQuestion], language: str, documents: str | None, seed: int = 0) -> QuestionRow:
    """Average some questions, at least one, each of which needs a document."""
    ids = [each.id for each in asked]
    worst = [max(each.ranks) for each in asked]
    wrong = [each for each in asked if each.wrong_first]
    told = [each for each in wrong if each.chance is not None and each.hits[0].language != UNKNOWN]
    own = chance = None
    if any(each.chance for each in told):
        own = mean([each.id for each in told], [each.hits[0].language == each.language for each in told], seed)
        chance = 100 * float(np.mean([each.chance for each in told]))
    return QuestionRow(
        language,
        documents,
        len(asked),
        mean(ids, [each.measures["ndcg"] for each in asked], seed),
        mean(ids, [each.right_first for each in asked], seed),
        mean(ids, [each.measures["recall_10"] for each in asked], seed),
        mean(ids, [1 / min(each.ranks) for each in asked], seed),
        median(worst, seed),
        max(worst),
        len(wrong),
        len(told),
        own,
        chance,
    )


def mean(ids: Sequence[str], values: Iterable[float], seed: int = 0) -> Mean:
    """The mean in percent with its interval; without one where no resample differs, unless all or none is right."""
    examples = Examples("mean", tuple(ids), np.array(list(values), dtype=float))
    return Mean(score(examples), *_ends(interval(examples, seed)), True)


def _ends(ends: tuple[float, float] | None) -> tuple[float | None, float | None]:
    """An interval, or none where no resample differs: that would show certainty, and there is doubt."""
    return (None, None) if ends is None or ends[1] - ends[0] < FLAT else ends


def median(values: Sequence[int], seed: int = 0) -> Mean:
    """The median with its interval by percentiles of resamples; none where no resample differs."""
    given = np.asarray(values, dtype=float)
    if len(given) == 1:
        return Mean(float(given[0]), None, None, True)
    generator = np.random.default_rng(seed)
    drawn = [
        np.median(given[generator.integers(len(given), size=(size, len(given)))], axis=1)
        for size in blocks(RESAMPLES, len(given))
    ]
    return Mean(float(np.median(given)), *_ends(percentiles(np.concatenate(drawn))), True)


def control(questions: Sequence[AnsweredQuestion], language: str, seed: int = 0) -> ControlRow | None:
    """Compare the first cosines of questions with and without an answer; None where there are no controls."""
    tops = {
        kind: np.array([each.hits[0].score for each in questions if bool(each.right) == kind]) for kind in (True, False)
    }
    if not len(tops[True]) or not len(tops[False]):
        return None
    threshold = float(np.quantile(tops[True], 1 - ACCEPTED, method="lower"))
    passed = 100 * float((tops[False] >= threshold).mean())
    return ControlRow(
        language, len(tops[True]), len(tops[False]), auc(tops[True], tops[False], seed), threshold, passed
    )


def auc(answered: np.ndarray, controls: np.ndarray, seed: int = 0) -> Mean:
    """How often one with an answer has the higher value, in percent; equal values count half.

    The interval is by resampling both kinds, each among its own.
    """
    above = (answered[:, None] > controls[None]) + 0.5 * (answered[:, None] == controls[None])
    generator = np.random.default_rng(seed)
    n, m = above.shape
    drawn = []
    for size in blocks(RESAMPLES, max(n, m)):
        one, other = (generator.multinomial(k, np.full(k, 1 / k), size=size) / k for k in (n, m))
        drawn.append(100 * ((one @ above) * other).sum(axis=1))
    ends = percentiles(np.concatenate(drawn)) if min(n, m) > 1 else None
    return Mean(100 * float(above.mean()), *_ends(ends), True)


def _worst(parts: Mapping[str, QuestionDetails]) -> tuple[WorstQuestion, ...]:
    """The questions whose needed documents stand furthest behind, of all languages."""
    found = []
    for part in parts.values():
        for each in part.questions:
            if each.id in part.sent:
                right = tuple((id, place, part.texts.get(id)) for id, place in zip(each.right, each.ranks, strict=True))
                hits = tuple((hit.id, hit.language, hit.score, part.texts.get(hit.id)) for hit in each.hits)
                found.append(WorstQuestion(each.id, each.language, part.sent[each.id], right, hits))
    return tuple(sorted(found, key=lambda each: -each.place)[:WORST])


def fewest_wins(rows: int = 1) -> int:
    """How many questions one model must have right and the other wrong, with none the other way round, for p < 0.05.

    McNemar's exact test, two-sided, with Holm's correction over `rows` languages.
    """
    return 1 + math.floor(1 - math.log2(LEVEL / rows))


def _points(value: float) -> str:
    """A difference in whole points, a small one with a decimal."""
    return f"{value:.0f}" if value >= 3 else f"{value:.1f}"


def reach(n: int, percent: float, languages: int = 1) -> list[str]:
    """Say what so many questions can show: how sure a share is, and which difference of two models a test can see.

    Args:
        n: Questions in all.
        percent: The share of them that the model has right.
        languages: Over how many rows the tests are corrected.
    """
    share = min(max(percent / 100, 1 / n), 1 - 1 / n) if n > 1 else 0.5
    half = 100 * 1.96 * math.sqrt(share * (1 - share) / n)
    wins = fewest_wins()
    seen = 100 * math.sqrt(POWER_Z**2 * DISAGREE / n)
    most = 100 * DISAGREE
    found = [
        f"{n:,} question{'s' * (n != 1)}: a share of right answers near {percent:.0f} % is known to about "
        f"±{_points(half)} points.",
        f"Of two models the better one must have at least {wins} more of these questions right, "
        f"{_points(100 * wins / n)} points, before a paired test can tell them apart."
        if wins <= n
        else f"No difference of two models can be told by a paired test: that takes {wins} questions at least.",
    ]
    if seen < most:
        words = f"a difference of {_points(seen)} points is seen in 80 of 100 such sets of questions"
    else:
        needed = math.ceil(POWER_Z**2 * DISAGREE / (most / 200) ** 2)
        words = (
            f"a difference of {most / 2:.0f} points is mostly missed here, and seen in 80 of 100 sets of {needed:,} "
            "questions"
        )
    found.append(f"Where two models disagree in a fifth of the questions, {words}.")
    if languages > 1:
        found.append(
            f"A table tests {languages} languages together: in a single one it takes {fewest_wins(languages)} "
            "questions that only the better model has right."
        )
    return found
