"""What several tests of training start from: rows, stages, a recipe, and runs on one process and on two."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from torch.nn.parallel import DistributedDataParallel

from lusifer.embedder.assemble import lusifer_model
from lusifer.model import adapters
from lusifer.training.stages.contrastive import loss
from support import processes

RECIPE = """\
name: small
model:
  encoder: {path: "tiny:encoder"}
  llm: {path: "tiny:llm"}
stages:
  - name: first
    kind: alignment
    train: {encoder: lora}
    objectives: {distill: 1}
    batch_size: 8
    mini_batch_size: 4
    max_steps: 3
    learning_rate: 1e-4
    data:
      - {path: "sample:passages"}
  - name: second
    kind: contrastive
    train: {encoder: frozen, llm: lora}
    batch_size: 8
    mini_batch_size: 4
    epochs: 2
    learning_rate: 1e-4
    data:
      - {path: "sample:pairs"}
"""
ROWS = {
    "query": ["where is the river", "what is bread", "who sings at night", "how long is a day"],
    "positive": ["The river is in the north.", "Bread is baked dough.", "An owl sings.", "A day has 24 hours."],
    "negative": ["The lake is deep.", "Water is wet.", "A cat sleeps all day.", "A year has twelve months."],
}


def stage(**changes: object) -> SimpleNamespace:
    settings = {"loss": "infonce", "temperature": 0.05, "mini_batch_size": 2, "mini_batch_tokens": None}
    settings |= {"gradient_cache": True}
    return SimpleNamespace(**(settings | {"matryoshka_dims": None, "miner_epsilon": 0.25} | changes))


def features(embedder: SentenceTransformer, rows: dict[str, list[str]] = ROWS) -> list[dict[str, torch.Tensor]]:
    return [embedder.preprocess(texts) for texts in rows.values()]


PORTS = iter(range(2_000))
"""Each is tried once: one that was just closed may be busy for a while."""


def free_port() -> int:
    """A port for processes to meet at, that the system gives to nobody meanwhile.

    It gives those from 32768 on to whoever asks for any, a client too. Two files of tests that run at the same time
    ask in ranges of their own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for port in PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", 12_000 + 2_000 * (worker % 10) + port))
            return probe.getsockname()[1]
    raise RuntimeError("no port is free")


def rank_gradients(model: str, output: str, loss_name: str, caches: bool) -> None:
    """One of two ranks: half of the rows, DDP, gradients written by rank 0."""
    rank = int(os.environ["RANK"])
    # What hangs ends with words, and where it did, long before anybody loses patience.
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=60))
    embedder = SentenceTransformer(model, device="cpu").eval()
    adapters.freeze(lusifer_model(embedder), dict.fromkeys(adapters.PARTS, True))
    half = {key: texts[rank * 2 : rank * 2 + 2] for key, texts in ROWS.items()}
    made = loss(stage(mini_batch_size=1, loss=loss_name, gradient_cache=caches), embedder, in_batch_negatives=True)
    made.model = DistributedDataParallel(embedder)
    made(features(embedder, half), None).backward()
    if rank == 0:
        save_file({name: p.grad for name, p in embedder.named_parameters() if p.grad is not None}, output)
    dist.barrier()
    dist.destroy_process_group()


def losses(
    tmp_path: Path, command: list[str], stage: str = "alignment", torchrun: bool = False
) -> dict[str, list[tuple[float, float]]]:
    """Loss and gradient norm of each step of a stage, on one process and on two.

    Args:
        tmp_path: Where the runs `one` and `two` are written.
        command: Of `lusifer train`, without its output.
        stage: Whose steps.
        torchrun: Start the two as users do, each a fresh Python, and not with what torchrun tells them.
    """
    words = {name: ["train", *command, "--output", str(tmp_path / name)] for name in ("one", "two")}
    one = processes.lusifer(tmp_path, *words["one"], name="alone")
    written = {"two": _torchrun(words["two"]) if torchrun else _two_ranks(words["two"], tmp_path)}
    assert one.wait() == 0, one.stderr
    written["one"] = (one.stdout, one.stderr)
    rows = {}
    for name, (said, told) in written.items():
        assert told.count("trained; check it with") == 1 and not said  # the first process speaks for all
        assert told.count(f"lusifer: {stage}: connector: ") == 1
        assert "[transformers]" not in told
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        rows[name] = [(row["loss"], row["grad_norm"]) for row in lines if row["stage"] == stage and "loss" in row]
    return rows


def _torchrun(words: list[str]) -> tuple[str, str]:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "lusifer.cli", *words],
        env=os.environ | processes.ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def _two_ranks(words: list[str], folder: Path) -> tuple[str, str]:
    ranks = processes.run_ranks(processes.command, tuple(words), folder, free_port())
    return "".join(rank.stdout for rank in ranks), "".join(rank.stderr for rank in ranks)


def without_dropout(encoder: Path) -> None:
    """Switch the dropout of an encoder off, which each process would draw for itself."""
    config = json.loads((encoder / "config.json").read_text())
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (encoder / "config.json").write_text(json.dumps(config | quiet))
