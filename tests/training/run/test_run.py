"""A run from its recipe to its model: what is written, what a resume needs, what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

import lusifer
from lusifer.errors import LusiferError, UsageError
from lusifer.io.weights import WEIGHTS, halve
from lusifer.training import checkpoints
from support.small_run import TEXTS, same, train, unfinish, weights

pytestmark = pytest.mark.slow

ONE_STEP = ["stages.align.max_steps=1", "stages.contrast.max_steps=1"]


def test_a_run_writes_what_the_design_names(finished: Path) -> None:
    assert (finished / "recipe.yaml").is_file()
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"align", "contrast"}
    assert not [path for path in (finished / "model").rglob("*") if path.suffix in (".bin", ".pkl", ".pt", ".pth")]


def test_every_checkpoint_is_a_complete_folder(finished: Path) -> None:
    for checkpoint in finished.glob("checkpoints/*/checkpoint-*"):
        assert SentenceTransformer(str(checkpoint)).encode(TEXTS).shape == (2, 48)


def test_both_stages_move_what_trains_and_nothing_else(finished: Path) -> None:
    first, second = (
        load_file(finished / "checkpoints" / stage / "model" / "model.safetensors")
        for stage in ("01-align", "02-contrast")
    )
    moved = {key.split(".")[0] for key in first if not torch.equal(first[key], second[key])}
    assert moved == {"connector", "output_projection"}  # adapters of the first stage stay what they are
    assert {key.split(".")[0] for key in second.keys() - first.keys()} == {"encoder", "llm"}
    assert all(".lora_" in key and ".stage-contrast." in key for key in second.keys() - first.keys())
    whole, base = (
        load_file(folder / "model.safetensors") for folder in (finished / "model", finished / "bases" / "llm")
    )
    assert torch.equal(whole["llm.embed_tokens.weight"], base["model.embed_tokens.weight"])
    assert not torch.equal(whole["llm.layers.0.mlp.up_proj.weight"], base["model.layers.0.mlp.up_proj.weight"])


def test_layers_are_compiled_in_the_stages_that_say_so_adapters_and_all(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        "lusifer.training.run.run.compile_layers", lambda model: seen.append(dict(model.named_parameters()))
    )
    train(recipe, tmp_path / "run", overrides=["stages.contrast.compile=true", *ONE_STEP])
    (names,) = seen
    assert any("llm" in name and "lora_A" in name for name in names)


def test_a_stage_that_cannot_be_compiled_is_refused_before_the_first_trains(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(device: torch.device) -> None:
        raise UsageError("torch cannot compile here")

    monkeypatch.setattr("lusifer.training.run.run.refuse_without_compiler", refuse)
    with pytest.raises(UsageError, match=r"stages\.contrast\.compile: torch cannot compile"):
        train(recipe, tmp_path / "run", overrides=["stages.contrast.compile=true"])
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_the_same_recipe_gives_the_same_weights(recipe: Path, finished: Path, tmp_path: Path) -> None:
    train(recipe, tmp_path / "again")
    assert same(finished, tmp_path / "again")


@pytest.mark.parametrize(("stage", "step"), [("01-align", 2), ("01-align", 4), ("02-contrast", 2), ("02-contrast", 4)])
def test_a_resumed_run_ends_with_the_same_weights(
    recipe: Path, finished: Path, tmp_path: Path, stage: str, step: int
) -> None:
    broken = unfinish(finished, tmp_path / "broken", stage, step)
    half = next((broken / "checkpoints").glob(f"{stage}/checkpoint-*")).parent / "checkpoint-3"
    half.mkdir()  # a checkpoint that the kill cut off
    (half / "model.safetensors").write_bytes(b"half")
    train(recipe, broken, resume=True)
    assert same(finished, broken)
    lines = (broken / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len((finished / "metrics.jsonl").read_text().splitlines())


def test_resuming_a_finished_run_changes_nothing(recipe: Path, finished: Path) -> None:
    before = weights(finished)
    card = finished / "model" / "README.md"
    card.write_text(card.read_text() + "My own words.\n")
    train(recipe, finished, resume=True)
    assert all(torch.equal(before[key], value) for key, value in weights(finished).items())
    assert card.read_text().endswith("My own words.\n")


def test_checkpoints_keep_the_length_of_the_model_not_that_of_their_stage(recipe: Path, tmp_path: Path) -> None:
    only = ["stages.align.max_length=16", "stages.align.max_steps=1", "stages.align.save_steps=1"]
    train(recipe, tmp_path / "run", overrides=[*only, "stages.contrast.max_steps=1"])
    (checkpoint,) = (tmp_path / "run").glob("checkpoints/01-align/checkpoint-1")
    assert SentenceTransformer(str(checkpoint)).max_seq_length == 48


def test_a_changed_recipe_is_refused(recipe: Path, finished: Path) -> None:
    with pytest.raises(UsageError, match=r"seed.*--output"):
        train(recipe, finished, overrides=["seed=2"], resume=True)
    with pytest.raises(UsageError, match=r"stages\.align\.learning_rate"):
        train(recipe, finished, overrides=["stages.align.learning_rate=0.5"], resume=True)


def test_a_folder_that_holds_a_run_is_not_overwritten(recipe: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contains a finished run, .* choose another --output"):
        train(recipe, finished)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        train(recipe, tmp_path)


def test_resume_needs_a_run(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"no run to resume: give a run folder, .* --output"):
        train(recipe, tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_more_steps_are_another_schedule_and_refused(recipe: Path, finished: Path) -> None:
    before = (finished / "recipe.yaml").read_text()
    with pytest.raises(UsageError, match=r"stages\.align\.max_steps"):
        train(recipe, finished, overrides=["stages.align.max_steps=9"], resume=True)
    assert (finished / "recipe.yaml").read_text() == before


def test_several_gpus_in_one_process_are_refused(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="torchrun"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_without_its_connector_is_refused(recipe: Path, finished: Path, tmp_path: Path) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 2)
    file = broken / "checkpoints" / "02-contrast" / "checkpoint-2" / "trainable.safetensors"
    tensors = {key: value for key, value in load_file(file).items() if not key.startswith("connector")}
    save_file(tensors, file)
    (file.parent / "checksums.json").unlink()  # which would say that the file is another one
    with pytest.raises(LusiferError, match="missing.*connector"):
        train(recipe, broken, resume=True)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch(recipe: Path, tmp_path: Path) -> None:
    bad = ["stages.align.learning_rate=1e38", "stages.align.max_grad_norm=1e38"]
    with pytest.raises(LusiferError, match="loss is nan"):
        train(recipe, tmp_path / "run", overrides=[*bad, "stages.align.save_steps=9"])
    assert load_file(tmp_path / "run" / "checkpoints" / "01-align" / "bad-batch.safetensors")["input_ids"].shape[0] == 4
    with pytest.raises(LusiferError, match="NaN or infinite at step 2, so no checkpoint"):
        train(recipe, tmp_path / "other", overrides=[*bad, "stages.align.save_steps=2"])
    assert not list((tmp_path / "other").glob("checkpoints/*/checkpoint-*/model.safetensors"))


def test_what_is_published_has_no_checksums_of_the_stage(finished: Path) -> None:
    assert (finished / "checkpoints" / "02-contrast" / "model" / "checksums.json").is_file()
    assert not [*finished.glob("model/checksums.json"), *finished.glob("delta/checksums.json")]


def test_what_trained_is_what_was_saved(finished: Path) -> None:
    folder = finished / "checkpoints" / "02-contrast" / "checkpoint-4"
    names = json.loads((folder / "trainable.json").read_text())["tensors"]
    assert sorted(load_file(folder / "trainable.safetensors")) == names
    assert {name.partition(".")[0] for name in names} == {"encoder", "connector", "llm", "output_projection"}


def test_last_checkpoint_of_nothing_is_none(tmp_path: Path) -> None:
    assert checkpoints.last_checkpoint(tmp_path) is None


def test_a_stage_that_ends_early_is_no_finished_stage(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing may call itself trained that took fewer steps than the recipe says."""
    monkeypatch.setattr(
        "lusifer.training.stages.trainer.MetricsLog.on_step_end",
        lambda self, args, state, control, **kwargs: setattr(control, "should_training_stop", state.global_step == 3),
        raising=False,
    )
    with pytest.raises(
        LusiferError, match=r"training ended at step 3 of 4, because rows ran out; the checkpoints stay"
    ):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints" / "01-align" / "model").exists()
    assert not (tmp_path / "run" / "model").exists()


