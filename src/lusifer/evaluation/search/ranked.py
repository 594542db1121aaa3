"""Base class of retrieval tasks that Lusifer evaluates itself, without mteb.

`measure` returns a score, its examples, and details of each question for the report (see `details`).
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
"""Metric of a task -> its name in pytrec_eval. Accuracy: the first document is one of the needed ones."""
DETAILED = {"ndcg": "ndcg_cut_10", "first": "success_1", "recall_10": "recall_10"}
"""Metrics of each question in the details, for any metric of the task."""
HITS = 5
"""Documents of each question in the details."""
WORST = 20
"""Number of questions with texts in the details."""
EXCERPT = 400
"""Characters of a document in the details."""


class SearchModel(Protocol):
    """The interface of the evaluated model (`evaluation.run.encoder.ScoredModel`)."""

    prompts: Mapping[Any, str]
    embedder: Any

    @property
    def of_documents(self) -> Any:
        """The embedder of the documents, with `vectors`, `token_counts` and `max_tokens` as in `ScoredModel`."""

    def vectors(self, texts: Sequence[str], prefix: str | None = None) -> np.ndarray:
        """Embed texts.

        Args:
            texts: The texts.
            prefix: Prompt before each text; None for the default prompt of the model.

        Returns:
            Vectors, float32, (n, d).
        """

    def tested(self, texts: Sequence[str]) -> None:
        """Record test texts, to count those that are in the training data."""


@dataclass(frozen=True)
class Measured:
    """The result of a row.

    Attributes:
        score: The score in percent.
        examples: kind, ids and values behind the score, as in `examples/` of the folder; None without examples.
        details: More results for the report, as in `details/` of the folder; None without any.
        n: Number of questions or examples; None if it is not known.
        prompt: Role -> prompt.
    """

    score: float
    examples: Mapping[str, Any] | None
    details: Mapping[str, Any] | None
    n: int | None
    prompt: Mapping[str, str | None]


class RankedTask(LocalTask):
    """Base class of tasks with questions and documents.

    `build` returns the `QuestionSet` of a subset. The metric is one of `MEASURES`. With `--against` the other embedder
    makes the vectors of the documents.
    """

    type, metric = "Retrieval", "ndcg_at_10"
    symmetric = False
    by_mteb: ClassVar[bool] = False

    def __init__(self) -> None:
        self.hf_subsets: Sequence[str] = ()
        self.data_loaded = False
        self.dataset: dict[str, QuestionSet] = {}
        self._held: tuple[Searched, np.ndarray, int] | None = None
        self._cut = 0  # documents that are longer than the embedder reads

    @classmethod
    def indexed(cls, code: str) -> bool:
        """Another embedder may make the vectors of documents in every language."""
        return True

    def unload_data(self) -> None:
        """Free the data and the vectors of documents."""
        self.dataset, self.data_loaded, self._held = {}, False, None

    def measure(self, row: SuiteRow, model: SearchModel) -> Measured:
        """Search all documents for the questions of a row.

        Args:
            row: The row.
            model: The evaluated model.

        Raises:
            DataError: No question needs a document, or the vectors of documents have another dimension.
        """
        asked = self.dataset[row.subsets[0]]
        asked = replace(asked, searched=self.prepared(asked.searched, model))
        questions, searched = asked.questions, asked.searched
        answered = [number for number, each in enumerate(questions) if each.right]
        if not answered:
            raise DataError(f"{row.subsets[0]}: no question has a right document: write ids of documents in `right`")
        query: str | None = model.prompts["query"]
        if searched.prompt is not None:
            query = searched.prompt(model.embedder.prompts)
        passages, owners = self._passages(searched, model)
        model.tested([each.text for each in questions])
        vectors = model.vectors([each.text for each in questions], query)
        if vectors.shape[1] != passages.shape[1]:
            sizes = f"vectors of questions have {vectors.shape[1]} dimensions, those of documents {passages.shape[1]}"
            raise DataError(f"{sizes}: name the model that made the vectors of the documents")
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
        """Give the id by which examples of two evaluations are paired; equal ids must be the same question."""
        return question.id

    def prepared(self, searched: Searched, model: SearchModel) -> Searched:
        """Give the documents to search; a task that splits documents overrides this.

        Args:
            searched: The documents.
            model: The evaluated model.
        """
        return searched

    def _passages(self, searched: Searched, model: SearchModel) -> tuple[np.ndarray, np.ndarray]:
        """Give the vectors of all passages and the positions of their documents; computed once a task."""
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
        """Collect details for the report: each question with the ranks of its needed documents and its hits.

        The `WORST` questions with the lowest-ranked needed documents also get their texts.

        Args:
            asked: The questions and documents.
            found: The result of each question.
            prompt: Role -> prompt.

        Returns:
            Values that can be written as JSON; None for no details.
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
    """Compute the share of a question's language among the wrong documents; None if the language is unknown."""
    return None if language == UNKNOWN else round(searched.share(language, right), 6)


def _excerpt(text: str | None) -> str | None:
    """Shorten a text to one line; three dots mark that it is longer."""
    if text is None:
        return None
    words = " ".join(text.split())
    return words if len(words) <= EXCERPT else words[:EXCERPT].rstrip() + " ..."
