"""Translations among the sentences that come with the package: the suite `sample`."""

from __future__ import annotations

from datasets import DatasetDict
from mteb.abstasks import AbsTaskBitextMining

from lusifer.evaluation.suites.local import LocalTask
from lusifer.evaluation.suites.sib200 import TRANSLATION, translations
from lusifer.io import parallel_text

_COUNT = 28  # sentences in each language


class SampleTranslationToEnglish(LocalTask, AbsTaskBitextMining):
    """The nearest English sentence should be the translation."""

    title = f"packaged sentences, the English translation among {_COUNT}"
    type, metric, split, subset = "BitextMining", "accuracy", "sample", "{}-en"
    cross_lingual, instruction, cost = True, TRANSLATION, 2 * _COUNT

    @classmethod
    def build(cls, subset: str) -> DatasetDict:
        """Lay the sentences of both languages beside each other."""
        texts = parallel_text.sample().texts
        sides = (dict(enumerate(texts[code])) for code in subset.split("-"))
        return DatasetDict({cls.split: translations(*sides, subset)})


class SampleTranslationFromEnglish(SampleTranslationToEnglish):
    """The nearest sentence of the language should be the translation of the English one."""

    title, subset = f"packaged sentences, the translation among {_COUNT}", "en-{}"


TASKS = (SampleTranslationToEnglish, SampleTranslationFromEnglish)
