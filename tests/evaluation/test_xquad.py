"""XQuAD as retrieval, with vectors whose scores are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from lusifer.errors import DataError
from lusifer.evaluation import xquad


def write(folder: Path, code: str, paragraphs: int = 4, known: int = 4) -> Path:
    """Two questions a paragraph; of the last `paragraphs - known` paragraphs this language speaks in riddles."""
    value = {
        "paragraphs": [{"id": f"p{n}", "text": f"{code} p {n if n < known else 9}"} for n in range(paragraphs)],
        "questions": [
            {"id": f"q{n}", "text": f"{code} q {n // 2}", "paragraph_id": f"p{n // 2}"} for n in range(2 * paragraphs)
        ],
    }
    file = xquad.file_of(folder, code)
    file.write_text(json.dumps(value), encoding="utf-8")
    return file


def embed(texts: list[str]) -> np.ndarray:
    return np.eye(10)[[int(text.split()[2]) for text in texts]]


def test_questions_find_paragraphs_of_the_other_language_both_ways(tmp_path: Path) -> None:
    write(tmp_path, "en")
    write(tmp_path, "es", known=3)
    ticks: list[int] = []
    found = xquad.measure(embed, tmp_path, ["en", "es", "fi"], lambda: ticks.append(1))
    assert len(ticks) == 3
    means = {task: {code: np.mean(list(row.values())) for code, row in found[task].hits.items()} for task in found}
    assert means[xquad.TO_ENGLISH] == {"en": 1, "es": 1}  # every paragraph is there in English
    assert means[xquad.FROM_ENGLISH] == {"en": 1, "es": 6 / 8}
    assert found[xquad.TO_ENGLISH].missing == {"fi": "xquad-fi.json: no such file"}


def test_a_language_with_fewer_paragraphs_is_asked_about_those_alone(tmp_path: Path) -> None:
    write(tmp_path, "en")
    write(tmp_path, "es", paragraphs=2)
    found = xquad.measure(embed, tmp_path, ["es"], lambda: None)
    assert sorted(found[xquad.FROM_ENGLISH].hits["es"]) == ["q0", "q1", "q2", "q3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "expected paragraphs"),
        ('{"paragraphs": [], "questions": []}', "no questions in it"),
        ('{"paragraphs": [], "questions": [{"id": "q", "text": "x", "paragraph_id": "p"}]}', "q has no paragraph"),
        ('{"paragraphs": [{"id": "p", "text": ""}], "questions": []}', "p: the text is empty"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = xquad.file_of(tmp_path, "en")
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"xquad-en\.json.*{message}"):
        xquad.read(file)
