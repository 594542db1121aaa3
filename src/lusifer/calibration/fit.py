"""Compute the language statistics of a model from parallel text, and test them on held-out sentences."""

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
"""The fewest sentences; with fewer, wrong pairs have no spread."""
ACCEPTED = 0.01
"""The share of wrong pairs above the threshold of the table, over all languages."""
_CELLS = 2**22
"""Cosines in memory at once."""


@dataclass(frozen=True)
class Parties:
    """The models that embed questions and documents.

    model: The name of the model that embeds questions, and `identity` its identity.
    documents: The identity of the model that embeds documents; usually the same.
    query: The prefix of questions.
    document: The prefix of documents.
    """

    model: str
    identity: str
    documents: str
    query: str
    document: str


@dataclass(frozen=True)
class Accepted:
    """A language at one threshold for all languages; "before" is by cosine, "after" by calibrated score.

    right, wrong: The mean cosines of right and of wrong pairs.
    accepted_before, accepted_after: The share of wrong pairs above the threshold, in per cent.
    missed_before, missed_after: The share of right pairs below the threshold, in per cent.
    """

    right: float
    wrong: float
    accepted_before: float
    accepted_after: float
    missed_before: float
    missed_after: float


def codes(texts: Mapping[str, object], where: str) -> dict[str, str]:
    """Map the usual codes of the languages of parallel text to the keys in the file.

    Args:
        texts: Key -> sentences.
        where: The file, for messages.

    Returns:
        Code -> key.

    Raises:
        UsageError: A key is no language code.
        DataError: Two keys are the same language.
    """
    made: dict[str, str] = {}
    for key in texts:
        try:
            code = language(key).code
        except UsageError as error:
            raise UsageError(f"{where}: key {key}: {error}: correct the key, or remove it") from error
        if code in made:
            raise DataError(f"{where}: keys {made[code]} and {key} are both {code}: remove one")
        made[code] = key
    return made


def fit(
    questions: Mapping[str, np.ndarray], documents: Mapping[str, np.ndarray], asked: Parties, source: str
) -> LanguageStatistics:
    """Compute the statistics of a model from vectors.

    Args:
        questions: Language -> vectors (n, d) of the sentences as questions; sentence i is the same in each language.
        documents: The same sentences as documents.
        asked: The models that made the vectors.
        source: Where the sentences come from, in words.

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
    """Embed parallel text, compute the statistics of all of it, and test those of one half on the other half.

    Args:
        parallel: The sentences.
        question: Embeds texts as questions.
        document: Embeds texts as documents; None if the vectors are the same as for questions.
        asked: The models that embed.
        source: Where the sentences come from, in words.

    Returns:
        The statistics, and the test by language, without English; it is empty if a half has too few sentences.

    Raises:
        UsageError: A key is no language code.
        DataError: There are too few sentences, or two keys are the same language.
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
    return DataError(f"{source}: {count} sentences: give at least {FEWEST}; some hundred are better")


def wrong_pairs(questions: np.ndarray, documents: np.ndarray, same: bool) -> np.ndarray:
    """Compute the four numbers of a pair of languages from the vectors of the same sentences.

    Every question is compared with every document except its own translation. The standard error of the mean is by the
    jackknife over sentences; each sentence is in 2 (n - 1) of the pairs.

    Args:
        questions: The vectors of one language, (n, d), of length 1.
        documents: Those of the other language.
        same: Whether both are one language. Then a right pair would be a sentence and itself, and is not counted.

    Returns:
        (4,) float64, by `WRONG`, `SPREAD`, `RIGHT` and `ERROR`.
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
    """Test one threshold for all languages on held-out sentences, with English documents.

    The threshold is set so that the share `ACCEPTED` of the wrong pairs of all languages together is above it: once by
    cosine and once by calibrated score.

    Args:
        statistics: Statistics of other sentences.
        questions: Language -> vectors (n, d).
        documents: The vectors (n, d) of the same sentences in English.

    Returns:
        Language -> result, without English.
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
