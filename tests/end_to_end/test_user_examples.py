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
    for words in ((), ("--model", model_folder)):
        assert script("search_texts.py", *words)[0] == "texts.index: 0 texts added, 0 replaced, 28 unchanged"
    with pytest.raises(SystemExit, match=r"^error: texts\.index: was made by .*, but mini .* gives other vectors: "):
        script("search_texts.py", "--model", "mini")


def test_texts_of_a_folder_are_searched(script, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("Where is the station?")
    words = ("--texts", "notes", "--model", model_folder)
    assert script("search_texts.py", *words, "Where is the station?")[1:] == [
        "Where is the station?", "  1.000  a.txt: Where is the station?",
    ]  # fmt: skip
    assert (tmp_path / "notes.index").is_dir() and not (tmp_path / "texts.index").exists()
    with pytest.raises(SystemExit):
        script("search_texts.py", *words)


def test_a_wrong_call_ends_in_one_line(script, tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"^error: none\.csv: no such file; give a CSV file with the columns query and"
    ):
        script("train_on_csv.py", "none.csv")
    pairs(tmp_path / "pairs.csv", 0, 3)
    with pytest.raises(SystemExit, match=r"^error: nowhere: no such [^\n]*$"):
        script("train_on_csv.py", "pairs.csv", "--start", "nowhere")
    (tmp_path / "runs" / "pairs").mkdir(parents=True)
    (tmp_path / "runs" / "pairs" / "notes.txt").write_text("mine")
    with pytest.raises(
        SystemExit, match=r"^error: runs/pairs: is not empty and contains no run: choose another --outp"
    ):
        script("train_on_csv.py", "pairs.csv", "--start", "mini")
    with pytest.raises(SystemExit, match=r"^error: nothing: no such [^\n]*$"):
        script("search_texts.py", "--texts", "nothing", "Where is the station?")
    with pytest.raises(SystemExit, match=r"^error: nowhere: no such [^\n]*$"):
        script("search_texts.py", "--model", "nowhere")


def pairs(file: Path, first: int, last: int) -> None:
    """Write rows of the packaged pairs to a CSV file."""
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["query", "positive", "note"])
        for pair in islice(sources.open_files(["sample:pairs"], 0, {}).rows, first, last):
            rows.writerow([pair["query"], pair["positive"][0], ""])


def small(**values: object) -> list[str]:
    """The options of a short run."""
    changes = {"epochs": 1, "batch_size": 8, "mini_batch_size": 8, "bf16": "false"} | values
    return [word for key, value in changes.items() for word in ("--set", f"stages.contrastive.{key}={value}")]


@pytest.mark.slow
def test_a_csv_file_trains_a_model(script, model_folder: Path, tmp_path: Path) -> None:
    pairs(tmp_path / "pairs.csv", 0, 120)
    printed = script("train_on_csv.py", "pairs.csv", "--start", model_folder, *small())
    assert "12 rows are held out for the score" in printed
    assert any(line.startswith("step ") and "loss" in line for line in printed)
    assert any(line.startswith("nDCG@10 on held-out rows: ") for line in printed)
    assert "runs/pairs/model: cosine of two sentences " in printed[-1]
    assert (tmp_path / "runs" / "pairs" / "model" / "config.json").is_file()


@pytest.mark.slow
def test_a_few_rows_train_without_a_score(script, model_folder: Path, tmp_path: Path) -> None:
    pairs(tmp_path / "few.csv", 0, 36)
    pairs(tmp_path / "others.csv", 36, 72)
    words = ("--start", model_folder, *small())
    printed = script("train_on_csv.py", "few.csv", *words)
    assert printed[0].startswith("fewer than 100 rows") and printed[0].endswith("there is no score")
    assert printed[1] == "5 steps" and printed[2].startswith("mean loss of all steps: ")
    again = script("train_on_csv.py", "few.csv", *words)
    assert len(again) == 2 and again[0].endswith("few/model: already trained; to train again give another --output")
    with pytest.raises(SystemExit, match=r"^error: [^\n]*another --output$"):
        script("train_on_csv.py", "few.csv", "--start", model_folder, *small(batch_size=6))
    with pytest.raises(SystemExit, match=r"^error: [^\n]*another --output$"):
        script("train_on_csv.py", "others.csv", *words, "--output", "runs/few")
    assert "runs/others/model: cosine" in script("train_on_csv.py", "others.csv", *words)[-1]
