"""Which English words stand for which word of a translation: learned from the pairs of sentences themselves.

IBM model 1 (Brown et al. 1993, The Mathematics of Statistical Machine Translation, section 4.4): each English word is
made by one word of the other sentence, by a table of chances that some rounds of expectation and maximisation fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import regex

from lusifer.evaluation.tasks.disguises import spaced, words

ROUNDS = 8
ALIKE = 20.0
"""How much likelier than others words are at first that are written the same, as names are."""
_ENGLISH = regex.compile(r"\p{L}[\p{L}\p{M}\p{N}'’.-]*[\p{L}\p{M}\p{N}]|\p{L}")
Id = TypeVar("Id")


def english_for(texts: Mapping[Id, str], english: Mapping[Id, str]) -> dict[Id, dict[int, str]]:
    """Find the English words for the words of texts.

    Args:
        texts: Some hundred sentences or more in one language.
        english: The same in English, by the same ids; others are left aside.

    Returns:
        By id: the number of a word, as `disguises.words` counts them -> what stands for it in English. Words that no
        English word is due to are not in it, nor are texts in scripts without spaces, whose words are not known.
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
    """For each English word of each sentence the place of the word that most likely made it."""
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
    # The words of a sentence that may have made one and the same English word stand one behind the other.
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
