"""The measurements of `lusifer demo`: translations, topics and a search on the packaged sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lusifer.io.parallel_text import ENGLISH, Parallel

Embed = Callable[[Sequence[str]], np.ndarray]
"""Function: texts -> vectors of length 1, float, (n, d)."""


@dataclass(frozen=True)
class Look:
    """The results of one model.

    Attributes:
        vectors: Language -> vectors, float, (n, d).
        found: Language other than English -> translation retrieval accuracy in percent.
        topic: Language other than English -> topic accuracy in percent: the English sentences of the same topic,
            without the translation, are nearer on average than those of any other topic.
    """

    vectors: dict[str, np.ndarray]
    found: dict[str, float]
    topic: dict[str, float]


@dataclass(frozen=True)
class Hit:
    """One hit of a search.

    Attributes:
        code: The code of its language.
        text: The sentence.
        english: Its English translation.
        similarity: Cosine with the query.
    """

    code: str
    text: str
    english: str
    similarity: float


def look(embed: Embed, texts: Parallel) -> Look:
    """Embed the packaged sentences and measure translations and topics.

    Args:
        embed: Function that embeds texts.
        texts: The packaged sentences.
    """
    vectors = {code: embed(rows) for code, rows in texts.texts.items()}
    english, topics = vectors[ENGLISH], np.array(texts.topics)
    names = np.unique(topics)
    found, topic = {}, {}
    for code in [code for code in vectors if code != ENGLISH]:
        similar = vectors[code] @ english.T
        found[code] = 100 * float(np.mean(similar.argmax(axis=1) == np.arange(len(similar))))
        np.fill_diagonal(similar, np.nan)
        means = np.stack([np.nanmean(similar[:, topics == name], axis=1) for name in names], axis=1)
        topic[code] = 100 * float(np.mean(names[means.argmax(axis=1)] == topics))
    return Look(vectors, found, topic)


def search(embed: Embed, query: str, texts: Parallel, vectors: dict[str, np.ndarray], count: int) -> list[Hit]:
    """Search the sentences of all languages.

    Args:
        embed: Function that embeds texts.
        query: The query.
        texts: The packaged sentences.
        vectors: Their vectors by the same model, as in `Look`.
        count: Number of hits.

    Returns:
        The nearest sentences, best first.
    """
    sentences = [(code, *pair) for code in vectors for pair in zip(texts.texts[code], texts.texts[ENGLISH])]
    similar = np.concatenate(list(vectors.values())) @ embed([query])[0]
    best = np.argsort(-similar, kind="stable")[:count]
    return [Hit(*sentences[row], float(similar[row])) for row in best]
