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


def losses(tmp_path: Path, command: list[str], stage: str = "alignment") -> dict[str, list[tuple[float, float]]]:
    """Loss and gradient norm of each step of a stage, on one process and on two."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    rows = {}
    for name, launcher in (("one", []), ("two", torchrun)):
        done = subprocess.run(
            [sys.executable, *launcher, "-m", "lusifer.cli", "train", *command, "--output", str(tmp_path / name)],
            env=environment, capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        said, told = done.stdout.decode(), done.stderr.decode()
        assert said.count("done; check it with") == len(said.splitlines()) == 1  # the first process speaks for all
        assert told.count(f"lusifer: {stage}: connector: ") == 1
        assert "[transformers]" not in told
        lines = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        rows[name] = [(row["loss"], row["grad_norm"]) for row in lines if row["stage"] == stage and "loss" in row]
    return rows


def without_dropout(encoder: Path) -> None:
    """Switch the dropout of an encoder off, which each process would draw for itself."""
    config = json.loads((encoder / "config.json").read_text())
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (encoder / "config.json").write_text(json.dumps(config | quiet))


def test_alignment_on_two_processes_has_the_losses_and_gradient_norms_of_one(tmp_path: Path) -> None:
    encoder, llm = make_tiny_bases(tmp_path / "bases", 0)
    without_dropout(encoder)
    command = ["tiny", "--set", f"model.encoder.path={encoder}", "--set", f"model.llm.path={llm}"]
    for setting in ("max_steps=3", "logging_steps=1", "lora.encoder.dropout=0.0", "mini_batch_size=4"):
        command += ["--set", f"stages.0.{setting}"]
    rows = losses(tmp_path, [*command, "--set", "stages.1.max_steps=1"])
    assert len(rows["one"]) == 3
    assert rows["two"] == [pytest.approx(row, rel=1e-3) for row in rows["one"]]


MIXED = """
seed: 0
max_length: 32
model:
  encoder: {path: ENCODER}
  llm: {path: LLM}
stages:
  - name: alignment
    kind: alignment
    train: {encoder: frozen, output_projection: true}
    objectives: {reconstruction: 1, distill: 1}
    data: [{path: "sample:passages"}]
    batch_size: 8
    mini_batch_size: 4
    max_steps: 6
    learning_rate: 1.0e-3
    logging_steps: 1
"""


def test_mixed_objectives_that_skip_the_projection_work_on_two_processes(tmp_path: Path) -> None:
    """Steps of reconstruction leave the projection without gradient; DDP must not wait for it."""
    encoder, llm = make_tiny_bases(tmp_path / "bases", 0)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (llm / "modules.json").write_text(json.dumps(modules))  # a decoder that is an embedder as well
    (llm / "1_Pooling").mkdir()
    width = json.loads((llm / "config.json").read_text())["hidden_size"]
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    (llm / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    recipe = tmp_path / "mixed.yaml"
    recipe.write_text(MIXED.replace("ENCODER", str(encoder)).replace("LLM", str(llm)))
    rows = losses(tmp_path, [str(recipe)])
    assert len(rows["one"]) == 6
    assert max(loss for loss, _ in rows["one"]) > 2 > min(loss for loss, _ in rows["one"])  # both objectives came
    # Equal but for the encoder's dropout, which each process draws for itself.
    assert [loss for loss, _ in rows["two"]] == pytest.approx([loss for loss, _ in rows["one"]], rel=2e-2)


SETS = """
seed: 0
max_length: 32
model:
  encoder: {path: ENCODER}
  llm: {path: LLM}
stages:
  - name: contrast
    kind: contrastive
    train: {encoder: frozen, llm: lora, output_projection: true}
    lora: {llm: {dropout: 0.0}}
    hard_negatives: 1
    batch_size: 8
    mini_batch_size: 4
    max_steps: 8
    learning_rate: 1.0e-3
    logging_steps: 1
    data: [{path: a.jsonl}, {path: b.jsonl, in_batch_negatives: false}, {path: c.jsonl}]
"""


def test_sets_of_both_kinds_train_alike_on_one_process_and_on_two(tmp_path: Path) -> None:
    """Processes that held different sets in one step would wait for each other for ever."""
    for name, labels in (("a", 24), ("b", 3), ("c", 24)):
        pairs = (
            {"query": f"{name} question {n}", "positive": [f"{name} text {n % labels}"], "negative": [f"{name} no {n}"]}
            for n in range(24)
        )
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    encoder, llm = make_tiny_bases(tmp_path / "bases", 0)
    without_dropout(encoder)
    (tmp_path / "sets.yaml").write_text(SETS.replace("ENCODER", str(encoder)).replace("LLM", str(llm)))
    rows = losses(tmp_path, [str(tmp_path / "sets.yaml")], "contrast")
    assert len(rows["one"]) == 8
    assert rows["two"] == [pytest.approx(row, rel=1e-3) for row in rows["one"]]
