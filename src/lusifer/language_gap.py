"""How far apart a model keeps the languages: numbers from vectors of the same sentences in several languages.

All vectors are set to length 1 first, so a product is a cosine. `en` is the language that the others are compared with.
Similarities that differ by less than `TIE` (rounding in float32) are tied: a tie for the first place is a miss, and
tied candidates for the last of k places share it equally. So no number depends on the order of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from lusifer.errors import DataError, LusiferError

ENGLISH = "en"
K = 10
"""Neighbours that are looked at; the k of Radovanović et al. 2010."""
TIE = 1e-6
_CELLS = 2**24  # similarities in memory at once: 64 MB beside one copy of the vectors; changes no number

Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Within:
    """One language on its own. Shares are per cent; with L languages, both shares are 100 / L by chance.

    anisotropy: mean cosine of two different sentences of the language, over all pairs: 0 where directions are spread
        evenly (Ethayarajh 2019, arXiv 1909.00512, who draws pairs).
    own_language: how many of a text's k nearest, among the texts of all languages, are of its own language. Near 100
        the languages are islands (the language bias of Roy et al. 2020, arXiv 2004.05484).
    predicted: texts whose language most of their k nearest have, a tie counted by halves, thirds and so on. Where
        vectors tell nothing of the language (Libovický et al. 2020, arXiv 2004.05160) it is at chance.

    For both shares a text's own sentence is left out in every language: a translation that is near is no sign of a
    language.
    """

    anisotropy: float
    own_language: float
    predicted: float


@dataclass(frozen=True)
class Against:
    """One language against English. Accuracies and `shift_share` are per cent.

    to_english, from_english: texts whose nearest in the other language is their translation: accuracy at 1 (Artetxe and
        Schwenk 2019, arXiv 1812.10464).
    shift: distance of the two languages' mean vectors, from 0 to 2 (the gap of Liang et al. 2022, arXiv 2203.02053).
    shift_share: shift squared by the mean squared distance of translations, which is shift squared and the variance of
        their differences: 100 if every text of the language is its translation moved by one and the same vector. None
        where all translations coincide.
    translations, others: mean cosine of a text and its translation, and of a text and the other sentences in English.
    hubness: skewness of how often an English sentence is among the k nearest English ones of the language's texts
        (Radovanović et al. 2010, JMLR 11, 2487-2531); 0 where all are met equally often, and the greater, the
        more a few sentences are among the nearest of many.
    """

    to_english: float
    from_english: float
    shift: float
    shift_share: float | None
    translations: float
    others: float
    hubness: float

    @property
    def retrieval(self) -> float:
        """Accuracy at 1, the mean of both ways, in per cent."""
        return (self.to_english + self.from_english) / 2

    @property
    def margin(self) -> float:
        """How much nearer a translation is than another sentence, as a difference of mean cosines."""
        return self.translations - self.others


@dataclass(frozen=True)
class Gap:
    """One model on parallel text: `sentences` a language, neighbours `k`, `within` each language, and `against` en."""

    __pydantic_config__ = {"strict": True, "allow_inf_nan": False}  # for whoever reads it from a file
    sentences: int
    k: int
    within: dict[str, Within]
    against: dict[str, Against]

    @property
    def chance(self) -> float:
        """What `own_language` and `predicted` are by chance, in per cent."""
        return 100 / len(self.within)

    def mean(self, name: str) -> float | None:
        """Average a field, `retrieval` or `margin` over the languages that have it; None where none has.

        A number of `Within` is averaged over all languages, one of `Against` over those beside English.
        """
        rows = self.within if name in {field.name for field in fields(Within)} else self.against
        found = [value for row in rows.values() if (value := getattr(row, name)) is not None]
        return float(np.mean(found)) if found else None


def measure(embed: Embed, texts: Mapping[str, Sequence[str]], *, k: int = K) -> Gap:
    """Embed parallel text and measure the gap between the languages.

    Args:
        embed: The model; vectors of any length.
        texts: Language code -> texts; text i says the same in every language. `en` must be among them.
        k: Neighbours.

    Raises:
        DataError: No English, no other language, languages with different counts, or no more than k sentences.
        LusiferError: A vector is not finite or 0, or the model gives another number of them than there are texts.
    """
    sentences = _sentences({code: len(rows) for code, rows in texts.items()}, k)
    pool: np.ndarray | None = None
    for place, (code, rows) in enumerate(texts.items()):
        vectors = _unit(np.asarray(embed(rows)), code, sentences)
        if pool is None:
            pool = np.empty((len(texts), *vectors.shape), dtype=np.float32)
        pool[place] = vectors
    block = max(1, _CELLS // (len(texts) * sentences))
    by_code = dict(zip(texts, pool))
    english = by_code[ENGLISH]
    against = {code: _against(rows, english, k, block) for code, rows in by_code.items() if code != ENGLISH}
    own, predicted = neighbours(pool, k, block)
    within = {
        code: Within(_anisotropy(by_code[code]), 100 * float(own[place]), 100 * float(predicted[place]))
        for place, code in enumerate(texts)
    }
    return Gap(sentences, k, within, against)


def _sentences(counts: Mapping[str, int], k: int) -> int:
    """How many sentences every language has."""
    if ENGLISH not in counts or len(counts) < 2:
        raise DataError(f"languages {', '.join(counts) or 'none'}: give en and at least one other")
    wanted = counts[ENGLISH]
    for code, count in counts.items():
        if count != wanted:
            raise DataError(f"{code} has {count:,} sentences and en {wanted:,}: give each sentence in every language")
    if wanted <= k:
        raise DataError(f"{wanted:,} sentences in each language: {k} neighbours need {k + 1} or more")
    return wanted


def _unit(vectors: np.ndarray, code: str, sentences: int) -> np.ndarray:
    """Vectors (n, d) of length 1 in float32."""
    if vectors.ndim != 2 or len(vectors) != sentences:
        raise LusiferError(f"{code}: the model gives an array of shape {vectors.shape} for {sentences:,} texts")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    for problem, wrong in (("is not finite", ~np.isfinite(lengths)), ("has length 0", lengths == 0)):
        if wrong.any():
            row = int(wrong[:, 0].argmax()) + 1
            raise LusiferError(
                f"{code}: the vector of text {row:,} {problem}; see what `lusifer doctor` says of the model"
            )
    return (vectors / lengths).astype(np.float32)


def _against(rows: np.ndarray, english: np.ndarray, k: int, block: int) -> Against:
    """One language against English, both (n, d)."""
    count = len(rows)
    to_english, met = _search(rows, english, k, block)
    from_english, _ = _search(english, rows, k, block)
    apart = rows.astype(np.float64) - english
    shift = float(np.linalg.norm(apart.mean(axis=0)))
    distance = float((apart**2).sum(axis=1).mean())
    pairs = float(np.einsum("ij,ij->", rows, english, dtype=np.float64))
    every = float(rows.sum(axis=0, dtype=np.float64) @ english.sum(axis=0, dtype=np.float64))
    return Against(
        to_english=100 * to_english,
        from_english=100 * from_english,
        shift=shift,
        shift_share=100 * shift**2 / distance if distance > 0 else None,
        translations=pairs / count,
        others=(every - pairs) / (count * (count - 1)),
        hubness=_skewness(met),
    )


def _anisotropy(rows: np.ndarray) -> float:
    """Mean cosine of two different rows (n, d) of length 1: all products but those of a row with itself."""
    whole, count = rows.sum(axis=0, dtype=np.float64), len(rows)
    alone = float(np.einsum("ij,ij->", rows, rows, dtype=np.float64))
    return (float(whole @ whole) - alone) / (count * (count - 1))


def _search(queries: np.ndarray, documents: np.ndarray, k: int, block: int) -> tuple[float, np.ndarray]:
    """Search translations by cosine: document i, of (n, d), is the translation of query i, of (n, d).

    Returns:
        Accuracy at 1, from 0 to 1, and how often each document is among the k nearest of a query, (n,).
    """
    hits, met = 0, np.zeros(len(documents))
    for start in range(0, len(queries), block):
        similar = queries[start : start + block] @ documents.T
        certain, tied, share = _nearest(similar, k)
        met += certain.sum(axis=0) + share @ tied
        places = np.arange(len(similar)), np.arange(start, start + len(similar))
        translations = similar[places]
        similar[places] = -np.inf
        hits += int((translations > similar.max(axis=1) + TIE).sum())
    return hits / len(queries), met


def _nearest(similar: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mark the k nearest in each row of similarities (q, n).

    Returns:
        The certain ones, those tied for the last places, and the share of a place that each tied one gets, (q,).
    """
    last = np.partition(similar, -k, axis=1)[:, -k, None]
    certain, tied = similar > last + TIE, np.abs(similar - last) <= TIE
    return certain, tied, (k - certain.sum(axis=1)) / tied.sum(axis=1)


