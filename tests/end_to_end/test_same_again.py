"""The same seed on the same machine, twice: the same weights, scores and page, in two processes, one of them fresh.

Python walks through sets in another order in each. What may differ is named here: how long something took.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import processes

pytestmark = pytest.mark.slow

TIMES = {"seconds", "train_runtime", "train_samples_per_second", "train_steps_per_second"}
TIMES |= {"date", "evaluation_time", "evaluation_phases"}
"""Keys of JSON files: of scores, of the log, of mteb's results."""
TRAIN = ["train", "tiny", "--output", "run"]
for number in (0, 1):
    for setting in ("max_steps=2", "save_steps=1", "batch_size=4", "mini_batch_size=4"):
        TRAIN += ["--set", f"stages.{number}.{setting}"]
WORDS = [
    TRAIN,
    ["evaluate", "run/model", "--suite", "sample", "--languages", "es,sw", "--output", "scores"],
    ["report", "scores", "--output", "report.html", "--markdown", "report.md"],
]
PROGRAM = """
import json, os, sys
from lusifer.cli import main
os.chdir(sys.argv[1])  # after the import: the path to the package may be relative
sys.exit(any(main(words) for words in json.loads(sys.argv[2])))
"""


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: None if key in TIMES else without_times(each) for key, each in value.items()}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def content(file: Path, seconds: str) -> bytes:
    """The bytes of a file, without its times."""
    if file.suffix == ".json":
        return json.dumps(without_times(json.loads(file.read_text()))).encode()  # keys in the order of the file
    if file.name == "metrics.jsonl":
        return json.dumps([without_times(json.loads(line)) for line in file.read_text().splitlines()]).encode()
    if file.name == "report.html":  # one cell: "duration (seconds)", the last of the model's row
        cell = f'<td class="number" data-value="{seconds}">{seconds}</td>'
        page, count = re.subn(rf"{cell}(\s*</tr>)", r"\1", file.read_text(), count=1)
        assert count == 1
        return page.encode()
    return file.read_bytes()


def forked(program: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the program in a fork of a server, whose order of sets was drawn when it started."""
    return processes.script(program, program.parent, folder, json.dumps(WORDS))


def fresh(program: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the program in a fresh process, with another order of sets."""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    return subprocess.run(
        [sys.executable, str(program), str(folder), json.dumps(WORDS)],
        env=os.environ | processes.ENVIRONMENT | {"PYTHONHASHSEED": seed},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def run(start: Callable[[Path, Path], subprocess.CompletedProcess[str]], folder: Path) -> dict[str, bytes]:
    """Train, score and report in another process: name of each file -> its content."""
    folder.mkdir()
    program = folder.with_name("program.py")
    program.write_text(PROGRAM)
    done = start(program, folder)
    assert done.returncode == 0, done.stderr
    seconds = str(round(json.loads((folder / "scores" / "summary.json").read_text())["seconds"]))
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): content(file, seconds) for file in files}


def test_same_seed_gives_the_same_files_in_two_processes(tmp_path: Path) -> None:
    place = tmp_path / "here"  # the same for both: a checkpoint names the folder of its bases
    one = run(forked, place)
    place.rename(tmp_path / "first")
    other = run(fresh, place)
    assert one.keys() == other.keys()
    assert {"run/model/model.safetensors", "scores/summary.json", "report.html", "report.md"} <= one.keys()
    assert [name for name in one if one[name] != other[name]] == []
