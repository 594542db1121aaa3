"""The offline suites as mteb tasks: SIB-200, XQuAD and STS from plain files, and the sentences of the package.

mteb is imported with this module, which is why nothing imports it before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTaskBitextMining,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata
from sklearn.linear_model import LogisticRegression

from lusifer import languages
from lusifer.errors import DataError
from lusifer.evaluation.suites import sample, sib, sts, xquad
from lusifer.evaluation.suites.rows import Row

ENGLISH = "en"
EVERY_ROW = 1_000_000  # more than a split has: the classifier learns from all of them


def metadata(rows: list[Row]) -> TaskMetadata:
    """Describe one task to mteb, from its rows."""
    first = rows[0]
    known = languages.table()
    spoken = {
        subset: [f"{known[code].code3}-{known[code].script}" for code in subset.split("-")]
        for row in rows
        for subset in row.subsets
    }
    return TaskMetadata(
        name=first.task,
        description=first.title or first.task,
        type=first.type,
        main_score=first.metric,
        eval_splits=[first.split],
        eval_langs=spoken,
        dataset={"path": f"local/{first.task}", "revision": "files"},
    )


class _FromFiles:
    """What the tasks share: mteb asks `load_data` to fill `dataset`; the subsets are those of the rows."""

    read: Callable[[str], Any]
    metadata: TaskMetadata
    hf_subsets: list[str]

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        """Read the subsets that will be run."""
        if not self.data_loaded:
            self.dataset = {subset: type(self).read(subset) for subset in self.hf_subsets}
            self.data_loaded = True


class _Topics(_FromFiles, AbsTaskClassification):
    """A logistic regression on all training sentences, once: no draw of a few a label, as mteb's default has it."""

    samples_per_label = EVERY_ROW
    n_experiments = 1
    evaluator_model = LogisticRegression(**sib.CLASSIFIER)


class _Clusters(_FromFiles, AbsTaskClustering):
    """Every sentence is embedded; k-means runs on ten draws from them, as mteb does it."""

    max_fraction_of_documents_to_embed = None
    max_documents_per_cluster = 1024


class _Translations(_FromFiles, AbsTaskBitextMining):
    pass


class _Questions(_FromFiles, AbsTaskRetrieval):
    pass


class _Similarity(_FromFiles, AbsTaskSTS):
    pass


def make(rows: list[Row], data: Path | None) -> Any:
    """Make the mteb task of rows that share their task.

    Args:
        rows: Of `lusifer.evaluation.offline`.
        data: Folder with the files; None for tasks of the package.

    Raises:
        DataError: When the task loads: a file is missing or damaged.
    """
    base, read = _KINDS[rows[0].task]
    members = {"metadata": metadata(rows), "read": staticmethod(lambda subset: read(data, subset))}
    return type(rows[0].task, (base,), members)()


def _zero_shot(data: Path, code: str) -> DatasetDict:
    return _topics(sib.read(sib.file_of(data, ENGLISH, "train")), sib.read(sib.file_of(data, code, "dev")))


def _in_language(data: Path, code: str) -> DatasetDict:
    return _topics(sib.read(sib.file_of(data, code, "train")), sib.read(sib.file_of(data, code, "dev")))


def _topics(train: sib.Split, test: sib.Split) -> DatasetDict:
    return DatasetDict(train=_labelled(train), dev=_labelled(test))


def _labelled(split: sib.Split) -> Dataset:
    return Dataset.from_dict(
        {"text": list(split.texts), "label": list(split.labels), "id": [str(number) for number in split.ids]}
    )


def _clusters(data: Path, code: str) -> DatasetDict:
    splits = [sib.read(sib.file_of(data, code, split)) for split in ("train", "dev")]
    rows = [(text, label) for split in splits for text, label in zip(split.texts, split.labels, strict=True)]
    texts, labels = zip(*rows, strict=True)
    return DatasetDict(all=Dataset.from_dict({"sentences": list(texts), "labels": list(labels)}))


def _translations(split: str) -> Callable[[Path, str], DatasetDict]:
    def read(data: Path, pair: str) -> DatasetDict:
        sides = [sib.read(sib.file_of(data, code, split)) for code in pair.split("-")]
        if split == "train":
            sides = [sib.first(side, sib.LARGE) for side in sides]
        one, other = (dict(zip(side.ids, side.texts, strict=True)) for side in sides)
        return DatasetDict({split: _parallel(one, other, pair)})

    return read


def _parallel(one: Mapping[Any, str], other: Mapping[Any, str], pair: str) -> Dataset:
    ids = [number for number in one if number in other]
    if not ids:
        raise DataError(f"{pair}: no sentence of one language is in the other")
    return Dataset.from_dict(
        {
            "sentence1": [one[number] for number in ids],
            "sentence2": [other[number] for number in ids],
            "id": [str(number) for number in ids],
        }
    )


def _questions(data: Path, pair: str) -> dict[str, Any]:
    asked, answered = (xquad.read(xquad.file_of(data, code)) for code in (pair.split("-") * 2)[:2])
    known = [row for row in asked.questions if row[2] in answered.paragraphs]
    corpus = [{"id": number, "text": text, "title": ""} for number, text in answered.paragraphs.items()]
    return {
        "all": {
            "corpus": Dataset.from_list(corpus),
            "queries": Dataset.from_list([{"id": number, "text": text} for number, text, _ in known]),
            "relevant_docs": {number: {paragraph: 1} for number, _, paragraph in known},
            "top_ranked": None,
        }
    }


def _similarity(data: Path, code: str) -> DatasetDict:
    pairs = sts.read(sts.file_of(data, code))
    return DatasetDict(
        all=Dataset.from_dict(
            {
                "sentence1": [pair.sentence1 for pair in pairs],
                "sentence2": [pair.sentence2 for pair in pairs],
                "score": [pair.score for pair in pairs],
            }
        )
    )


def _sample(_: Path | None, pair: str) -> DatasetDict:
    texts = sample.sample().texts
    one, other = (dict(enumerate(texts[code])) for code in pair.split("-"))
    return DatasetDict(sample=_parallel(one, other, pair))


_KINDS: dict[str, tuple[type, Callable[[Any, str], Any]]] = {
    "SIB200ZeroShotTopics": (_Topics, _zero_shot),
    "SIB200Topics": (_Topics, _in_language),
    "SIB200Clusters": (_Clusters, _clusters),
    "SIB200TranslationToEnglish": (_Translations, _translations("train")),
    "SIB200TranslationFromEnglish": (_Translations, _translations("train")),
    "SIB200TranslationToEnglishDev": (_Translations, _translations("dev")),
    "XQuADParagraphs": (_Questions, _questions),
    "XQuADToEnglish": (_Questions, _questions),
    "XQuADFromEnglish": (_Questions, _questions),
    "STSFile": (_Similarity, _similarity),
    "SampleTranslationToEnglish": (_Translations, _sample),
    "SampleTranslationFromEnglish": (_Translations, _sample),
}
