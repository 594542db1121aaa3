"""Code switching: English texts whose words are replaced by dictionary entries of another language.

The teacher's vector of the English text is the target. Such texts have no grammar, but they carry words and subjects
that no translation in the corpus has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from corpus import DICTIONARIES, Row

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+")
LONGEST = 48  # words of a text
ENTRIES = 6  # translations of a word that are kept
KEPT = 0.3  # chance that a word without an entry stays, in English
ENOUGH = 1 / 3  # of the words must have been replaced


class Switcher:
    """Dictionaries over the words of the English texts, as pieces."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], texts: Sequence[str]) -> None:
        """Look every word up once.

        Args:
            tokenizer: of the encoder.
            rows: translation pairs; those of dictionaries are used.
            texts: English texts.
        """
        numbers: dict[str, int] = {}
        self.words = [
            np.asarray([numbers.setdefault(word, len(numbers)) for word in WORD.findall(text.lower())[:LONGEST]])
            for text in texts
        ]
        vocabulary = list(numbers)
        self.english = _pieces(tokenizer, vocabulary)
        entries: dict[str, dict[str, list[str]]] = {}
        for row in rows:
            word = row.english.lower().strip().removeprefix("to ")
            if row.source in DICTIONARIES and word in numbers and len(row.other) < 40:
                found = entries.setdefault(row.language, {}).setdefault(word, [])
                if row.other not in found and len(found) < ENTRIES:
                    found.append(row.other)
        self.languages = sorted(entries)
        self.entries = {code: _lookup(tokenizer, vocabulary, entries[code]) for code in self.languages}

    def draw(self, index: np.ndarray, generator: np.random.Generator) -> Iterator[tuple[int, np.ndarray]]:
        """Give (number of the text, pieces) of those texts of which enough words could be replaced."""
        for number, place in zip(index, generator.integers(len(self.languages), size=len(index)), strict=True):
            entries, words = self.entries[self.languages[place]], self.words[number]
            chance = generator.random(len(words))
            parts, replaced = [], 0
            for word, draw in zip(words, chance, strict=True):
                if word in entries:
                    parts.append(entries[word][int(draw * len(entries[word]))])
                    replaced += 1
                elif draw < KEPT:
                    parts.append(self.english[word])
            if parts and replaced >= ENOUGH * len(words):
                yield int(number), np.concatenate(parts)


def stems(word: str) -> Iterator[str]:
    """The word itself, and what an entry may be listed under instead (English endings taken off)."""
    yield word
    if word.endswith("'s"):
        yield word[:-2]
    for ending, replacements in (("ies", ["y"]), ("es", [""]), ("s", [""]), ("ied", ["y"]), ("ly", [""])):
        if word.endswith(ending):
            yield from (word.removesuffix(ending) + replacement for replacement in replacements)
    for ending in ("ed", "ing"):
        if word.endswith(ending):
            stem = word.removesuffix(ending)
            yield stem
            yield stem + "e"
            if len(stem) > 2 and stem[-1] == stem[-2]:
                yield stem[:-1]


def _lookup(
    tokenizer: PreTrainedTokenizerFast, vocabulary: Sequence[str], entries: dict[str, list[str]]
) -> dict[int, list[np.ndarray]]:
    """Number of each word that has an entry -> pieces of its translations."""
    found = {
        number: next((entries[stem] for stem in stems(word) if stem in entries), [])
        for number, word in enumerate(vocabulary)
    }
    found = {number: translations for number, translations in found.items() if translations}
    pieces = iter(_pieces(tokenizer, [text for translations in found.values() for text in translations]))
    return {number: [next(pieces) for _ in translations] for number, translations in found.items()}


def _pieces(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[np.ndarray]:
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.asarray(encoding.ids or [tokenizer.unk_token_id], dtype=np.int32) for encoding in encodings]
