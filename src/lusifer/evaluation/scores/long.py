"""How far a model reads into a text, from the suite `long`: scores by length and position, complete or in passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from lusifer.errors import DataError
from lusifer.evaluation.scores.averages import Mean, order_of
from lusifer.evaluation.scores.results import AGAIN, DETAILS, Results

KIND = "long"
PLACES = ("start", "middle", "end")
LEFT = 0.5
"""A model reads as far as its accuracy is at least this share of its accuracy for a single paragraph."""


@dataclass(frozen=True)
class LengthDetails:
    """The details of one language and task.

    Attributes:
        kind: `KIND`.
        paragraphs: Paragraphs in a document.
        place: Position of the paragraph with the answer, from 0.
        in_passages: Whether documents are split into passages.
        documents: Number of documents.
        passages: Number of passages.
        words: Mean number of words in a document.
        before: Mean number of words before the answer.
        cut: Documents (or passages) that are longer than the embedder reads.
    """

    kind: str
    paragraphs: int
    place: int
    in_passages: bool
    documents: int
    passages: int
    words: float
    before: float
    cut: int

    @property
    def position(self) -> str:
        """Position of the answer in the document: "alone", "start", "middle" or "end"."""
        if self.paragraphs == 1:
            return "alone"
        return PLACES[0] if self.place == 0 else PLACES[2] if self.place == self.paragraphs - 1 else PLACES[1]


@dataclass(frozen=True)
class LengthRow:
    """The scores for documents of one length with the answer at one position.

    Attributes:
        details: Length of the documents and position of the answer.
        scores: Language of the questions -> accuracy in percent with its interval; only measured languages.
        mean: Mean over the languages that every row has; None if there are none.
    """

    details: LengthDetails
    scores: Mapping[str, Mean]
    mean: float | None


@dataclass(frozen=True)
class LengthReport:
    """The results of one model.

    Attributes:
        name: Name of the model.
        languages: The languages of the questions.
        rows: One row for each length and position; complete documents come first.
        chance: Accuracy of guessing, in percent.
        sentences: The results in words.
    """

    name: str
    languages: tuple[str, ...]
    rows: tuple[LengthRow, ...]
    chance: float
    sentences: tuple[str, ...]


def reports(results: Sequence[Results], names: Sequence[str]) -> list[LengthReport]:
    """Summarize how far each model reads; models without details of the suite `long` are left out.

    Args:
        results: Evaluations.
        names: Names of the models.

    Raises:
        DataError: Details are damaged; the message names the file and the key.
    """
    found = []
    for result, name in zip(results, names, strict=True):
        known = {key: _parsed(result, key) for key, each in result.details.items() if each["kind"] == KIND}
        if known:
            found.append(_report(result, name, known))
    return found


def _parsed(result: Results, key: tuple[str, str]) -> LengthDetails:
    try:
        return TypeAdapter(LengthDetails).validate_python(result.details[key])
    except ValidationError as error:
        first = error.errors()[0]
        place = f"{(result.folder or '')}/{DETAILS}/{key[1]}.json: {key[0]}"
        raise DataError(f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}; {AGAIN}") from None


def _report(result: Results, name: str, known: Mapping[tuple[str, str], LengthDetails]) -> LengthReport:
    entries = {entry.key: entry for entry in result.scores}
    tasks = {task: details for (_, task), details in known.items()}
    languages = tuple(order_of({code for code, _ in known}))
    everywhere = [code for code in languages if all((code, task) in known for task in tasks)]
    rows = []
    for task, details in tasks.items():
        there = {code: entries[code, task] for code in languages if (code, task) in known}
        scores = {code: Mean(entry.score, entry.low, entry.high, True) for code, entry in there.items()}
        mean = sum(scores[code].value for code in everywhere) / len(everywhere) if everywhere else None
        rows.append(LengthRow(details, scores, mean))
    rows.sort(key=lambda row: (row.details.in_passages, row.details.paragraphs, row.details.place))
    chance = 100 / rows[0].details.documents
    return LengthReport(name, languages, tuple(rows), chance, tuple(_sentences(name, rows)))


def _sentences(name: str, rows: Sequence[LengthRow]) -> list[str]:
    """Say how far the model reads, and what passages change."""
    whole = [row for row in rows if not row.details.in_passages and row.mean is not None]
    alone = next((row for row in whole if row.details.paragraphs == 1), None)
    ends = [row for row in whole if row.details.position == "end"]
    if alone is None or not ends:
        return []
    least = LEFT * alone.mean
    # If a longer text is found again after a shorter one is not, that is chance.
    until = next((number for number, row in enumerate(ends) if row.mean < least), len(ends))
    read = ends[:until]
    begin = f"{name}, one vector for a complete text: a paragraph of {alone.details.words:.0f} words alone is found for"
    found = [f"{begin} {alone.mean:.0f} % of the questions"]
    if until == len(ends):
        found[0] += (
            f"; after {read[-1].details.before:.0f} words of other text it is found for {read[-1].mean:.0f} %. "
            "The model reads all documents to the end."
        )
    else:
        last = ends[until]
        found[0] += (
            f"; after {last.details.before:.0f} words of other text it is found for {last.mean:.0f} %, less than half. "
            f"The model reads about {(read[-1].details if read else alone.details).words:.0f} words."
        )
    split = [row for row in rows if row.details.in_passages and row.mean is not None]
    pairs = [(one, two) for one in ends for two in split if one.details.paragraphs == two.details.paragraphs]
    if pairs:
        one, two = pairs[-1]
        found.append(
            f"With passages, as in an index, documents of {two.details.words:.0f} words with the answer at the end are "
            f"found for {two.mean:.0f} % instead of {one.mean:.0f} % of the questions."
        )
    return found
