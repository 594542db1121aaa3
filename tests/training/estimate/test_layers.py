"""Counting a few layers, and the quick way through frequent operations, give the figures of the complete model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import PreTrainedConfig

from lusifer.errors import UsageError
from lusifer.model.adapters import PartReport
from lusifer.training.estimate import memory, rehearsal
from lusifer.training.estimate.memory import Estimator, Memory
from lusifer.training.estimate.rehearsal import Kind
from lusifer.training.recipe.load import load_recipe
from support.tiny_bases import tiny_encoder_config, tiny_llm_config

pytestmark = pytest.mark.slow
CHECKPOINTING = ["stages.0.gradient_checkpointing=true"]


@pytest.fixture(autouse=True)
def no_earlier_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_RUNS", {})


def configs(encoder: str, llm: str, layers: int = 2) -> tuple[PreTrainedConfig, PreTrainedConfig]:
    made = tiny_encoder_config, tiny_llm_config
    return tuple(make(name, num_hidden_layers=layers) for make, name in zip(made, (encoder, llm), strict=True))


def figures(estimator: Estimator, kind: Kind) -> tuple[list[PartReport], Memory, float]:
    stage = estimator.recipe.stages[0]
    parts = estimator.parts(stage, kind)
    return parts, estimator.memory(stage, parts, kind), estimator.flops(stage, estimator.recipe.longest(stage))


@pytest.mark.parametrize(
    ("encoder", "llm", "variant", "changes"),
    [
        ("modernbert", "gemma3_text", "contrastive-only", CHECKPOINTING),
        ("mt5", "qwen3", "alignment-only", ["model.dtype.frozen=bfloat16"]),
        ("bert", "phi3", "alignment-only", ["stages.0.train.encoder=full", "stages.0.lora.encoder=null"]),
    ],
)
def test_few_layers_give_the_figures_of_all(encoder: str, llm: str, variant: str, changes: list[str]) -> None:
    """Parameters and FLOPs are equal; the peak of memory may be at another place of a deeper model."""
    recipe = load_recipe("tiny", changes, variant=variant, check_files=False)
    few, whole = (Estimator(recipe, *configs(encoder, llm, 5)) for _ in range(2))
    whole._equal_layers = [False, False]
    assert few._equal_layers == [True, True]
    (parts, held, flops), (all_parts, all_held, all_flops) = (figures(each, "cuda") for each in (few, whole))
    assert (parts, flops) == (all_parts, all_flops)
    assert replace(held, activations=0) == replace(all_held, activations=0)
    assert held.activations == pytest.approx(all_held.activations, rel=0.04)
    for layers in (1, 2):  # nothing to extrapolate
        assert Estimator(recipe, *configs(encoder, llm, layers))._equal_layers == [False, False]


def test_layers_that_differ_are_all_counted() -> None:
    """Adapters of the last layer only: with 1 or 2 layers the names would match nothing."""
    targets = r"stages.contrastive.lora.llm={targets: 'layers\.4\.self_attn\.q_proj'}"
    recipe = load_recipe("tiny", [targets], variant="contrastive-only", check_files=False)
    estimator = Estimator(recipe, *configs("xlm-roberta", "mistral", 5))
    assert estimator._equal_layers == [True, False]
    llm = next(part for part in estimator.parts(recipe.stages[0], "cpu") if part.part == "llm")
    assert (llm.trainable, llm.trainable_tensors) == (16 * (48 + 48), 2)
    nowhere = load_recipe("tiny", [targets.replace("4", "9")], variant="contrastive-only", check_files=False)
    with pytest.raises(UsageError, match="matches no linear layer of the llm"):
        Estimator(nowhere, *configs("xlm-roberta", "mistral", 5)).parts(nowhere.stages[0], "cpu")


@pytest.mark.parametrize(
    ("encoder", "llm", "variant", "kind"),
    [
        ("modernbert", "gemma3_text", "alignment-only", "cpu"),
        ("modernbert", "gemma3_text", "contrastive-only", "cuda"),
        ("mt5", "qwen3", "alignment-only", "cuda"),
        ("bert", "phi3", "contrastive-only", "cpu"),
    ],
)
def test_the_quick_way_counts_what_the_general_one_does(
    encoder: str, llm: str, variant: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("tiny", CHECKPOINTING, variant=variant, check_files=False)
    calls, plain = set(), rehearsal._plain
    monkeypatch.setattr(rehearsal, "_plain", lambda *words: calls.add(words[0]) or plain(*words))
    quick = figures(Estimator(recipe, *configs(encoder, llm)), kind)
    assert len(calls) > 15
    monkeypatch.setattr(rehearsal, "_PLAIN", set())
    monkeypatch.setattr(memory, "_RUNS", {})
    assert figures(Estimator(recipe, *configs(encoder, llm)), kind) == quick


def test_equal_rehearsals_of_two_recipes_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for changes in ([], ["stages.contrastive.epochs=2"], ["stages.contrastive.mini_batch_size=2"]):
        recipe = load_recipe("tiny", changes, variant="contrastive-only", check_files=False)
        estimator = Estimator(recipe, *configs("xlm-roberta", "mistral"))
        estimator.memory(recipe.stages[0], estimator.parts(recipe.stages[0], "cpu"), "cpu")
        runs.append(len(memory._RUNS))
    assert runs == [1, 1, 2]
