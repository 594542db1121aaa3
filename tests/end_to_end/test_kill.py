"""A run that is killed, or asked to stop, in the middle of either stage and resumed ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.processes import ENVIRONMENT, LUSIFER, Started, command, lusifer, start_ranks
from support.training import free_port

pytestmark = pytest.mark.slow

COMMAND = ["train", "tiny"]
for number in (0, 1):
    for setting in ("max_steps=6", "save_steps=2", "batch_size=8", "mini_batch_size=4"):
        COMMAND += ["--set", f"stages.{number}.{setting}"]


def start(output: Path, *more: str) -> Started:
    return lusifer(output.parent, *COMMAND, "--output", output, *more)


def wait_for(output: Path, pattern: str, *started: Started) -> None:
    deadline = time.monotonic() + 300
    while not list(output.glob(pattern)):
        assert all(each.process.is_alive() for each in started), started[0].stderr
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill_after(output: Path, checkpoint: str) -> None:
    """Start, wait until `checkpoint` appears, and kill without warning."""
    started = start(output)
    wait_for(output, f"checkpoints/{checkpoint}", started)
    started.process.kill()
    assert started.wait() == -9
    assert not (output / "model").exists()


def ends_alike(unbroken: dict[str, torch.Tensor], output: Path) -> None:
    """Resume, and compare what comes out."""
    resumed = start(output, "--resume")
    assert resumed.wait() == 0, resumed.stderr
    found = load_file(output / "model" / "model.safetensors")
    assert found.keys() == unbroken.keys()
    assert all(torch.equal(found[key], unbroken[key]) for key in found)


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
    ends_alike(unbroken, tmp_path / "run")


def test_sigterm_saves_after_the_step_and_ends(unbroken: dict[str, torch.Tensor], tmp_path: Path) -> None:
    output = tmp_path / "run"
    started = start(output, "--set", "stages.0.save_steps=99", "--set", "stages.0.logging_steps=1")
    wait_for(output, "metrics.jsonl", started)
    os.kill(started.process.pid, signal.SIGTERM)
    os.kill(started.process.pid, signal.SIGTERM)  # torchrun passes one on to processes that have got it already
    assert started.wait() == 128 + signal.SIGTERM
    (saved,) = output.glob("checkpoints/01-alignment/checkpoint-*")
    step = int(saved.name.rpartition("-")[2])
    assert 1 <= step < 6 and json.loads((saved / "trainer_state.json").read_text())["global_step"] == step
    how = f"`lusifer train {output}/recipe.yaml --output {output} --resume`"
    assert (
        f"SIGTERM: stopped after step {step} of 6 of stage alignment, and saved: continue with {how}" in started.stderr
    )
    ends_alike(unbroken, output)


def test_one_process_of_two_that_is_asked_stops_both_after_the_same_step(tmp_path: Path) -> None:
    output = tmp_path / "run"
    words = (*COMMAND, "--set", "stages.0.max_steps=60", "--set", "stages.0.logging_steps=1", "--output", str(output))
    ranks = start_ranks(command, words, tmp_path, free_port())
    wait_for(output, "metrics.jsonl", *ranks)
    os.kill(ranks[1].process.pid, signal.SIGTERM)
    assert [rank.wait() for rank in ranks] == [143, 143], "".join(rank.stderr for rank in ranks)
    (*_, last) = sorted(output.glob("checkpoints/01-alignment/checkpoint-*"), key=lambda each: int(each.name[11:]))
    assert all(f"stopped after step {last.name[11:]} of 60" in rank.stderr for rank in ranks)
    known = json.loads((last / "checksums.json").read_text())
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "trainer_state.json"} <= known.keys()
