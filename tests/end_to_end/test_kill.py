"""A run that is killed in the middle of either stage and resumed ends as if nothing had happened."""

import os
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.processes import ENVIRONMENT, LUSIFER, Started, lusifer

pytestmark = pytest.mark.slow

COMMAND = ["train", "tiny"]
for number in (0, 1):
    for setting in ("max_steps=6", "save_steps=2", "batch_size=8", "mini_batch_size=4"):
        COMMAND += ["--set", f"stages.{number}.{setting}"]


def start(output: Path, *more: str) -> Started:
    return lusifer(output.parent, *COMMAND, "--output", output, *more)


def kill_after(output: Path, checkpoint: str) -> None:
    """Start, wait until `checkpoint` appears, and kill without warning."""
    started = start(output)
    deadline = time.monotonic() + 300
    while not list(output.glob(f"checkpoints/{checkpoint}")):
        assert started.process.is_alive(), started.stderr
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started.process.kill()
    assert started.wait() == -9
    assert not (output / "model").exists()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What a fresh Python trains: what is compared with it was trained by others."""
    output = tmp_path_factory.mktemp("unbroken") / "run"
    subprocess.run([*LUSIFER, *COMMAND, "--output", str(output)], env=os.environ | ENVIRONMENT, check=True, timeout=300)
    return load_file(output / "model" / "model.safetensors")


@pytest.mark.parametrize("checkpoint", ["01-alignment/checkpoint-2", "02-contrastive/checkpoint-2"])
def test_sigkill_and_resume_give_the_same_final_weights(
    unbroken: dict[str, torch.Tensor], tmp_path: Path, checkpoint: str
) -> None:
    kill_after(tmp_path / "run", checkpoint)
    resumed = start(tmp_path / "run", "--resume")
    assert resumed.wait() == 0, resumed.stderr
    found = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert found.keys() == unbroken.keys()
    assert all(torch.equal(found[key], unbroken[key]) for key in found)
