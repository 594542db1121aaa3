"""A `lusifer data mine` that is killed goes on when the call is repeated, and ends with the same file."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from support.processes import ENVIRONMENT, LUSIFER, Started, lusifer

pytestmark = pytest.mark.slow

COMMAND = ["data", "mine", "sample:pairs", "--skip", "5"]


def mine(model: Path, folder: Path) -> Started:
    return lusifer(folder.parent, *COMMAND, "--model", model, "--output", folder / "mined.jsonl")


def kill_when(started: Started, file: Path) -> None:
    """Kill as soon as a file is there."""
    end = time.monotonic() + 120
    while not file.exists():
        assert started.process.is_alive() and time.monotonic() < end, started.stderr
        time.sleep(0.002)
    started.process.kill()
    assert started.wait() == -9


@pytest.fixture(scope="module")
def whole(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a fresh Python mines: what is compared with it was mined by others."""
    output = tmp_path_factory.mktemp("whole") / "mined.jsonl"
    command = [*LUSIFER, *COMMAND, "--model", str(model_folder), "--output", str(output)]
    subprocess.run(command, env=os.environ | ENVIRONMENT, check=True, timeout=300)
    return output.read_bytes()


@pytest.mark.parametrize("file", ["corpus.npy.done", "queries.npy.done"])
def test_killed_and_repeated_is_the_same(file: str, whole: bytes, model_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "work" / "mined.jsonl"
    output.parent.mkdir()
    kill_when(mine(model_folder, output.parent), output.parent / "mined.jsonl.work" / file)
    assert not output.exists()
    again = mine(model_folder, output.parent)
    assert again.wait() == 0, again.stderr
    assert output.read_bytes() == whole
    assert sorted(path.name for path in output.parent.iterdir()) == ["mined.jsonl", "mined.jsonl.report.md"]
