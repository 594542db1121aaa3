"""XQuAD as retrieval: each question has one right paragraph, and both exist in every language.

XQuAD: Artetxe, Ruder and Yogatama, "On the Cross-lingual Transferability of Monolingual Representations" (ACL 2020,
arXiv 1910.11856). A file holds `{"paragraphs": [{"id", "text"}], "questions": [{"id", "text", "paragraph_id"}]}`; ids
are the same in every language.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lusifer.errors import DataError
from lusifer.prompts import check_text


@dataclass(frozen=True)
class Questions:
    """One language's paragraphs by id, and its questions: id, text and the id of the right paragraph."""

    paragraphs: dict[str, str]
    questions: tuple[tuple[str, str, str], ...]


def file_of(folder: Path, code: str) -> Path:
    """Where a language lies."""
    return folder / f"xquad-{code}.json"


def read(file: Path) -> Questions:
    """Read one language.

    Raises:
        DataError: The file is missing, damaged, or not of that form.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file.name}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file.name}: damaged ({error}): fetch it again") from error
    try:
        paragraphs = {row["id"]: check_text(row["text"], f"{file.name}: {row['id']}") for row in value["paragraphs"]}
        questions = tuple(
            (row["id"], check_text(row["text"], f"{file.name}: {row['id']}"), row["paragraph_id"])
            for row in value["questions"]
        )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{file.name}: expected paragraphs (id, text) and questions (id, text, paragraph_id)"
        ) from error
    lost = next((number for number, _, paragraph in questions if paragraph not in paragraphs), None)
    if lost is not None or not questions:
        raise DataError(f"{file.name}: " + (f"question {lost} has no paragraph" if questions else "no questions in it"))
    return Questions(paragraphs, questions)
