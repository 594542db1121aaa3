"""A `lusifer data mine` that is killed goes on when the call is repeated, and ends with the same file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "lusifer.cli", "data", "mine", "sample:pairs", "--model", "mini", "--skip", "5"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def mine(output: Path) -> subprocess.Popen:
    return subprocess.Popen([*COMMAND, "--output", str(output)], env=ENVIRONMENT, stderr=subprocess.PIPE)


def kill_when(process: subprocess.Popen, file: Path) -> None:
    """Kill as soon as a file is there."""
    end = time.monotonic() + 120
    while not file.exists():
        assert process.poll() is None and time.monotonic() < end, process.stderr.read().decode()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("whole") / "mined.jsonl"
    process = mine(output)
    assert process.communicate(timeout=120) and process.returncode == 0
    return output.read_bytes()


@pytest.mark.parametrize("file", ["corpus.f16.done", "queries.f16.done"])
def test_killed_and_repeated_is_the_same(file: str, whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "mined.jsonl"
    kill_when(mine(output), tmp_path / "mined.jsonl.work" / file)
    assert not output.exists()
    process = mine(output)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error.decode()
    assert output.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mined.jsonl", "mined.jsonl.report.md"]
