"""Measure how far apart a model places the languages, from vectors of the same sentences in several languages.

All vectors are scaled to length 1 first, so a dot product is a cosine. The other languages are compared with `en`.
Similarities that differ by less than `TIE` (rounding in float32) count as tied. A tie for the first place is a miss.
Candidates that are tied for the last of k places share it equally. So no number depends on the order of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from lusifer.errors import DataError, LusiferError

ENGLISH = "en"
K = 10
"""The number of nearest neighbors; the k of Radovanović et al. 2010."""
TIE = 1e-6
_CELLS = 2**24  # similarities in memory at once: 64 MB, next to one copy of the vectors; changes no number

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts (n) -> their vectors, (n, d)."""


@dataclass(frozen=True)
class Within:
    """The numbers of one language on its own. Shares are in per cent; with L languages both are 100 / L by chance.

    anisotropy: The mean cosine of two different sentences of the language, over all pairs. 0 if directions are spread
        evenly (Ethayarajh 2019, arXiv 1909.00512, who samples pairs).
    own_language: The share of a text's k nearest neighbors, among the texts of all languages, that are in its own
        language. Near 100 the languages form separate groups (the language bias of Roy et al. 2020, arXiv 2004.05484).
    predicted: The share of texts whose language is the most frequent one among their k nearest. A tie between m
        languages counts 1 / m. At chance the vectors carry no language (Libovický et al. 2020, arXiv 2004.05160).

    For both shares the text's own sentence is left out in every language: a translation that is near says nothing
    about the language.
    """

    anisotropy: float
    own_language: float
    predicted: float


@dataclass(frozen=True)
class Against:
    """The numbers of one language compared with English. Accuracies and `shift_share` are in per cent.

    to_english, from_english: The share of texts whose nearest neighbor in the other language is their translation:
        accuracy at 1 (Artetxe and Schwenk 2019, arXiv 1812.10464).
    shift: The distance of the two languages' mean vectors, from 0 to 2 (the gap of Liang et al. 2022, arXiv
        2203.02053).
    shift_share: shift squared, divided by the mean squared distance of translations. That distance is shift squared
        plus the variance of the differences. 100 if every text is its translation moved by one and the same vector;
        None if all translations coincide.
    translations, others: The mean cosine of a text with its translation, and with the other English sentences.
    hubness: The skewness of how often an English sentence is among the k nearest of the language's texts (Radovanović
        et al. 2010, JMLR 11, 2487-2531). 0 if all are met equally often; greater if a few sentences are near to many.
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
        """Accuracy at 1, the mean of both directions, in per cent."""
        return (self.to_english + self.from_english) / 2

    @property
    def margin(self) -> float:
        """The mean cosine of translations minus the mean cosine of other pairs."""
        return self.translations - self.others


@dataclass(frozen=True)
class Gap:
    """All numbers of a model on parallel text of `sentences` per language, with `k` nearest neighbors.

    within: Language code -> its own numbers, English included.
    against: Language code -> its numbers compared with English, without English.
    """

    __pydantic_config__ = {"strict": True, "allow_inf_nan": False}  # for whoever reads it from a file
    sentences: int
    k: int
    within: dict[str, Within]
    against: dict[str, Against]

    @property
    def chance(self) -> float:
        """The value of `own_language` and `predicted` by chance, in per cent."""
        return 100 / len(self.within)

    def mean(self, name: str) -> float | None:
        """Average a field of `Within` or `Against`, `retrieval` or `margin` over the languages; None if none has it.

        A field of `Within` is averaged over all languages, one of `Against` over all but English.
        """
        rows = self.within if name in {field.name for field in fields(Within)} else self.against
        found = [value for row in rows.values() if (value := getattr(row, name)) is not None]
        return float(np.mean(found)) if found else None


def measure(embed: Embed, texts: Mapping[str, Sequence[str]], *, k: int = K) -> Gap:
    """Embed parallel text and measure the gap between the languages.

    Args:
        embed: The model: texts -> vectors (n, d), of any length.
        texts: Language code -> texts. Text i is the same sentence in every language. `en` must be among them.
        k: The number of nearest neighbors.

    Raises:
        DataError: English is missing or alone, the languages have different counts, or there are k sentences or fewer.
        LusiferError: A vector is 0 or not finite, or the model does not return one vector per text.
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
    own, predicted = neighbors(pool, k, block)
    within = {
        code: Within(_anisotropy(by_code[code]), 100 * float(own[place]), 100 * float(predicted[place]))
        for place, code in enumerate(texts)
    }
    return Gap(sentences, k, within, against)


