"""Where a model stops reading, from the scores of the suite `long`: by length and place, whole or in passages."""

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
"""A model that finds at least this share of what it finds in a single paragraph has read as far as there."""


@dataclass(frozen=True)
class LengthDetails:
    """The details of one language and task."""

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
        """Where in the document the answer is."""
        if self.paragraphs == 1:
            return "alone"
        return PLACES[0] if self.place == 0 else PLACES[2] if self.place == self.paragraphs - 1 else PLACES[1]


@dataclass(frozen=True)
class LengthRow:
    """Documents of one length with the answer at one place.

    Attributes:
        details: Paragraphs, place, words in all and before the answer, whether in passages, and how many documents (or
            passages) are longer than what the embedder reads.
        scores: Language of the questions -> accuracy in percent, with its interval; missing where it was not measured.
        mean: The mean over those languages that every row has; None without any.
    """

    details: LengthDetails
    scores: Mapping[str, Mean]
    mean: float | None


@dataclass(frozen=True)
class LengthReport:
    """One model: its rows, whole documents first, by length; `chance` is the percent that guessing would give."""

    name: str
    languages: tuple[str, ...]
    rows: tuple[LengthRow, ...]
    chance: float
    sentences: tuple[str, ...]


def reports(results: Sequence[Results], names: Sequence[str]) -> list[LengthReport]:
    """Read how far each model reads; models without such details are left out.

    Raises:
        DataError: Details are damaged; the message names file and key.
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
    """How far it reads, and what passages change."""
    whole = [row for row in rows if not row.details.in_passages and row.mean is not None]
    alone = next((row for row in whole if row.details.paragraphs == 1), None)
    ends = [row for row in whole if row.details.position == "end"]
    if alone is None or not ends:
        return []
    least = LEFT * alone.mean
    # A longer text that is found again behind one that is not would be chance.
    until = next((number for number, row in enumerate(ends) if row.mean < least), len(ends))
    read = ends[:until]
    begin = f"{name}, a whole text in one vector: alone, a paragraph of {alone.details.words:.0f} words is found by"
    found = [f"{begin} {alone.mean:.0f} % of the questions"]
    if until == len(ends):
        found[0] += (
            f", behind {read[-1].details.before:.0f} words still by {read[-1].mean:.0f} %: it reads to the end of all."
        )
    else:
        last = ends[until]
        found[0] += (
            f", behind {last.details.before:.0f} words by {last.mean:.0f} %, less than half: it reads to about "
            f"{(read[-1].details if read else alone.details).words:.0f} words."
        )
    split = [row for row in rows if row.details.in_passages and row.mean is not None]
    pairs = [(one, two) for one in ends for two in split if one.details.paragraphs == two.details.paragraphs]
    if pairs:
        one, two = pairs[-1]
        found.append(
            f"In passages, as an index splits, documents of {two.details.words:.0f} words with the answer at the end "
            f"are found by {two.mean:.0f} % in place of {one.mean:.0f} %."
        )
    return found