def first_loss(one_stage: Path, output: Path, *overrides: str) -> float:
    train(one_stage, output, overrides=["stages.align.max_steps=1", *overrides])
    return json.loads((output / "metrics.jsonl").read_text().splitlines()[0])["loss"]


def test_what_the_encoder_does_not_get_to_read_changes_the_loss(one_stage: Path, tmp_path: Path) -> None:
    whole = first_loss(one_stage, tmp_path / "whole")
    assert first_loss(one_stage, tmp_path / "gaps", "stages.align.token_dropout=0.9") != whole


def test_the_contrast_of_distill_is_added_to_its_loss(
    one_stage: Path, minilm_like_folder: Path, tmp_path: Path
) -> None:
    llm = str(tmp_path / "llm")
    modules = [Transformer(str(minilm_like_folder)), Pooling(48)]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(llm, create_model_card=False)
    bases = [f"model.llm.path={llm}", "stages.align.objectives={distill: 1}"]
    plain = first_loss(one_stage, tmp_path / "plain", *bases)
    assert plain <= 2 < first_loss(one_stage, tmp_path / "told", *bases, "stages.align.distill_contrast=10") - 1
    with pytest.raises(UsageError, match="distill_contrast needs distill"):
        first_loss(one_stage, tmp_path / "without", "stages.align.distill_contrast=1")


