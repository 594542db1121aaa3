"""What `lusifer demo` compares: translations, topics and a search on the sentences that come with the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lusifer.io.parallel_text import ENGLISH, Parallel

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts -> vectors (n, d) of length 1."""


@dataclass(frozen=True)
class Look:
    """One model: vectors (n, d) by language, and two accuracies in per cent by language other than English.

    `found`: the nearest English sentence is the translation. `topic`: the English sentences of its topic are nearer on
    average than those of any other, its own translation left out.
    """

    vectors: dict[str, np.ndarray]
    found: dict[str, float]
    topic: dict[str, float]


@dataclass(frozen=True)
class Hit:
    """One result of a search."""

    code: str
    text: str
    english: str
    """What it says."""
    similarity: float


def look(embed: Embed, texts: Parallel) -> Look:
    """Embed the sample and see what is near to what."""
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
    """The sentences of all languages that are nearest to a query, by a model and its `vectors` of them as in `Look`."""
    sentences = [(code, *pair) for code in vectors for pair in zip(texts.texts[code], texts.texts[ENGLISH])]
    similar = np.concatenate(list(vectors.values())) @ embed([query])[0]
    best = np.argsort(-similar, kind="stable")[:count]
    return [Hit(*sentences[row], float(similar[row])) for row in best]
