"""Bases in bfloat16, and the attention kernel of the recipe: what is learned is kept, in every stage."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

import lusifer
from lusifer.embedder.assemble import lusifer_model
from lusifer.training.run import run as run_module
from support.small_run import TEXTS, same, train, unfinish

pytestmark = pytest.mark.slow

HALF = ["model.dtype.frozen=bfloat16", "model.attn_implementation=eager"]


@pytest.fixture(scope="module")
def half(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, with bases in bfloat16 and another attention kernel."""
    output = tmp_path_factory.mktemp("half") / "run"
    train(recipe, output, overrides=HALF)
    return output


def test_bfloat16_bases_train_and_what_was_learned_is_kept(half: Path) -> None:
    between, whole = half / "checkpoints" / "01-align" / "model", load_file(half / "model" / "model.safetensors")
    first = lusifer_model(lusifer.load(between, device="cpu")).state_dict()
    assert first["encoder.embeddings.word_embeddings.weight"].dtype == torch.float32  # adapters were merged into it
    assert first["llm.layers.0.mlp.up_proj.weight"].dtype == torch.bfloat16  # frozen so far
    assert {tensor.dtype for tensor in whole.values()} == {torch.float32}
    base, learned = (tensors["llm.layers.0.mlp.up_proj.weight"].float() for tensors in (first, whole))
    assert ((learned - base) != 0).float().mean() > 0.99  # small steps are not rounded away
    loaded = SentenceTransformer(str(half / "model"), device="cpu")
    assert torch.isfinite(loaded.encode(TEXTS, convert_to_tensor=True)).all()


@pytest.mark.parametrize(("stage", "step"), [("01-align", 2), ("02-contrast", 2)])
def test_a_resumed_run_in_half_precision_ends_with_the_same_weights(
    recipe: Path, half: Path, tmp_path: Path, stage: str, step: int
) -> None:
    broken = unfinish(half, tmp_path / "broken", stage, step)
    train(recipe, broken, overrides=HALF, resume=True)
    assert same(half, broken)


def test_the_attention_kernel_of_the_recipe_serves_every_stage(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    prepare = run_module.prepare

    def look(model: torch.nn.Module, stage: object) -> None:
        found.extend((model.encoder.config._attn_implementation, model.llm.config._attn_implementation))
        prepare(model, stage)

    monkeypatch.setattr(run_module, "prepare", look)
    steps = ["stages.align.max_steps=1", "stages.contrast.max_steps=1"]
    train(recipe, tmp_path / "run", overrides=[*steps, "model.attn_implementation=eager"])
    assert found == ["eager"] * 4


def test_a_backbone_that_trains_whole_is_never_rounded(recipe: Path, tmp_path: Path) -> None:
    whole = ["stages.align.train.encoder=full", "stages.align.max_steps=1", "stages.align.learning_rate=1e-7"]
    short = [*whole, "stages.contrast.max_steps=1", "model.dtype.frozen=bfloat16"]
    train(recipe, tmp_path / "run", overrides=short)
    base = load_file(tmp_path / "run" / "bases" / "encoder" / "model.safetensors")
    stage = load_file(tmp_path / "run" / "checkpoints" / "01-align" / "model" / "model.safetensors")
    key = "encoder.layer.0.intermediate.dense.weight"
    assert (stage[f"encoder.{key}"] - base[key]).abs().max() < 1e-6
