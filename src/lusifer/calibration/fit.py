"""Make the language statistics of a model from parallel text, and say what they are worth on text beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lusifer.calibration.statistics import ERROR, RIGHT, SPREAD, WRONG, LanguageStatistics, offsets_of, unit
from lusifer.errors import DataError, UsageError
from lusifer.io.parallel_text import ENGLISH, Parallel
from lusifer.language_gap import Embed
from lusifer.languages import language

FEWEST = 3
"""Sentences without which there is no spread of wrong pairs."""
ACCEPTED = 0.01
"""The share of wrong pairs that the threshold of the table lets through, over all languages."""
_CELLS = 2**22
"""Cosines in memory at once."""


@dataclass(frozen=True)
class Parties:
    """Who embeds the questions, and who the documents: names, identities, and what stands before the texts."""

    model: str
    identity: str
    documents: str
    query: str
    document: str


@dataclass(frozen=True)
class Accepted:
    """A language at one threshold for all, in per cent: wrong pairs above it, and right pairs below it.

    `before` is by the cosine, `after` by the calibrated score; `right` and `wrong` are the mean cosines of the pairs.
    """

    right: float
    wrong: float
    accepted_before: float
    accepted_after: float
    missed_before: float
    missed_after: float


def codes(texts: Mapping[str, object], where: str) -> dict[str, str]:
    """The languages of parallel text, by their codes here -> by those in the file.

    Raises:
        UsageError: A key is the code of no language.
        DataError: Two keys are one language.
    """
    made: dict[str, str] = {}
    for key in texts:
        try:
            code = language(key).code
        except UsageError as error:
            raise UsageError(f"{where}: key {key}: {error}: correct the key, or take it out") from error
        if code in made:
            raise DataError(f"{where}: keys {made[code]} and {key} are both {code}: leave one out")
        made[code] = key
    return made


def fit(
    questions: Mapping[str, np.ndarray], documents: Mapping[str, np.ndarray], asked: Parties, source: str
) -> LanguageStatistics:
    """Measure the languages of a model.

    Args:
        questions: Language -> vectors (n, d) of the sentences as questions; sentence i is the same in each.
        documents: Likewise as documents.
        asked: Who made them.
        source: Where the sentences came from, in words.

    Raises:
        DataError: There are too few sentences.
    """
    count = len(next(iter(questions.values())))
    if count < FEWEST:
        raise _too_few(count, source)
    rows = [unit(questions[code]) for code in questions]
    others = rows if questions is documents else [unit(documents[code]) for code in questions]
    means = [np.stack([each.mean(axis=0) for each in side]) for side in (rows, others)]
    pairs = np.empty((2, len(rows), len(rows), 4))
    for with_offsets in (0, 1):
        sides = [rows, others]
        if with_offsets:
            sides = [
                [unit(each - shift) for each, shift in zip(side, offsets_of(own, list(questions)), strict=True)]
                for side, own in zip(sides, means, strict=True)
            ]
        for one, left in enumerate(sides[0]):
            for other, right in enumerate(sides[1]):
                pairs[with_offsets, one, other] = wrong_pairs(left, right, one == other)
    return LanguageStatistics(
        asked.model, asked.identity, asked.documents, asked.query, asked.document, source, count, tuple(questions),
        means[0].astype(np.float32), means[1].astype(np.float32), pairs,
    )  # fmt: skip


def measure(
    parallel: Parallel, question: Embed, document: Embed | None, asked: Parties, source: str
) -> tuple[LanguageStatistics, dict[str, Accepted]]:
    """Embed parallel text, and make the statistics of all of it; and see what those of one half do on the other.

    Args:
        parallel: The sentences.
        question: Embeds texts as questions.
        document: Embeds them as documents; None where that makes the same vectors.
        asked: Who embeds.
        source: Where the sentences came from, in words.

    Returns:
        The statistics, and of each language but English what one threshold does; empty where a half is too small.

    Raises:
        UsageError: A key of the text is the code of no language.
        DataError: There are too few sentences, or two keys of one language.
    """
    keys = codes(parallel.texts, source)
    if parallel.sentences < FEWEST:
        raise _too_few(parallel.sentences, source)
    questions = {code: unit(question(list(parallel.texts[key]))) for code, key in keys.items()}
    documents = questions
    if document is not None:
        documents = {code: unit(document(list(parallel.texts[key]))) for code, key in keys.items()}
    table: dict[str, Accepted] = {}
    if parallel.sentences >= 2 * FEWEST:
        even, odd = slice(0, None, 2), slice(1, None, 2)
        halves = [{code: rows[even] for code, rows in side.items()} for side in (questions, documents)]
        one = fit(*halves, asked, source)
        table = accepted(one, {code: rows[odd] for code, rows in questions.items()}, documents[ENGLISH][odd])
    return fit(questions, documents, asked, source), table


def _too_few(count: int, source: str) -> DataError:
    return DataError(f"{source}: {count} sentences: at least {FEWEST} are needed, and some hundred are better")


def wrong_pairs(questions: np.ndarray, documents: np.ndarray, same: bool) -> np.ndarray:
    """The four numbers of a pair of languages, from vectors (n, d) of length 1 of the same sentences.

    Every question is compared with every document but its own translation. The standard error of the mean is that of
    the jackknife over sentences, each of which is in 2 (n - 1) of the pairs.

    Args:
        questions: Of one language.
        documents: Of the other.
        same: Whether the two are one language: the right pair is then a sentence and itself, and not counted.
    """
    count = len(questions)
    own = np.einsum("ij,ij->i", questions, documents)
    across, down, squares = np.empty(count), documents @ questions.sum(axis=0), 0.0
    block = max(1, _CELLS // count)
    for start in range(0, count, block):
        cosines = questions[start : start + block] @ documents.T
        across[start : start + block] = cosines.sum(axis=1)
        squares += float((cosines**2).sum())
    pairs = count * (count - 1)
    total = across.sum() - own.sum()
    mean = total / pairs
    spread = np.sqrt(max((squares - float((own**2).sum())) / pairs - mean**2, 1e-12))
    without = (total - across - down + 2 * own) / ((count - 1) * (count - 2))
    error = np.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    made = np.empty(4)
    made[WRONG], made[SPREAD], made[ERROR] = mean, spread, error
    made[RIGHT] = np.nan if same else own.mean()
    return made


def accepted(
    statistics: LanguageStatistics, questions: Mapping[str, np.ndarray], documents: np.ndarray
) -> dict[str, Accepted]:
    """What one threshold for all languages does on sentences that the statistics were not made of, against English.

    The threshold lets `ACCEPTED` of the wrong pairs through over all languages together, by the cosine and by the
    calibrated score.

    Args:
        statistics: Of other sentences.
        questions: Language -> vectors (n, d).
        documents: Vectors (n, d) of the same sentences in English.
    """
    found = {code: unit(vectors) @ unit(documents).T for code, vectors in questions.items() if code != ENGLISH}
    sides: list[dict[str, tuple[np.ndarray, np.ndarray]]] = []
    for calibrated in (False, True):
        side = {}
        for code, cosines in found.items():
            scores = statistics.calibrated(cosines, code, ENGLISH) if calibrated else cosines
            off = ~np.eye(len(scores), dtype=bool)
            side[code] = np.diag(scores), scores[off]
        sides.append(side)
    made = {}
    limits = [np.quantile(np.concatenate([wrong for _, wrong in side.values()]), 1 - ACCEPTED) for side in sides]
    for code in found:
        let = [100 * float((side[code][1] > limit).mean()) for side, limit in zip(sides, limits, strict=True)]
        missed = [100 * float((side[code][0] <= limit).mean()) for side, limit in zip(sides, limits, strict=True)]
        right, wrong = (float(each.mean()) for each in sides[0][code])
        made[code] = Accepted(right, wrong, *let, *missed)
    return made
