"""Word alignment: which English words translate which word, learned from the pairs of sentences themselves.

IBM model 1 (Brown et al. 1993, The Mathematics of Statistical Machine Translation, section 4.4): one word of the other
sentence generates each English word. Expectation maximization fits the table of translation probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import regex

from lusifer.evaluation.tasks.perturbations import spaced, words

ROUNDS = 8
ALIKE = 20.0
"""Initial weight of two words with the same spelling, such as names; all other pairs start with 1."""
_ENGLISH = regex.compile(r"\p{L}[\p{L}\p{M}\p{N}'’.-]*[\p{L}\p{M}\p{N}]|\p{L}")
Id = TypeVar("Id")


def english_for(texts: Mapping[Id, str], english: Mapping[Id, str]) -> dict[Id, dict[int, str]]:
    """Find English words for the words of texts.

    Args:
        texts: Id -> sentence in one language; a few hundred sentences or more.
        english: The same ids -> the sentence in English. Ids that are not in both are ignored.

    Returns:
        Id -> position of a word, as `perturbations.words` counts them -> its English words. Words to which no English
        word is aligned are absent, and so are texts in scripts without spaces, whose words are not known.
    """
    ids = [name for name in texts if name in english and spaced(texts[name])]
    own = [[texts[name][slice(*span)] for span in words(texts[name])] for name in ids]
    other = [_ENGLISH.findall(english[name]) for name in ids]
    best = _aligned([[word.casefold() for word in row] for row in own], [[w.casefold() for w in row] for row in other])
    found = {}
    for name, row, places in zip(ids, other, best, strict=True):
        linked: dict[int, list[str]] = {}
        for word, place in zip(row, places, strict=True):
            linked.setdefault(place, []).append(word)
        found[name] = {place: " ".join(each) for place, each in linked.items()}
    return found


def _aligned(own: list[list[str]], english: list[list[str]]) -> list[list[int]]:
    """For each English word of each sentence, give the position of the word that most likely generated it."""
    pairs = [(i, j, k) for i, (a, b) in enumerate(zip(own, english)) for k in range(len(b)) for j in range(len(a))]
    if not pairs:
        return [[] for _ in own]
    names = [
        {word: n for n, word in enumerate(dict.fromkeys(w for row in side for w in row))} for side in (own, english)
    ]
    left = np.array([names[0][own[i][j]] for i, j, _ in pairs])
    right = np.array([names[1][english[i][k]] for i, _, k in pairs])
    kinds, kind = np.unique(left * len(names[1]) + right, return_inverse=True)
    made_by = kinds // len(names[1])
    spelled = [list(each) for each in names]
    same = [spelled[0][code // len(names[1])] == spelled[1][code % len(names[1])] for code in kinds.tolist()]
    chance = np.where(same, ALIKE, 1.0)
    # `place` numbers the English words: all candidates for the same English word have the same number.
    place = np.cumsum([j == 0 for _, j, _ in pairs]) - 1
    for _ in range(ROUNDS):
        part = chance[kind]
        part = part / np.bincount(place, part)[place]
        chance = np.bincount(kind, part, len(kinds))
        chance = chance / np.bincount(made_by, chance)[made_by]
    found: list[list[int]] = [[] for _ in own]
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(pairs)]):
        found[pairs[start][0]].append(int(np.argmax(chance[kind[start:end]])))
    return found
