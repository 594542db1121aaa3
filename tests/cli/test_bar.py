"""`lusifer train` on a terminal: a bar a stage, and lines that can be read when it ends well, badly or early."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from lusifer.cli import main
from lusifer.cli.train import listener, say

FAILING = """
import sys
import typer
from lusifer import cli
from lusifer.cli.train import listener
from lusifer.errors import LusiferError

app = typer.Typer(add_completion=False)

@app.callback()
def options() -> None: ...

@app.command()
def work() -> None:
    with listener() as listen:
        listen({"event": "stage", "stage": "align", "steps": 40, "done": 10})
        listen({"event": "step", "stage": "align", "step": 11, "steps": 40})
        listen({"event": "log", "stage": "align", "step": 11, "steps": 40, "loss": 1.5, "seconds": 0.25})
        raise ERROR

cli.app = app
sys.exit(cli.main(["work"]))
"""


def on_a_terminal(work: Callable[[int], int]) -> tuple[int, list[str]]:
    """Status and lines of what writes to a pseudo terminal; a redrawn line is a line of its own."""
    ours, theirs = pty.openpty()
    with ThreadPoolExecutor() as reader:
        said = reader.submit(read, ours)
        try:
            status = work(theirs)
        finally:
            os.close(theirs)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.result().decode())
    return status, [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def read(ours: int) -> bytes:
    said = b""
    with suppress(OSError), os.fdopen(ours, "rb", buffering=0) as stream:  # an error: the other end is closed
        while part := stream.read(65536):
            said += part
    return said


def process(folder, program: str, **environment: str) -> tuple[int, list[str]]:
    """A program in a process of its own."""
    variables = {**os.environ, "TERM": "xterm", "COLUMNS": "100"} | environment
    command = [sys.executable, "-c", program]
    return on_a_terminal(
        lambda theirs: subprocess.call(command, cwd=folder, env=variables, stdin=theirs, stdout=theirs, stderr=theirs)
    )


@pytest.mark.slow
def test_the_bar_moves_between_two_lines_of_the_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    changes = [f"stages.{n}.{key}" for n in (0, 1) for key in ("max_steps=2", "logging_steps=1000")]
    words = [word for change in changes for word in ("--set", change)]

    def work(theirs: int) -> int:
        with os.fdopen(os.dup(theirs), "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            return main(["train", "tiny", "--output", "run", *words])

    status, lines = on_a_terminal(work)
    assert status == 0, lines
    for stage in ("alignment", "contrastive"):
        bars = [line for line in lines if re.match(rf"lusifer: {stage} \S+ +\d/2 ", line)]
        assert "0/2" in bars[0] and "2/2" in bars[-1]
        (written,) = [line for line in lines if line.startswith(f"lusifer: {stage}: ") and line.endswith(" written")]
        assert lines.index(bars[-1]) < lines.index(written)
        assert f"lusifer: {stage}: 2 steps" not in lines  # the bar says it
    assert lines[-1].startswith(f"lusifer: {tmp_path}") and "trained" in lines[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "status", "last"),
    [
        ('LusiferError("the disk is full")', 1, "lusifer: error: the disk is full"),
        ("KeyboardInterrupt()", 130, "lusifer: error: interrupted"),
    ],
)
def test_an_error_stands_on_a_line_of_its_own_under_the_bar(tmp_path, error, status, last):
    found, lines = process(tmp_path, FAILING.replace("ERROR", error))
    assert found == status
    assert lines[-1] == last
    assert re.match(r"lusifer: align \S+ 11/40 .*loss 1\.5$", lines[-2])


@pytest.mark.slow
def test_a_terminal_that_cannot_redraw_gets_plain_lines(tmp_path):
    program = FAILING.replace("ERROR", 'LusiferError("no")')
    assert process(tmp_path, program, TERM="dumb") == (
        1,
        [
            "lusifer: align: 40 steps, of which 10 are already done",
            "lusifer: align: step 11 of 40: loss 1.5, 0.25 s a step",
            "lusifer: error: no",
        ],
    )


def test_off_a_terminal_a_step_says_nothing(capsys):
    with listener() as listen:
        assert listen is say
        listen({"event": "step", "stage": "align", "step": 1, "steps": 2})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("step", "kept", "lines"), [(0, True, 2), (0, False, 1), (40, True, 1)])
def test_a_stage_whose_start_was_the_best_says_that_it_changes_nothing(
    capsys, step: int, kept: bool, lines: int
) -> None:
    about = {"score": 1.0, "first": 1.0, "last": 0.9, "kept": kept}
    say({"event": "best", "stage": "contrastive", "step": step} | about)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines and said[0].startswith("lusifer: contrastive: best at step")
    assert all("this stage changes nothing" in line for line in said[1:])
