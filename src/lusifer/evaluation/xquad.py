"""XQuAD as retrieval: each question has one right paragraph, and both exist in every language.

XQuAD: Artetxe, Ruder and Yogatama, "On the Cross-lingual Transferability of Monolingual Representations" (ACL 2020,
arXiv 1910.11856). A file holds `{"paragraphs": [{"id", "text"}], "questions": [{"id", "text", "paragraph_id"}]}`; ids
are the same in every language.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lusifer.errors import DataError
from lusifer.evaluation.means import Hits, Measured
from lusifer.prompts import check_text

TO_ENGLISH, FROM_ENGLISH = "xquad_to_english", "xquad_from_english"
ENGLISH = "en"


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


def measure(
    embed: Callable[[Sequence[str]], np.ndarray], data: Path, codes: Sequence[str], tick: Callable[[], None]
) -> dict[str, Measured]:
    """Is the paragraph nearest to a question (cosine) the right one, among all paragraphs?

    Args:
        embed: Texts -> vectors (n, d) of length 1.
        data: Folder with the files; English must be there.
        codes: Languages.
        tick: Called after each language.

    Returns:
        Two tasks: questions in a language against English paragraphs, and English questions against its paragraphs.

    Raises:
        DataError: The English file cannot be read.
    """
    english = read(file_of(data, ENGLISH))
    asked, pool = _question_vectors(embed, english), embed(list(english.paragraphs.values()))
    found = {TO_ENGLISH: Measured(), FROM_ENGLISH: Measured()}
    for code in codes:
        try:
            ours = english if code == ENGLISH else read(file_of(data, code))
            texts = list(ours.paragraphs.values())
            questions, paragraphs = (asked, pool) if code == ENGLISH else (_question_vectors(embed, ours), embed(texts))
            found[TO_ENGLISH].hits[code] = _hits(ours, questions, list(english.paragraphs), pool)
            found[FROM_ENGLISH].hits[code] = _hits(english, asked, list(ours.paragraphs), paragraphs)
        except DataError as error:
            for task in found.values():
                task.missing[code] = str(error)
        tick()
    return found


def _question_vectors(embed: Callable[[Sequence[str]], np.ndarray], language: Questions) -> np.ndarray:
    return embed([text for _, text, _ in language.questions])


def _hits(language: Questions, questions: np.ndarray, ids: Sequence[str], pool: np.ndarray) -> Hits:
    """Question id -> whether its paragraph is the nearest of the pool; those without their paragraph there are out."""
    nearest = (questions @ pool.T).argmax(axis=1)
    known = set(ids)
    return {
        number: ids[place] == paragraph
        for (number, _, paragraph), place in zip(language.questions, nearest, strict=True)
        if paragraph in known
    }
