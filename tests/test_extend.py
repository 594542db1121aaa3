"""The examples of `docs/extend.md` work: each section's files are written, and its scripts run in order."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "extend.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def blocks(section: str) -> Iterator[str]:
    """The python blocks of a section."""
    (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.M | re.S)
    yield from re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


def run(section: str) -> dict[str, object]:
    """Write the files, run the other blocks, and give the names that these leave."""
    names: dict[str, object] = {"__name__": "example"}
    for block in blocks(section):
        file = re.match(r"# (\w+\.py)\n", block)
        if file:
            Path(file[1]).write_text(block, encoding="utf-8")
        else:
            exec(compile(block, f"{PAGE.name}: {section}", "exec"), names)
    return names


@pytest.mark.slow
def test_a_connector(folder: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    from lusifer.cli import main
    from lusifer.model import connector

    request.addfinalizer(lambda: (connector.CONNECTORS.pop("gated"), connector.SETTINGS.pop("gated")))
    names = run("A connector")
    assert names["status"] == 0 and names["vectors"].shape == (2, 48)
    config = json.loads(Path("run/model/config.json").read_text())
    assert config["connector_type"] == "gated" and config["connector_kwargs"] == {"width": 2}
    with pytest.raises(ValueError, match=r"connector 'gated': gated\.Gated has this name already"):
        connector.register(type("Gated", (connector.CONNECTORS["gated"],), {"__module__": "elsewhere"}))
    assert "gated feed-forward, width 2, 1 soft token" in Path("run/model/README.md").read_text()
    assert main(["check", "tiny", "--set", "model.connector={type: gated, widht: 2}"]) == 2
    assert "model.connector.widht: unknown key; did you mean width?" in capsys.readouterr().err


def test_an_evaluation_task_from_local_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lusifer.evaluation.scores import results
    from lusifer.evaluation.tasks import local

    monkeypatch.setattr(local, "_ADDED", [])
    run("An evaluation task from local files")
    task = next(task for task in local.tasks("offline") if task.__name__ == "Paraphrases")
    local.register(task)  # once more, as in a notebook
    assert local.tasks("offline").count(task) == 1
    with pytest.raises(ValueError, match="task 'Paraphrases': another class already has this name"):
        local.register(type("Paraphrases", (task,), {"__module__": "elsewhere"}))
    english, swahili = results.read(folder / "scores").scores
    assert english.task == "Paraphrases" and english.score == pytest.approx(100) and english.n == 4
    assert swahili.missing == "paraphrases-sw.jsonl: no such file"
    Path("data/paraphrases-en.jsonl").write_text('{"sentence1": "a"}\n')
    from lusifer.errors import DataError
    from lusifer.evaluation.run.evaluate import Options

    with pytest.raises(DataError, match=r"paraphrases-en\.jsonl line 1: expected an object with sentence1"):
        Options(data=Path("data"), languages=["en"], tasks=["Paraphrases"]).select()


@pytest.mark.slow
def test_an_alignment_objective(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lusifer.training.objectives import OBJECTIVES

    try:
        model = run("An alignment objective")["model"]
    finally:
        OBJECTIVES.pop("denoise", None)
    rows = [json.loads(line) for line in (folder / "runs" / "denoise" / "metrics.jsonl").read_text().splitlines()]
    assert any(row["stage"] == "alignment" and row["train_loss"] > 0 for row in rows if "train_loss" in row)
    card = (model / "README.md").read_text(encoding="utf-8")
    assert "denoise in 50% of the steps" in card and "words left out of what the encoder reads: 30%" in card


def test_a_retrieval_task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lusifer.errors import DataError
    from lusifer.evaluation.run.evaluate import Options
    from lusifer.evaluation.scores import results
    from lusifer.evaluation.tasks import local

    monkeypatch.setattr(local, "_ADDED", [])
    run("A retrieval task")
    (english,) = results.read(folder / "scores").scores
    assert english.task == "Faq" and english.score == pytest.approx(100) and english.n == 3
    details = json.loads((folder / "scores" / "details" / "Faq.json").read_text(encoding="utf-8"))
    assert [question["ranks"] for question in details["en"]["questions"]] == [[1], [1], [1]]
    Path("data/faq-en.jsonl").write_text('{"question": "a"}\n')
    with pytest.raises(DataError, match=r"faq-en\.jsonl line 1: expected an object with question and answer"):
        Options(data=Path("data"), languages=["en"], tasks=["Faq"]).select()
