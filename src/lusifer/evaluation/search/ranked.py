"""A task that searches documents for questions and measures itself, without mteb.

From `measure` come a score, its examples, and details from which a report makes what a mean hides: see `details`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from lusifer.errors import DataError
from lusifer.evaluation.search.collection import UNKNOWN, Question, QuestionSet, Ranked, Searched, judged, rank
from lusifer.evaluation.tasks.local import LocalTask
from lusifer.evaluation.tasks.rows import SuiteRow

MEASURES = {"ndcg_at_10": "ndcg_cut_10", "accuracy": "success_1"}
"""Metric of a task -> pytrec_eval's name. Accuracy is whether the first document is a needed one, however many are."""
DETAILED = {"ndcg": "ndcg_cut_10", "first": "success_1", "recall_10": "recall_10"}
"""What details say of each question, whatever the metric."""
HITS = 5
"""Documents that details keep of each question."""
WORST = 20
"""Questions whose texts the details keep."""
EXCERPT = 400
"""Characters of a document that they keep."""


class SearchModel(Protocol):
    """What a task asks of the model that is scored (`evaluation.run.encoder.ScoredModel`)."""

    prompts: Mapping[Any, str]
    embedder: Any

    @property
    def of_documents(self) -> Any:
        """What embeds the documents: `vectors`, `token_counts` and `max_tokens` as of a `ScoredModel`."""

    def vectors(self, texts: Sequence[str], prefix: str | None = None) -> np.ndarray:
        """Embed texts, (n, d); without a prefix the model's default one stands before them."""

    def tested(self, texts: Sequence[str]) -> None:
        """Take note of texts that are tested, to say which of them training has read."""


@dataclass(frozen=True)
class Measured:
    """What a row gave.

    Attributes:
        score: In percent.
        examples: What it is made of: kind, ids and values, as in the folder's `examples/`; None where the score is no
            mean over examples.
        details: What a report needs beside it, as it is kept in `details/`; None for nothing.
        n: How many questions or examples the score is over; None where that is not known.
        prompt: What stood before the texts, by role.
    """

    score: float
    examples: Mapping[str, Any] | None
    details: Mapping[str, Any] | None
    n: int | None
    prompt: Mapping[str, str | None]