def neighbours(pool: np.ndarray, k: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Look at the k nearest of every text in (L, n, d) among those of all languages, its own sentence left out in each.

    `block` texts are compared with all others at once.

    Returns:
        By language, from 0 to 1: the mean share of neighbours of the text's own language, and the share of texts whose
        language most of their neighbours have (a tie between m languages counts 1 / m), each (L,).
    """
    count, sentences, _ = pool.shape
    flat = pool.reshape(count * sentences, -1)
    own, predicted = np.zeros(count), np.zeros(count)
    for start in range(0, len(flat), block):
        rows = np.arange(start, min(start + block, len(flat)))
        here, of = np.arange(len(rows)), rows // sentences
        similar = (flat[rows] @ flat.T).reshape(len(rows), count, sentences)
        similar[here, :, rows % sentences] = -np.inf
        certain, tied, share = _nearest(similar.reshape(len(rows), -1), k)
        votes = _by_language(certain, count) + share[:, None] * _by_language(tied, count)
        first = votes >= votes.max(axis=1, keepdims=True) - TIE
        own += np.bincount(of, votes[here, of] / k, minlength=count)
        predicted += np.bincount(of, first[here, of] / first.sum(axis=1), minlength=count)
    return own / sentences, predicted / sentences


def _by_language(marked: np.ndarray, count: int) -> np.ndarray:
    """How many are marked (q, L * n), by language (q, L)."""
    return marked.reshape(len(marked), count, -1).sum(axis=2)


def _skewness(counts: np.ndarray) -> float:
    """Give the third central moment divided by the cube of the standard deviation; 0 where all counts are equal."""
    apart = counts - counts.mean()
    variance = float((apart**2).mean())
    return float((apart**3).mean()) / variance**1.5 if variance > 1e-9 else 0.0
