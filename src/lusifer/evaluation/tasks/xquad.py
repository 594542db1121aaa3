"""XQuAD as retrieval: each question has one right paragraph, and both exist in every language.

XQuAD: Artetxe, Ruder and Yogatama, "On the Cross-lingual Transferability of Monolingual Representations" (ACL 2020,
arXiv 1910.11856). A file holds `{"paragraphs": [{"id", "text"}], "questions": [{"id", "text", "paragraph_id"}]}`; ids
are the same in every language.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval

from lusifer.errors import DataError
from lusifer.evaluation.tasks.local import ENGLISH, LocalTask, named
from lusifer.io.files import read_json
from lusifer.prompts import check_text


@dataclass(frozen=True)
class Questions:
    """One language's paragraphs by id, and its questions: id, text and the id of the right paragraph."""

    paragraphs: dict[str, str]
    questions: tuple[tuple[str, str, str], ...]


def file_of(folder: Path, code: str) -> Path:
    """Give the path of the file of a language."""
    return named(folder, "xquad-{}.json", code)


def read(file: Path) -> Questions:
    """Read one language.

    Raises:
        DataError: The file is missing, damaged, or has another form.
    """
    value = read_json(file, "download it again")
    try:
        paragraphs = {row["id"]: check_text(row["text"], f"{file}: {row['id']}") for row in value["paragraphs"]}
        questions = tuple(
            (row["id"], check_text(row["text"], f"{file}: {row['id']}"), row["paragraph_id"])
            for row in value["questions"]
        )
        lost = next((number for number, _, paragraph in questions if paragraph not in paragraphs), None)
        ids = Counter((part, row["id"]) for part in ("paragraphs", "questions") for row in value[part])
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: expected paragraphs (id, text) and questions (id, text, paragraph_id)") from error
    twice = next((f"{part}: duplicate id {number!r}" for (part, number), count in ids.items() if count > 1), None)
    if twice:
        raise DataError(f"{file}: {twice}: remove one of the two")
    if lost is not None:
        raise DataError(f"{file}: question {lost} has no paragraph: add the paragraph or remove the question")
    if not questions:
        raise DataError(f"{file}: no questions in it: download it again")
    return Questions(paragraphs, questions)


class XQuADParagraphs(LocalTask, AbsTaskRetrieval):
    """The nearest paragraph should be the one that answers the question."""

    title, type, metric = "XQuAD, question and paragraph in the language", "Retrieval", "accuracy"
    instruction, symmetric, cost = "Given a question, find passages that answer it.", False, 1430
    texts = "XQuAD"
    parse = staticmethod(read)

    @classmethod
    def indexed(cls, code: str) -> bool:
        """Whether the paragraphs are English, so that another embedder may have made their vectors."""
        return cls.subset.format(code).split("-")[-1] == ENGLISH

    @classmethod
    def files(cls, folder: Path, subset: str) -> list[Path]:
        """List the file of the questions, and the file of the paragraphs if they are in another language."""
        return [file_of(folder, code) for code in subset.split("-")]

    @classmethod
    def build(cls, subset: str, asked: Questions, answers: Questions | None = None) -> dict[str, Any]:
        """Make queries and corpus; questions whose paragraph is missing in the other language are left out.

        Args:
            subset: The code of the language, or two codes: of the questions and of the paragraphs.
            asked: The file of the questions.
            answers: The file of the paragraphs; None for the same file.

        Returns:
            mteb's retrieval data of the split "all".

        Raises:
            DataError: No question is left, or there is only one paragraph, which any model finds.
        """
        paragraphs = (answers or asked).paragraphs
        known = [row for row in asked.questions if row[2] in paragraphs]
        if not known or len(paragraphs) < 2:
            found = f"{len(known)} questions have a paragraph, and the number of paragraphs is {len(paragraphs)}"
            raise DataError(f"{subset}: {found}: use files with the same ids, and two paragraphs or more")
        corpus = [{"id": number, "text": text, "title": ""} for number, text in paragraphs.items()]
        return {
            "all": {
                "corpus": Dataset.from_list(corpus),
                "queries": Dataset.from_list([{"id": number, "text": text} for number, text, _ in known]),
                "relevant_docs": {number: {paragraph: 1} for number, _, paragraph in known},
                "top_ranked": None,
            }
        }


class XQuADToEnglish(XQuADParagraphs):
    """The paragraphs are in English."""

    title, subset, cross_lingual = "XQuAD, paragraph in English", "{}-en", True


class XQuADFromEnglish(XQuADParagraphs):
    """The questions are in English."""

    title, subset, cross_lingual = "XQuAD, question in English", "en-{}", True


TASKS = (XQuADParagraphs, XQuADToEnglish, XQuADFromEnglish)
