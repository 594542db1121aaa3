"""Details of search results: ranks of needed documents, errors by language, negative controls, the worst questions.

They are computed from the details that a task of questions stores (`evaluation.search.ranked`), for the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from lusifer.errors import DataError
from lusifer.evaluation.scores.averages import FLAT, Mean, order_of
from lusifer.evaluation.scores.bootstrap import RESAMPLES, Examples, blocks, interval, percentiles, score
from lusifer.evaluation.scores.power import reach
from lusifer.evaluation.scores.results import AGAIN, DETAILS, Results

KIND = "ranked"
WORST = 20
ACCEPTED = 0.9
"""The threshold is set so that this share of the questions with an answer passes it."""
UNKNOWN = "und"


@dataclass(frozen=True)
class QuestionHit:
    """A document that was found: its id, its language and its cosine."""

    id: str
    language: str
    score: float


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question in the details.

    Attributes:
        id: Its id.
        language: Its language.
        right: Ids of the needed documents; empty for a negative control, as are `ranks` and `languages`.
        ranks: Rank of each needed document, from 1.
        languages: Language of each needed document.
        measures: Metric -> its value from 0 to 1; None for a negative control.
        chance: Share of the wrong documents that are in the language of the question; None if it is not known.
        hits: The first documents.
    """

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
        """Its language, and the languages of the needed documents, joined by +."""
        return self.language, "+".join(order_of(set(self.languages)))

    @property
    def wrong_first(self) -> bool:
        """Whether the question needs documents and the first document is none of them."""
        return bool(self.ranks) and not self.right_first

    @property
    def right_first(self) -> bool:
        """Whether the first document is a needed one."""
        return bool(self.ranks) and min(self.ranks) == 1


@dataclass(frozen=True)
class QuestionDetails:
    """The details of the questions in one language.

    Attributes:
        kind: `KIND`.
        documents: Number of documents that were searched.
        passages: Number of passages of these documents.
        cut: Documents that are longer than the embedder reads.
        questions: The questions.
        sent: Id of a question -> its text, for the worst ones.
        texts: Id of a document -> its text, as far as the report shows it.
    """

    kind: str
    documents: int
    passages: int
    cut: int
    questions: tuple[AnsweredQuestion, ...]
    sent: Mapping[str, str]
    texts: Mapping[str, str | None]


@dataclass(frozen=True)
class QuestionRow:
    """Metrics over questions in one language, also over those that need documents in some languages.

    Attributes:
        language: Language of the questions.
        documents: Languages of the needed documents; None for all.
        n: Number of questions.
        ndcg: nDCG@10 in percent.
        first: Percentage of questions whose first document is a needed one.
        ten: Recall@10 in percent.
        mrr: Mean reciprocal rank of the first needed document, in percent.
        worst_place: Median of Max@R, the rank of the last needed document.
        last: The largest Max@R.
        errors: Number of questions whose first document is wrong.
        told: Number of these where the languages of the question and of the first document are known.
        own: Percentage of `told` whose first document is in the language of the question; None if there are none or if
            no wrong document is in that language.
        chance: This percentage if the first document were drawn from all wrong documents of known language.
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
    """How well the cosine of the first document separates questions with and without an answer.

    Attributes:
        language: Language of the questions.
        answered: Number of questions with an answer.
        controls: Number of questions without an answer.
        auc: Area under the ROC curve in percent; 50 is chance.
        threshold: Cosine that 90 % of the questions with an answer reach.
        passed: Percentage of the questions without an answer that reach it.
    """

    language: str
    answered: int
    controls: int
    auc: Mean
    threshold: float
    passed: float


@dataclass(frozen=True)
class WorstQuestion:
    """A question with its texts.

    Attributes:
        id, language, sent: Its id, language and text.
        right: Id, rank and text of each needed document.
        found: Id, language, cosine and text of each of the first documents.
    """

    id: str
    language: str
    sent: str
    right: tuple[tuple[str, int, str | None], ...]
    found: tuple[tuple[str, str, float, str | None], ...]

    @property
    def place(self) -> int:
        """The rank of the last needed document."""
        return max(place for _, place, _ in self.right)


@dataclass(frozen=True)
class QuestionReport:
    """One model on one task of questions.

    Attributes:
        name: Name of the model.
        task: Name of the task.
        title: Title of the task.
        documents: Number of documents.
        passages: Number of passages.
        cut: Documents that are longer than the embedder reads.
        languages: One row for each language of questions.
        pairs: One row for each language of questions and languages of needed documents.
        controls: One row for each language with negative controls.
        worst: The questions with the lowest-ranked needed documents.
        reach: What so many questions can show, in words.
    """

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
    """Summarize the details of questions.

    Args:
        results: Evaluations.
        names: Names of the models.
        seed: Seed of the resampling.

    Returns:
        One report for each model and task with such details.

    Raises:
        DataError: Details are damaged; the message names the file and the key.
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
                raise DataError(f"question {each.id!r}: each needed document needs an id, a rank and a language")
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
    """Compute the metrics of some questions.

    Args:
        asked: At least one question; each needs a document.
        language: Language of the questions.
        documents: Languages of the needed documents; None for all.
        seed: Seed of the resampling.
    """
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
    """Compute a mean in percent with its interval; there is none if all values are equal, except all 0 or all 1.

    Args:
        ids: Ids of the examples.
        values: Value of each example, from 0 to 1.
        seed: Seed of the resampling.
    """
    examples = Examples("mean", tuple(ids), np.array(list(values), dtype=float))
    return Mean(score(examples), *_ends(interval(examples, seed)), True)


def _ends(ends: tuple[float, float] | None) -> tuple[float | None, float | None]:
    """Give an interval, or none if no resample differs: an interval without width would claim certainty."""
    return (None, None) if ends is None or ends[1] - ends[0] < FLAT else ends


def median(values: Sequence[int], seed: int = 0) -> Mean:
    """Compute a median with its interval by percentiles of resamples; there is none if no resample differs.

    Args:
        values: Value of each example.
        seed: Seed of the resampling.
    """
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
    """Compare the first cosines of questions with and without an answer; None if there are none of one kind.

    Args:
        questions: Questions of one language, with negative controls.
        language: Their language.
        seed: Seed of the resampling.
    """
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
    """Compute the area under the ROC curve in percent; equal values count half.

    The interval is by resampling; both kinds are resampled separately.

    Args:
        answered: Cosines of questions with an answer, float, (n,).
        controls: Cosines of questions without an answer, float, (m,).
        seed: Seed of the resampling.
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
    """Give the questions with the lowest-ranked needed documents, over all languages."""
    found = []
    for part in parts.values():
        for each in part.questions:
            if each.id in part.sent:
                right = tuple((id, place, part.texts.get(id)) for id, place in zip(each.right, each.ranks, strict=True))
                hits = tuple((hit.id, hit.language, hit.score, part.texts.get(hit.id)) for hit in each.hits)
                found.append(WorstQuestion(each.id, each.language, part.sent[each.id], right, hits))
    return tuple(sorted(found, key=lambda each: -each.place)[:WORST])
