"""Gradients and weights do not depend on the number of processes (two on this machine, gloo)."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from lusifer.embedder import folder
from lusifer.embedder.assemble import assemble, lusifer_model
from lusifer.model import adapters, build
from lusifer.model.build import make_tiny_bases
from lusifer.training.stages.contrastive import loss
from support.processes import run_ranks
from support.training import features, free_port, losses, rank_gradients, stage, without_dropout

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    encoder, llm = (build.Base(str(path)) for path in make_tiny_bases(root / "bases", 0))
    model = build.join(build.read_backbone(encoder, "encoder"), build.read_backbone(llm, "llm"), 0, num_soft_tokens=1)
    folder.save(assemble(model, build.read_tokenizer(encoder.path), max_seq_length=32), root / "model")
    return root / "model"


@pytest.mark.parametrize(("loss_name", "caches"), [("infonce", True), ("infonce", False), ("ntxent_l2", True)])
def test_two_processes_have_the_gradients_of_one(
    model_folder: Path, tmp_path: Path, loss_name: str, caches: bool
) -> None:
    output = str(tmp_path / "gradients.safetensors")
    run_ranks(rank_gradients, (str(model_folder), output, loss_name, caches), tmp_path, free_port())
    embedder = SentenceTransformer(str(model_folder), device="cpu").eval()
    adapters.freeze(lusifer_model(embedder), dict.fromkeys(adapters.PARTS, True))
    loss(stage(mini_batch_size=4, loss=loss_name), embedder, True)(features(embedder), None).backward()
    expected = {name: p.grad for name, p in embedder.named_parameters() if p.grad is not None}
    found = load_file(output)
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() < 1e-5 * largest, name


def test_alignment_on_two_processes_has_the_losses_and_gradient_norms_of_one(tmp_path: Path) -> None:
    encoder, llm = make_tiny_bases(tmp_path / "bases", 0)
    without_dropout(encoder)
    command = ["tiny", "--set", f"model.encoder.path={encoder}", "--set", f"model.llm.path={llm}"]
    for setting in ("max_steps=3", "logging_steps=1", "lora.encoder.dropout=0.0", "mini_batch_size=4"):
        command += ["--set", f"stages.0.{setting}"]
    rows = losses(tmp_path, [*command, "--set", "stages.1.max_steps=1"], torchrun=True)
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
