"""The files of XQuAD."""

from pathlib import Path

import pytest

from lusifer.errors import DataError
from lusifer.evaluation.tasks import xquad


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
