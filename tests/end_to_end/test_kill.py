"""A run that is killed in the middle of either stage and resumed ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

COMMAND = [sys.executable, "-m", "lusifer.cli", "train", "tiny", "--set", "stages.0.max_steps=12", "--set"]
COMMAND += ["stages.0.save_steps=3", "--set", "stages.1.max_steps=12", "--set", "stages.1.save_steps=3"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def start(output: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, "--output", str(output), *more], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(output: Path, *more: str) -> None:
    process = start(output, *more)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text.decode()


def kill_after(output: Path, checkpoint: str) -> None:
    """Start, wait until `checkpoint` appears, and kill without warning."""
    process = start(output)
    deadline = time.monotonic() + 300
    while not list(output.glob(f"checkpoints/{checkpoint}")):
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (output / "model").exists()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    output = tmp_path_factory.mktemp("unbroken") / "run"
    finish(output)
    return load_file(output / "model" / "model.safetensors")


@pytest.mark.parametrize("checkpoint", ["01-alignment/checkpoint-6", "02-contrastive/checkpoint-6"])
def test_sigkill_and_resume_give_the_same_final_weights(
    unbroken: dict[str, torch.Tensor], tmp_path: Path, checkpoint: str
) -> None:
    kill_after(tmp_path / "run", checkpoint)
    finish(tmp_path / "run", "--resume")
    found = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert found.keys() == unbroken.keys()
    assert all(torch.equal(found[key], unbroken[key]) for key in found)