class RankedTask(LocalTask):
    """A task of questions and documents; `build` gives the `QuestionSet` of a subset.

    Its metric is one of `MEASURES`. It takes part in `--against`: the documents are the other embedder's.
    """

    type, metric = "Retrieval", "ndcg_at_10"
    symmetric = False
    by_mteb: ClassVar[bool] = False

    def __init__(self) -> None:
        self.hf_subsets: Sequence[str] = ()
        self.data_loaded = False
        self.dataset: dict[str, QuestionSet] = {}
        self._held: tuple[Searched, np.ndarray, int] | None = None
        self._cut = 0  # documents that are longer than what the embedder reads

    @classmethod
    def indexed(cls, code: str) -> bool:
        """The documents of every language may be another embedder's."""
        return True

    def unload_data(self) -> None:
        """Forget the data and the vectors of documents."""
        self.dataset, self.data_loaded, self._held = {}, False, None

    def measure(self, row: SuiteRow, model: SearchModel) -> Measured:
        """Search all documents for the questions of a row.

        Raises:
            DataError: No question needs a document, or the vectors of documents are not of this size.
        """
        asked = self.dataset[row.subsets[0]]
        asked = replace(asked, searched=self.prepared(asked.searched, model))
        questions, searched = asked.questions, asked.searched
        answered = [number for number, each in enumerate(questions) if each.right]
        if not answered:
            raise DataError(f"{row.subsets[0]}: no question with a right document: give ids of documents in `right`")
        query: str | None = model.prompts["query"]
        if searched.prompt is not None:
            query = searched.prompt(model.embedder.prompts)
        passages, owners = self._passages(searched, model)
        model.tested([each.text for each in questions])
        vectors = model.vectors([each.text for each in questions], query)
        if vectors.shape[1] != passages.shape[1]:
            sizes = f"questions have {vectors.shape[1]} numbers, documents {passages.shape[1]}"
            raise DataError(f"vectors of {sizes}: name the model whose vectors the documents have")
        needed = [[searched.places[id] for id in each.right] for each in questions]
        found = rank(vectors, passages, owners, needed, HITS)
        name = MEASURES[row.metric]
        values = judged([found[number].ranks for number in answered], [name])[name]
        examples: dict[str, Any] = {"kind": "mean", "ids": [self.example_id(questions[number]) for number in answered]}
        examples |= {"values": values} | ({"texts": row.texts} if row.texts else {})
        prompt = {"query": query, "document": None if searched.vectors is not None else model.prompts["document"]}
        score = round(100 * sum(values) / len(values), 4)
        return Measured(score, examples, self.details(asked, found, prompt), len(values), prompt)

    def example_id(self, question: Question) -> str:
        """By what the examples of two evaluations are paired: the same id must be the same question."""
        return question.id

    def prepared(self, searched: Searched, model: SearchModel) -> Searched:
        """The documents as they are searched, for a task that splits them."""
        return searched

    def _passages(self, searched: Searched, model: SearchModel) -> tuple[np.ndarray, np.ndarray]:
        """The vectors of all passages and their documents; made once for all languages of the task."""
        if searched.vectors is not None and searched.owners is not None:
            self._cut = 0
            return searched.vectors, searched.owners
        texts, owners = searched.texts
        if self._held is None or self._held[0] is not searched:
            embedder, prefix = model.of_documents, model.prompts["document"]
            limit = embedder.max_tokens
            cut = 0 if limit is None else sum(count > limit for count in embedder.token_counts(texts, prefix))
            self._held = searched, embedder.vectors(texts, prefix), cut
        self._cut = self._held[2]
        return self._held[1], owners

    def details(
        self, asked: QuestionSet, found: Sequence[Ranked], prompt: Mapping[str, str | None]
    ) -> Mapping[str, Any] | None:
        """What a report needs beside the score, as JSON: each question with the places of what it needs, and its hits.

        Of the `WORST` questions, those whose needed documents stand furthest behind, the texts are kept as well.
        """
        searched = asked.searched
        documents = searched.documents
        answered = [result.ranks for result in found if result.ranks]
        measures = judged(answered, list(DETAILED.values()))
        of_each = iter(zip(*(measures[name] for name in DETAILED.values()), strict=True))
        questions = [
            {
                "id": each.id,
                "language": each.language,
                "right": list(each.right),
                "languages": [documents[searched.places[id]].language for id in each.right],
                "ranks": list(result.ranks),
                "measures": dict(zip(DETAILED, next(of_each), strict=True)) if result.ranks else None,
                "chance": _chance(each.language, searched, each.right),
                "hits": [
                    {"id": documents[place].id, "language": documents[place].language, "score": score}
                    for place, score in result.hits
                ],
            }
            for each, result in zip(asked.questions, found, strict=True)
        ]
        behind = [(max(each.ranks), number) for number, each in enumerate(found) if each.ranks]
        behind = [(place, number) for place, number in behind if place > len(found[number].ranks)]
        worst = [number for _, number in sorted(behind, key=lambda pair: (-pair[0], pair[1]))[:WORST]]
        shown = {id for number in worst for id in asked.questions[number].right}
        shown |= {documents[place].id for number in worst for place, _ in found[number].hits}
        sent = {number: (prompt["query"] or "") + asked.questions[number].text for number in worst}
        return {
            "kind": "ranked",
            "documents": len(documents),
            "passages": len(searched.owners if searched.owners is not None else searched.texts[1]),
            "cut": self._cut,
            "questions": questions,
            "sent": {asked.questions[number].id: text for number, text in sent.items()},
            "texts": {id: _excerpt(documents[searched.places[id]].text) for id in sorted(shown)},
        }


def _chance(language: str, searched: Searched, right: Sequence[str]) -> float | None:
    """The share of the wrong documents of known language that are in that of a question; None if it has none."""
    return None if language == UNKNOWN else round(searched.share(language, right), 6)


def _excerpt(text: str | None) -> str | None:
    """The beginning of a text, on one line; three dots say that there is more."""
    if text is None:
        return None
    words = " ".join(text.split())
    return words if len(words) <= EXCERPT else words[:EXCERPT].rstrip() + " ..."
