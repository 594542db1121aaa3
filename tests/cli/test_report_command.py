"""`lusifer report`: a page and a card, or one line and nothing."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import support.example_evaluations as example
from lusifer.cli import main
from lusifer.embedder.identity import identity


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        example.write(Path(name), name, 0.9 if name == "a" else 0.6, codes=["en", "sw"], tasks=["Topics"])
    example.write(Path("paper"), "c", codes=["en"], tasks=["Topics"], suite="paper")
    Path("plain.md").write_text("# A model")
    Path("empty").mkdir()
    Path("empty.html").mkdir()
    Path("old").mkdir()
    Path("old/summary.json").write_text('{"tasks": {}}')
    return tmp_path


def test_a_page_and_a_card(folders: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["report", "a", "b", "--output", "out/page.html", "--markdown", "card.md", "--seed", "3"]) == 0
    said = capsys.readouterr()
    assert said.out == "" and said.err == "lusifer: out/page.html written\nlusifer: card.md written\n"
    page = Path("out/page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "Evaluation: a, b" in page
    assert Path("card.md").read_text(encoding="utf-8").startswith("## Evaluation: suite offline")
    before = page
    assert main(["report", "a", "b", "--output", "out/page.html", "--seed", "3"]) == 0
    assert Path("out/page.html").read_text(encoding="utf-8") == before


def test_scores_go_into_the_card_of_the_first_model(folders: Path) -> None:
    card = Path("README.md")
    card.write_text(
        "---\nlicense: mit\n---\n\n# a\n\n<!-- scores:begin -->\nnone\n<!-- scores:end -->\n", encoding="utf-8"
    )
    for _ in range(2):  # and again, in the place of those that are there
        assert main(["report", "a", "b", "--output", "page.html", "--card", "README.md"]) == 0
        made = ModelCard(card.read_text(encoding="utf-8"))
        assert (made.data.license, made.data.model_name) == ("mit", "a")
        assert [(found.dataset_type, found.dataset_config) for found in made.data.eval_results] == [
            ("Topics", "en"), ("Topics", "sw"),
        ]  # fmt: skip
        assert "| Swahili (sw) | " in made.text and "none" not in made.text
        assert made.text.count("<!-- scores:begin -->") == 1


def test_the_card_of_another_model_is_refused(folders: Path, model_folder: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(model_folder, "other")
    card = Path("other/README.md")
    card.write_text("# a\n\n<!-- scores:begin -->\nnone\n<!-- scores:end -->\n", encoding="utf-8")
    assert main(["report", "a", "--output", "page.html", "--card", str(card)]) == 2
    assert f"the model in its folder is {identity(Path('other'))}, but 0" in capsys.readouterr().err
    example.write(Path("mine"), "a", codes=["en"], tasks=["Topics"], model={"name": "a", "identity": identity("other")})
    assert main(["report", "mine", "--output", "page.html", "--card", str(card)]) == 0
    assert "none" not in card.read_text(encoding="utf-8")


def test_scores_against_an_index_follow_the_models_own_in_a_card(folders: Path, capsys: pytest.CaptureFixture) -> None:
    card = Path("README.md")
    card.write_text("# a\n\n<!-- scores:begin -->\nnone\n<!-- scores:end -->\n", encoding="utf-8")
    index = {"name": "MiniLM", "identity": "0f"}
    model = {"name": "a against MiniLM", "identity": f"{1:064x}", "against": index}
    example.write(Path("against"), "a", 0.5, codes=["en", "sw"], tasks=["ToEnglish"], model=model)
    example.write(Path("other"), "a", 0.5, codes=["en", "sw"], tasks=["ToEnglish"], model=model | {"identity": "2"})
    assert main(["report", "a", "b", "against", "other", "--output", "page.html", "--card", "README.md"]) == 0
    made = ModelCard(card.read_text(encoding="utf-8"))
    assert made.text.count("### Suite offline, queries by this model against documents by MiniLM, from one") == 1
    assert {found.dataset_type for found in made.data.eval_results} == {"Topics"}
    page = Path("page.html").read_text(encoding="utf-8")
    assert "a against MiniLM (against)" in page and f"{1:064x} against 0f" in page
    capsys.readouterr()
    assert main(["report", "against", "--output", "page.html", "--card", "README.md"]) == 2
    assert (
        "against has scores against MiniLM: name a folder with the model's own scores first" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["nowhere"], 1, "nowhere/summary.json: no such file"),
        (["empty"], 1, "empty/summary.json: no such file"),
        (["a/summary.json"], 1, "no such file: an evaluation folder is what `lusifer evaluate` writes"),
        (["old"], 1, "old/summary.json: format None, not 2"),
        (["a", "a/../a"], 2, "a/../a: this folder is given twice"),
        ([], 2, "Missing argument"),
        (["a", "--seed", "-1"], 2, "--seed"),
        (["a", "--output", "empty.html"], 2, "is a folder: name a file"),
        (["a", "--output", "a/summary.json/x.html"], 2, "cannot write to"),
        (["a", "--markdown", "page.html"], 2, "--markdown page.html: name a file that ends in .md"),
        (["a", "--output", "a/summary.json"], 2, "name a file that ends in .html"),
        (["a", "--card", "card.md"], 2, "--card card.md: no such file: name README.md of a model folder"),
        (["a", "--card", "plain.md"], 2, "the card has no place for scores"),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_nothing(
    folders: Path, capsys: pytest.CaptureFixture, words: list[str], status: int, message: str
) -> None:
    Path("page.html").write_text("old")  # it is not replaced, so nothing is said of it
    before = {path: path.read_bytes() for path in folders.rglob("*") if path.is_file()}
    assert main(["report", *([] if "--output" in words else ["--output", "page.html"]), *words]) == status
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("lusifer: error: ") and message in lines[0], lines
    assert {path: path.read_bytes() for path in folders.rglob("*") if path.is_file()} == before


def test_a_failure_between_the_two_files_keeps_the_old_ones(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lusifer.evaluation.report import card

    def fail(*_: object) -> str:
        raise OSError(28, "No space left on device", "card.md")

    Path("page.html").write_text("old")
    monkeypatch.setattr(card, "markdown", fail)
    assert main(["report", "a", "--output", "page.html", "--markdown", "card.md"]) == 1
    assert Path("page.html").read_text() == "old" and not Path("card.md").exists()
