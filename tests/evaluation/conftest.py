"""What several tests of evaluation start from."""

from pathlib import Path

import pytest

from support.offline_files import write_pairs, write_questions, write_split


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for code in ("en", "es", "ru"):
        write_split(folder, code, "dev", list(range(12)))
    for code in ("en", "es"):
        write_split(folder, code, "train", list(range(30)))
    write_questions(folder, "en")
    write_questions(folder, "es", known=3)
    write_pairs(folder, "es")
    return folder
