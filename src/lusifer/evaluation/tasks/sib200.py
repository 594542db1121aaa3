"""SIB-200: one sentence a row, one of seven topics, the same sentences in every language.

SIB-200: Adelani et al., "SIB-200: A Simple, Inclusive, and Big Evaluation Dataset for Topic Classification in 200+
Languages and Dialects" (arXiv 2309.07445). The tasks of the suite `sample` are the same on the packaged sentences.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskBitextMining, AbsTaskClassification, AbsTaskClustering
from sklearn.linear_model import LogisticRegression

from lusifer.errors import DataError
from lusifer.evaluation.tasks.local import ENGLISH, DataFolder, LocalTask, named
from lusifer.io import parallel_text, rows
from lusifer.prompts import check_text

POOL = 204
"""Size of the larger set of translations, the first sentences of the train split; SIB-200's test split has as many."""
CLASSIFIER: dict[str, Any] = {"C": 1.0, "solver": "lbfgs", "max_iter": 1000}
"""C is the default of scikit-learn and of mteb. The vectors have length 1, so they are not scaled."""
_SAMPLE = 28  # packaged sentences in each language
EVERY_ROW = 1_000_000  # more rows than a split has, so that the classifier learns from all of them
TOPIC = "Identify the topic of the text."
TRANSLATION = "Find a sentence with the same meaning."


@dataclass(frozen=True)
class Sentences:
    """One split of one language, sorted by `ids`; sentences with the same id in two languages are translations."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...]


def file_of(folder: Path, code: str, split: str) -> Path:
    """Give the path of the file of a split.

    Args:
        folder: The folder of evaluation files.
        code: The code of the language.
        split: "train" or "dev".
    """
    return named(folder, f"sib200-{{}}-{split}.jsonl.gz", code)


def read(file: Path) -> Sentences:
    """Read one split.

    Raises:
        DataError: The file is missing, damaged, or a row is not `{"text", "label", "index_id"}`.
    """
    found: dict[int, tuple[str, str]] = {}
    for number, text, label, where in rows.read(file, _row):
        if number in found:
            raise DataError(f"{where}: duplicate index_id {number}: remove one of the two rows")
        found[number] = (text, label)
    if not found:
        raise DataError(f"{file}: no rows in it: download it again")
    ids = tuple(sorted(found))
    return Sentences(ids, tuple(found[i][0] for i in ids), tuple(found[i][1] for i in ids))


def _row(row: Any, where: str) -> tuple[int, str, str, str]:
    if not isinstance(row, dict) or not {"text", "label", "index_id"} <= row.keys():
        raise DataError(f"{where}: expected an object with text, label and index_id")
    if not isinstance(row["index_id"], int):
        raise DataError(f"{where}: index_id is {reprlib.repr(row['index_id'])}, not an integer: correct it")
    return row["index_id"], check_text(row["text"], where), check_text(row["label"], where), where


def parallel(data: DataFolder, codes: Sequence[str], split: str = "train") -> dict[str, tuple[str, ...]] | None:
    """Give the first `POOL` sentences of a split that all languages have.

    Args:
        data: The folder of evaluation files.
        codes: Languages; those without the file of the split are ignored.
        split: "train" or "dev".

    Returns:
        Language -> its sentences, in the same order; None without English or with fewer than two languages.
    """
    files = {code: file_of(data.path, code, split) for code in codes}
    splits = {code: data.read(file, read) for code, file in files.items() if file.is_file()}
    if ENGLISH not in splits or len(splits) < 2:
        return None
    ids = sorted(set.intersection(*(set(split.ids) for split in splits.values())))[:POOL]
    texts = {code: dict(zip(split.ids, split.texts)) for code, split in splits.items()}
    return {code: tuple(known[number] for number in ids) for code, known in texts.items()}


def translations(one: Mapping[int, str], other: Mapping[int, str], pair: str) -> Dataset:
    """Pair the texts of two languages by id, in the form of mteb's bitext mining.

    Args:
        one: Id -> text in the first language.
        other: Id -> text in the second language.
        pair: The two languages, for the error message.

    Raises:
        DataError: They share fewer than two ids. With one candidate any model finds the translation.
    """
    ids = [number for number in one if number in other]
    if len(ids) < 2:
        many = "one sentence" if ids else "no sentence"
        raise DataError(f"{pair}: the two languages share {many}: use files that have two ids or more in common")
    sides = {"sentence1": [one[number] for number in ids], "sentence2": [other[number] for number in ids]}
    return Dataset.from_dict({**sides, "id": [str(number) for number in ids]})


def _refuse_one_topic(labels: Collection[str], subset: str) -> None:
    """Raise DataError if all sentences have the same topic: a classifier would have nothing to tell apart."""
    if len(set(labels)) < 2:
        raise DataError(f"{subset}: all sentences have one label: use a file with two labels or more")


class _Sib200(LocalTask):
    """Base class of the tasks on SIB-200."""

    splits: tuple[str, ...] = ("train", "dev")
    texts = "SIB-200"
    parse = staticmethod(read)

    @classmethod
    def files(cls, folder: Path, subset: str) -> list[Path]:
        return [file_of(folder, code, split) for code in subset.split("-") for split in cls.splits]


class SIB200Topics(_Sib200, AbsTaskClassification):
    """Topic classification: one logistic regression on all training sentences; mteb's default samples a few a label."""

    title, type, metric, split = "SIB-200 topics, learned in the language", "Classification", "accuracy", "dev"
    instruction, cost = TOPIC, 800
    samples_per_label = EVERY_ROW
    n_experiments = 1
    evaluator_model = LogisticRegression(**CLASSIFIER)

    @classmethod
    def indexed(cls, code: str) -> bool:
        """Whether the classifier learns on English sentences, whose vectors another embedder may have made."""
        return cls.cross_lingual or code == ENGLISH

    @classmethod
    def build(cls, subset: str, train: Sentences, dev: Sentences) -> DatasetDict:
        """Make the train and the test split.

        Args:
            subset: The code of the language, for the error message.
            train: The sentences that the classifier learns from.
            dev: The sentences that are tested.
        """
        _refuse_one_topic(train.labels, subset)
        # mteb takes labels as integers.
        numbers = {label: number for number, label in enumerate(sorted({*train.labels, *dev.labels}))}
        splits = {
            name: {"text": part.texts, "label": [numbers[label] for label in part.labels], "id": [*map(str, part.ids)]}
            for name, part in (("train", train), ("dev", dev))
        }
        return DatasetDict({name: Dataset.from_dict(columns) for name, columns in splits.items()})


