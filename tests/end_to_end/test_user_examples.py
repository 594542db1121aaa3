"""The two scripts for users in `examples/`, with a tiny model in place of `mini`, on texts of the package."""

from __future__ import annotations

import csv
import runpy
import sys
from itertools import islice
from pathlib import Path

import pytest

from lusifer.data import sources
from lusifer.io import parallel_text

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a script as a user does, in a folder of its own; gives the lines that it prints."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *words: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def test_the_packaged_sentences_are_asked_in_every_language(script, model_folder: Path) -> None:
    first = script("search_texts.py", "--model", model_folder)
    assert first[0] == "texts.index: 28 texts added, 0 replaced, 0 unchanged"
    assert first[1] == "English" and first[2].startswith("  1.000  sentence 0: ")
    assert len(first) == 1 + 2 * len(parallel_text.sample().texts)
    assert script("search_texts.py")[0] == "texts.index: 0 texts added, 0 replaced, 28 unchanged"


def test_texts_of_a_folder_are_searched(script, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("Where is the station?")
    words = ("--texts", "notes", "--model", model_folder)
    assert script("search_texts.py", *words, "Where is the station?")[1:] == [
        "Where is the station?", "  1.000  a.txt: Where is the station?",
    ]  # fmt: skip
    with pytest.raises(SystemExit):
        script("search_texts.py", *words)


@pytest.mark.slow
def test_a_csv_file_trains_a_model(script, model_folder: Path, tmp_path: Path) -> None:
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["query", "positive", "note"])
        for pair in islice(sources.open_files(["sample:pairs"], 0, {}).rows, 120):
            rows.writerow([pair["query"], pair["positive"][0], ""])
    changes = ("epochs=1", "batch_size=8", "mini_batch_size=8", "bf16=false")
    settings = [word for change in changes for word in ("--set", f"stages.contrastive.{change}")]
    printed = script("train_on_csv.py", "pairs.csv", "--start", model_folder, *settings)
    assert any(line.startswith("step ") and "loss" in line for line in printed)
    assert any(line.startswith("nDCG@10 on held-out rows: ") for line in printed)
    assert "runs/mine/model: cosine of two sentences " in printed[-1]
    assert (tmp_path / "runs" / "mine" / "model" / "config.json").is_file()