def _sentences(counts: Mapping[str, int], k: int) -> int:
    """How many sentences every language has."""
    if ENGLISH not in counts or len(counts) < 2:
        raise DataError(f"parallel text: languages {', '.join(counts) or 'none'}: give en and at least one other")
    wanted = counts[ENGLISH]
    for code, count in counts.items():
        if count != wanted:
            words = f"{code} has {count:,} sentences and en {wanted:,}"
            raise DataError(f"parallel text: {words}: give each sentence in every language")
    if wanted <= k:
        words = f"{wanted:,} sentences in each language"
        raise DataError(f"parallel text: {words}: give {k + 1} or more, for {k} nearest neighbors")
    return wanted


def _unit(vectors: np.ndarray, code: str, sentences: int) -> np.ndarray:
    """Vectors (n, d) of length 1 in float32."""
    if vectors.ndim != 2 or len(vectors) != sentences:
        shapes = f"expected vectors of shape ({sentences}, d), found {vectors.shape}"
        raise LusiferError(f"{code}: {shapes}: let `embed` return one vector per text")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    for problem, wrong in (("is not finite", ~np.isfinite(lengths)), ("has length 0", lengths == 0)):
        if wrong.any():
            row = int(wrong[:, 0].argmax()) + 1
            raise LusiferError(f"{code}: the vector of text {row:,} {problem}: check the model with `lusifer doctor`")
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
    """Mean cosine of two different rows (n, d) of length 1: all products except those of a row with itself."""
    whole, count = rows.sum(axis=0, dtype=np.float64), len(rows)
    alone = float(np.einsum("ij,ij->", rows, rows, dtype=np.float64))
    return (float(whole @ whole) - alone) / (count * (count - 1))


def _search(queries: np.ndarray, documents: np.ndarray, k: int, block: int) -> tuple[float, np.ndarray]:
    """Search translations by cosine: document i is the translation of query i, both (n, d).

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
        The certain ones (q, n), those tied for the last places (q, n), and the share that each tied one gets, (q,).
    """
    last = np.partition(similar, -k, axis=1)[:, -k, None]
    certain, tied = similar > last + TIE, np.abs(similar - last) <= TIE
    return certain, tied, (k - certain.sum(axis=1)) / tied.sum(axis=1)


def neighbors(pool: np.ndarray, k: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the languages of the k nearest neighbors of every text, among the texts of all languages.

    The text's own sentence is left out in every language.

    Args:
        pool: Vectors of length 1, (L, n, d): languages, sentences, dimensions.
        k: The number of nearest neighbors.
        block: How many texts are compared with all others at once.

    Returns:
        Per language, from 0 to 1, each (L,): the mean share of neighbors in the text's own language, and the share of
        texts whose language is the most frequent one among their neighbors (a tie between m languages counts 1 / m).
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
    """Count the marked texts (q, L * n) per language (q, L)."""
    return marked.reshape(len(marked), count, -1).sum(axis=2)


def _skewness(counts: np.ndarray) -> float:
    """The third central moment divided by the cube of the standard deviation; 0 if all counts are equal."""
    apart = counts - counts.mean()
    variance = float((apart**2).mean())
    return float((apart**3).mean()) / variance**1.5 if variance > 1e-9 else 0.0
