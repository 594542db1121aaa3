"""Gradients and weights do not depend on the number of processes (two on this machine, gloo)."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch.nn.parallel import DistributedDataParallel

from lusifer.embedder import folder
from lusifer.embedder.assemble import assemble, lusifer_model
from lusifer.model import adapters, build, tokenizer
from lusifer.model.tiny import make_tiny_bases
from lusifer.training.contrast import loss
from training.test_contrast import ROWS, features, stage


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rank_gradients(rank: int, port: int, model: str, output: str, loss_name: str) -> None:
    """One of two ranks: half of the rows, DDP, gradients written by rank 0."""
    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    embedder = SentenceTransformer(model, device="cpu").eval()
    adapters.freeze(lusifer_model(embedder), dict.fromkeys(adapters.PARTS, True))
    half = {key: texts[rank * 2 : rank * 2 + 2] for key, texts in ROWS.items()}
    made = loss(stage(mini_batch_size=1, loss=loss_name), embedder, in_batch_negatives=True)
    made.model = DistributedDataParallel(embedder)
    made(features(embedder, half), None).backward()
    if rank == 0:
        save_file({name: p.grad for name, p in embedder.named_parameters() if p.grad is not None}, output)
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    encoder, llm = (build.Base(str(path)) for path in make_tiny_bases(root / "bases", 0))
    model = build.join(build.read_backbone(encoder, "encoder"), build.read_backbone(llm, "llm"), 0, num_soft_tokens=1)
    folder.save(assemble(model, tokenizer.read_tokenizer(encoder.path), max_seq_length=32), root / "model")
    return root / "model"


@pytest.mark.parametrize("loss_name", ["infonce", "ntxent_l2"])
def test_two_processes_have_the_gradients_of_one(model_folder: Path, tmp_path: Path, loss_name: str) -> None:
    output = str(tmp_path / "gradients.safetensors")
    mp.spawn(rank_gradients, (free_port(), str(model_folder), output, loss_name), nprocs=2)
    embedder = SentenceTransformer(str(model_folder), device="cpu").eval()
    adapters.freeze(lusifer_model(embedder), dict.fromkeys(adapters.PARTS, True))
    loss(stage(mini_batch_size=4, loss=loss_name), embedder, True)(features(embedder), None).backward()
    expected = {name: p.grad for name, p in embedder.named_parameters() if p.grad is not None}
    found = load_file(output)
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() < 1e-5 * largest, name


def test_alignment_on_two_processes_has_the_losses_and_gradient_norms_of_one(tmp_path: Path) -> None:
    command = ["-m", "lusifer.cli", "train", "tiny"]
    for setting in ("max_steps=3", "logging_steps=1", "lora.encoder.dropout=0.0", "mini_batch_size=4"):
        command += ["--set", f"stages.0.{setting}"]
    command += ["--set", "stages.1.max_steps=1"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    rows = {}
    for name, launcher in (("one", []), ("two", torchrun)):
        done = subprocess.run(
            [sys.executable, *launcher, *command, "--output", str(tmp_path / name)],
            env=environment, capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        rows[name] = [(row["loss"], row["grad_norm"]) for row in lines if row["stage"] == "alignment" and "loss" in row]
    assert len(rows["one"]) == 3
    # The encoder has dropout of its own, which each process draws for itself: equal but for that.
    assert rows["two"] == [pytest.approx(row, rel=2e-2) for row in rows["one"]]
