"""The suite `long`: how far a model reads, by XQuAD paragraphs joined to longer documents.

Only every fifth English paragraph has questions. In XQuAD five paragraphs in a row are of one article, so that is one
for each article. It is at the start, in the middle or at the end of a document; the rest are paragraphs without
questions from other articles. The number of documents is the same for all lengths, so scores of two lengths are
comparable. Questions are in the language of the row.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lusifer import chunks
from lusifer.errors import DataError
from lusifer.evaluation.search.collection import Question, QuestionSet, Ranked, Searched, SearchedDocument
from lusifer.evaluation.search.ranked import RankedTask, SearchModel
from lusifer.evaluation.tasks import xquad
from lusifer.evaluation.tasks.local import ENGLISH
from lusifer.evaluation.tasks.rows import SuiteRow
from lusifer.evaluation.tasks.xquad import Questions

ARTICLE = 5
"""Number of successive paragraphs of one article."""
LONGEST = 8
PASSAGE = 512
"""Maximum length of a passage in tokens; shorter if the model reads less."""
BETWEEN = "\n\n"


class LongDocuments(RankedTask):
    """Retrieval of long documents: the nearest document should be the one with the answer.

    Attributes:
        paragraphs: Number of paragraphs in a document.
        place: Position of the paragraph with the answer, from 0.
        in_passages: Whether documents are split into passages as in an index; the best passage of a document counts.
    """

    type, metric = "Retrieval", "accuracy"
    instruction, texts = "Given a question, find passages that answer it.", "XQuAD"
    subset, optional = "{}-en", True
    paragraphs: ClassVar[int]
    place: ClassVar[int] = 0
    in_passages: ClassVar[bool] = False
    parse = staticmethod(xquad.read)

    def __init__(self) -> None:
        super().__init__()
        self._split: dict[int, tuple[Searched, Searched]] = {}

    @classmethod
    def row(cls, code: str) -> SuiteRow | None:
        """Give the row of a language; English has one too, which is not cross-lingual."""
        made = super().row(code)
        subsets = (ENGLISH,) if code == ENGLISH else made.subsets
        return replace(made, subsets=subsets, cross_lingual=code != ENGLISH, cost=300 + 48 * cls.paragraphs)

    @classmethod
    def files(cls, folder: Path, subset: str) -> list[Path]:
        """List the file of the questions, and the English file of the paragraphs."""
        codes = dict.fromkeys([subset.split("-")[0], ENGLISH])
        return [xquad.file_of(folder, code) for code in codes]

    @classmethod
    def build(cls, subset: str, asked: Questions, answers: Questions | None = None) -> QuestionSet:
        """Join paragraphs to documents.

        Args:
            subset: The languages, such as "sw-en".
            asked: The file of the questions.
            answers: The file of the paragraphs; None for the same file.

        Raises:
            DataError: There are too few paragraphs.
        """
        texts = (answers or asked).paragraphs
        ids = list(texts)
        wanted = ids[::ARTICLE]
        code = subset.split("-")[0]
        questions = tuple(
            Question(id, text, code, (paragraph,))
            for id, text, paragraph in asked.questions
            if paragraph in set(wanted)
        )
        if len(wanted) < 2 or len(ids) - len(wanted) - ARTICLE < LONGEST or not questions:
            raise DataError(f"{subset}: {len(ids)} paragraphs are too few to join {LONGEST}: use all of XQuAD")
        documents = tuple(SearchedDocument(id, BETWEEN.join(cls.joined(id, texts)), ENGLISH) for id in wanted)
        return QuestionSet(questions, Searched(documents))

    @classmethod
    def joined(cls, id: str, texts: Mapping[str, str]) -> list[str]:
        """Give the paragraphs of a document; a longer document contains the paragraphs of a shorter one.

        Args:
            id: Id of the paragraph with the answer.
            texts: Id -> paragraph.
        """
        ids = list(texts)
        own = ids.index(id) // ARTICLE
        others = [each for number, each in enumerate(ids) if number % ARTICLE and number // ARTICLE != own]
        found = random.Random(id).sample(others, LONGEST - 1)[: cls.paragraphs - 1]
        found.insert(cls.place, id)
        return [texts[each] for each in found]

    def prepared(self, searched: Searched, model: SearchModel) -> Searched:
        """Split the documents into passages if `in_passages` is set, with the tokenizer of the documents' embedder."""
        if not self.in_passages:
            return searched
        if id(searched) not in self._split:
            embedder = model.of_documents
            count = partial(embedder.token_counts, prefix=model.prompts["document"])
            size = min(embedder.max_tokens or PASSAGE, PASSAGE)
            parts = [[each.text[slice(*span)].strip() for span in chunks.split(each.text, count, size)]
                     for each in searched.documents]  # fmt: skip
            documents = tuple(replace(each, passages=tuple(own)) for each, own in zip(searched.documents, parts))
            self._split[id(searched)] = searched, replace(searched, documents=documents)
        return self._split[id(searched)][1]

    def details(
        self, asked: QuestionSet, found: Sequence[Ranked], prompt: Mapping[str, str | None]
    ) -> Mapping[str, Any]:
        """Describe the documents, such as the mean number of words, and of words before the answer."""
        parts = [each.text.split(BETWEEN) for each in asked.searched.documents]
        words = [[len(part.split()) for part in each] for each in parts]
        return {
            "kind": "long",
            "paragraphs": self.paragraphs,
            "place": self.place,
            "in_passages": self.in_passages,
            "documents": len(parts),
            "passages": len(asked.searched.texts[0]),
            "words": round(float(np.mean([sum(each) for each in words])), 1),
            "before": round(float(np.mean([sum(each[: self.place]) for each in words])), 1),
            "cut": self._cut,
        }


WHERE = {
    1: {"": 0},
    **{n: {"Start": 0, "Middle": n // 2, "End": n - 1} for n in (4, LONGEST)},
    2: {"Start": 0, "End": 1},
}
"""Paragraphs in a document -> name of a position -> the position."""


def _kind(paragraphs: int, word: str, place: int, in_passages: bool) -> type[LongDocuments]:
    where = f", answer at the {word.lower()}" if word else ""
    many = "1 paragraph" if paragraphs == 1 else f"{paragraphs} paragraphs"
    said = {"paragraphs": paragraphs, "place": place, "in_passages": in_passages, "__doc__": LongDocuments.__doc__}
    said["title"] = f"XQuAD, English documents of {many}{where}{', in passages' * in_passages}"
    return type(f"Long{paragraphs}{word}{'Passages' * in_passages}", (LongDocuments,), said)


TASKS = (
    *(_kind(n, word, place, False) for n, places in WHERE.items() for word, place in places.items()),
    # With passages the position does not matter. One is enough: the end, where a complete text loses most.
    *(_kind(n, "End", n - 1, True) for n in WHERE if n > 1),
)
