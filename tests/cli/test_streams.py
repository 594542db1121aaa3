"""Standard streams that are closed: the work is done, and nothing of it goes astray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lusifer.cli import main

ROW = '{"text": "The ferry leaves at noon."}\n'


def run(command: str, folder: Path, closed: str) -> subprocess.CompletedProcess:
    lusifer = f"{sys.executable} -m lusifer.cli {command} {closed}"
    environment = os.environ | {"PYTHONWARNINGS": "always", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(["sh", "-c", lusifer], cwd=folder, capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "<&-", "2>&- <&-", "2>&- <&- >&-", "<&- >&-"])
def test_rows_are_cleaned_with_streams_closed(closed: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(ROW * 2)
    done = run("data dedup a.jsonl --output o.jsonl", tmp_path, closed)
    lost = " >&-" in closed  # the rows are written, and the counts missed
    assert done.returncode == lost and ("standard output is closed" in done.stderr) == (lost and "2>&-" not in closed)
    assert (tmp_path / "o.jsonl").read_text() == ROW
    assert ("rows kept" in done.stdout) == (not lost)
    failed = run("data inspect none.jsonl", tmp_path, closed)
    assert failed.returncode == 2 and failed.stderr.count("\n") == ("2>&-" not in closed)


@pytest.mark.slow
def test_closed_standard_input_is_said(tmp_path: Path) -> None:
    done = run("embed mini --input - --output o.npy", tmp_path, "<&-")
    assert done.returncode == 2
    assert done.stderr == "lusifer: error: standard input is closed: give a file, or connect it (< FILE)\n"
    assert not list(tmp_path.iterdir())


def test_results_that_have_no_place_to_go_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "a.jsonl").write_text(ROW)
    monkeypatch.setattr(sys, "stdout", None)
    for words in (["data", "inspect", str(tmp_path / "a.jsonl")], ["--version"], ["data", "sets"]):
        assert main(words) == 1 and sys.stdout is None
        line = "lusifer: error: standard output is closed, so the result is lost: redirect it to a file (> FILE)\n"
        assert capsys.readouterr().err == line
    assert main(["data", "inspect", str(tmp_path / "none.jsonl")]) == 2
    assert "standard output" not in capsys.readouterr().err


def test_a_run_that_is_done_is_done_wherever_its_words_go(tmp_path: Path, monkeypatch, capsys) -> None:
    from lusifer.training.run import run

    monkeypatch.setattr(run, "train", lambda *_, **__: tmp_path / "model")
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["train", "tiny", "--output", str(tmp_path)]) == 0
    assert "model: was trained already, nothing was done; check it with" in capsys.readouterr().err


def test_what_is_written_to_a_closed_error_stream_is_in_no_file(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.jsonl").write_text(ROW)
    kept = os.dup(2)
    os.close(2)
    try:
        monkeypatch.setattr(sys, "stderr", None)
        status = main(["data", "inspect", str(tmp_path / "a.jsonl")])
        with (tmp_path / "next").open("w") as file:
            number = file.fileno()
            os.write(2, b"a warning of a library")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    assert status == 0 and number > 2 and (tmp_path / "next").read_text() == ""