def test_a_finished_model_can_have_other_number_formats_than_the_training(one_stage: Path, tmp_path: Path) -> None:
    lora = "stages.align.train.encoder=lora"
    run = tmp_path / "run"
    train(one_stage, run, overrides=["stages.align.max_steps=1", "model.dtype.frozen=bfloat16", lora])
    trained = load_file(run / "delta" / "model.safetensors")
    for name in ("model", "delta"):
        shutil.rmtree(run / name)
    formats = ["model.dtype.finished=float32", "model.dtype.added=float16"]
    given = ["stages.align.max_steps=1", "model.dtype.frozen=bfloat16", lora, *formats]
    train(one_stage, run, resume=True, overrides=given)
    found = load_file(run / "delta" / "model.safetensors")
    assert found.keys() == trained.keys() and any(".lora_A." in name for name in found)
    assert all(torch.equal(found[name], tensor.half()) for name, tensor in trained.items())
    config = json.loads((run / "delta" / "config.json").read_text())
    assert config["tower_dtypes"] == {"encoder": "float32", "llm": "float32"}
    whole, delta = (lusifer.load(run / name, device="cpu") for name in ("model", "delta"))
    assert {parameter.dtype for parameter in delta.parameters()} == {torch.float32}
    assert (whole.encode(TEXTS) == delta.encode(TEXTS)).all()
    assert (run / "delta" / "tokenizer.json").read_text().count("\n") == 0
    with pytest.raises(UsageError, match=r"the recipe changed in model\.dtype\.added: resume"):
        train(one_stage, run, resume=True, overrides=given[:-1])


def test_a_number_too_large_for_float16_stays(tmp_path: Path) -> None:
    save_file({"a": torch.tensor([1e5]), "b": torch.tensor([0.1]), "c": torch.tensor([3])}, tmp_path / WEIGHTS)
    halve(tmp_path, "copy it again")
    found = load_file(tmp_path / WEIGHTS)
    assert (found["a"], found["b"].dtype, found["c"].dtype) == (torch.tensor([1e5]), torch.float16, torch.int64)