class SIB200ZeroShotTopics(SIB200Topics):
    """Zero-shot topic classification: the classifier learns on English sentences."""

    title = "SIB-200 topics, learned on English"
    cross_lingual = True

    @classmethod
    def files(cls, folder: Path, subset: str) -> list[Path]:
        """List the train file of English and the dev file of the language."""
        return [file_of(folder, ENGLISH, "train"), file_of(folder, subset, "dev")]


class SIB200Clusters(_Sib200, AbsTaskClustering):
    """Clustering by topic: all sentences are embedded, and mteb runs k-means on ten samples of them."""

    title, type, metric = "SIB-200 topics, found by k-means", "Clustering", "v_measure"
    instruction, cost = TOPIC, 800
    max_fraction_of_documents_to_embed = None
    max_documents_per_cluster = 1024

    @classmethod
    def build(cls, subset: str, train: Sentences, dev: Sentences) -> DatasetDict:
        """Join the sentences of both splits."""
        _refuse_one_topic({*train.labels, *dev.labels}, subset)
        both = {"sentences": [*train.texts, *dev.texts], "labels": [*train.labels, *dev.labels]}
        return DatasetDict(all=Dataset.from_dict(both))


class SIB200TranslationToEnglish(_Sib200, AbsTaskBitextMining):
    """Translation retrieval: the nearest of 204 English sentences should be the translation."""

    title, split, subset = "SIB-200, the English translation among 204", "train", "{}-en"
    type, metric, cross_lingual = "BitextMining", "accuracy", True
    instruction, cost = TRANSLATION, 2 * POOL
    splits = ("train",)
    pool: int | None = POOL

    @classmethod
    def indexed(cls, code: str) -> bool:
        """Whether the documents are the English sentences."""
        return cls.subset.endswith(ENGLISH)

    @classmethod
    def build(cls, subset: str, one: Sentences, other: Sentences) -> DatasetDict:
        """Pair the first `pool` sentences of both languages; all sentences if `pool` is None.

        Args:
            subset: The two languages, such as "sw-en".
            one: The sentences of the queries.
            other: The sentences that are searched.
        """
        sides = (dict(zip(side.ids[: cls.pool], side.texts)) for side in (one, other))
        return DatasetDict({cls.split: translations(*sides, subset)})


class SIB200TranslationFromEnglish(SIB200TranslationToEnglish):
    """Translation retrieval: the nearest of 204 sentences of the language should be the translation of the English."""

    title, subset = "SIB-200, the translation of the English among 204", "en-{}"


class SIB200TranslationToEnglishDev(SIB200TranslationToEnglish):
    """Translation retrieval to English on the 99 sentences of the dev split."""

    title, split, splits = "SIB-200, the English translation among 99", "dev", ("dev",)
    cost, pool = 198, None


class SampleTranslationToEnglish(LocalTask, AbsTaskBitextMining):
    """Translation retrieval: the nearest English sentence among the packaged ones should be the translation."""

    title = f"packaged sentences, the English translation among {_SAMPLE}"
    type, metric, split, subset = "BitextMining", "accuracy", "sample", "{}-en"
    cross_lingual, instruction, cost, texts = True, TRANSLATION, 2 * _SAMPLE, "packaged sentences"

    @classmethod
    def indexed(cls, code: str) -> bool:
        """Whether the documents are the English sentences."""
        return cls.subset.endswith(ENGLISH)

    @classmethod
    def build(cls, subset: str) -> DatasetDict:
        """Pair the packaged sentences of both languages."""
        texts = parallel_text.sample().texts
        sides = (dict(enumerate(texts[code])) for code in subset.split("-"))
        return DatasetDict({cls.split: translations(*sides, subset)})


class SampleTranslationFromEnglish(SampleTranslationToEnglish):
    """Translation retrieval: the nearest packaged sentence of the language should be the translation of the English."""

    title, subset = f"packaged sentences, the translation among {_SAMPLE}", "en-{}"


SAMPLE_TASKS = (SampleTranslationToEnglish, SampleTranslationFromEnglish)
TASKS = (
    SIB200Topics,
    SIB200Clusters,
    SIB200ZeroShotTopics,
    SIB200TranslationToEnglish,
    SIB200TranslationFromEnglish,
    SIB200TranslationToEnglishDev,
)
