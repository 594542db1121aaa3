"""A run from its recipe to its model: what is written, what a resume needs, what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from lusifer.errors import LusiferError, UsageError
from lusifer.training import recipe_io, record
from lusifer.training import run as run_module
from lusifer.training.run import train

RECIPE = """
name: small
seed: 1
max_length: 32
model:
  encoder: {path: "tiny:encoder"}
  llm: {path: "tiny:llm"}
stages:
  - name: align
    kind: alignment
    train: {encoder: lora, connector: true}
    objectives: {reconstruction: 1, completion: 1}
    data: [{path: "sample:passages"}, {path: "sample:pairs", role: passage_and_query}]
    batch_size: 8
    mini_batch_size: 4
    max_steps: 4
    learning_rate: 1.0e-3
    save_steps: 2
    logging_steps: 1
  - name: contrast
    kind: contrastive
    train: {encoder: lora, llm: lora, connector: true, output_projection: true}
    data: [{path: "sample:pairs"}]
    hard_negatives: 1
    batch_size: 8
    mini_batch_size: 4
    max_steps: 4
    learning_rate: 1.0e-3
    save_steps: 2
    logging_steps: 1
"""
TEXTS = ["The river rises in spring.", "Сколько воды нужно человеку каждый день?"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "small.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, both stages done."""
    output = tmp_path_factory.mktemp("run") / "run"
    train(recipe, output)
    return output


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def unfinish(run: Path, copy: Path, stage: str, step: int) -> Path:
    """A copy of `run` as a kill right after checkpoint `step` of `stage` would leave it."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "model")
    stages = sorted((copy / "checkpoints").iterdir())
    begun = [folder for folder in stages if folder.name >= stage]
    shutil.rmtree(begun[0] / "model")
    for folder in begun[0].glob("checkpoint-*"):
        if int(folder.name.rpartition("-")[2]) > step:
            shutil.rmtree(folder)
    for folder in begun[1:]:
        shutil.rmtree(folder)
    return copy


def test_a_run_writes_what_the_design_names(finished: Path) -> None:
    assert (finished / "recipe.yaml").is_file()
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"align", "contrast"}
    assert not [path for path in (finished / "model").rglob("*") if path.suffix in (".bin", ".pkl", ".pt", ".pth")]


def test_every_checkpoint_is_a_complete_folder(finished: Path) -> None:
    for checkpoint in finished.glob("checkpoints/*/checkpoint-*"):
        assert SentenceTransformer(str(checkpoint)).encode(TEXTS).shape == (2, 48)


def test_both_stages_move_what_trains_and_nothing_else(finished: Path) -> None:
    first, second = (load_file(finished / "checkpoints" / s / "model" / "model.safetensors") for s in ("01-align", "02-contrast"))
    moved = {key.split(".")[0] for key in first if not torch.equal(first[key], second[key])}
    assert moved == {"encoder", "connector", "llm", "output_projection"}
    assert torch.equal(first["llm.embed_tokens.weight"], second["llm.embed_tokens.weight"])


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
    train(recipe, finished, resume=True)
    assert all(torch.equal(before[key], value) for key, value in weights(finished).items())


def test_a_changed_recipe_is_refused(recipe: Path, finished: Path) -> None:
    with pytest.raises(UsageError, match=r"seed.*--output"):
        train(recipe, finished, overrides=["seed=2"], resume=True)
    with pytest.raises(UsageError, match=r"stages\.align\.learning_rate"):
        train(recipe, finished, overrides=["stages.align.learning_rate=0.5"], resume=True)


def test_a_folder_that_holds_a_run_is_not_overwritten(recipe: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--resume"):
        train(recipe, finished)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        train(recipe, tmp_path)


def test_resume_needs_a_run(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"no run to resume; name a run folder .* --output"):
        train(recipe, tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_more_steps_are_another_schedule_and_refused(recipe: Path, finished: Path) -> None:
    before = (finished / "recipe.yaml").read_text()
    with pytest.raises(UsageError, match=r"stages\.align\.max_steps"):
        train(recipe, finished, overrides=["stages.align.max_steps=9"], resume=True)
    assert (finished / "recipe.yaml").read_text() == before


def test_too_wide_matryoshka_is_refused_before_anything_trains(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"stages\.contrast\.matryoshka_dims: 64 .* 48"):
        train(recipe, tmp_path / "run", overrides=["stages.contrast.matryoshka_dims=[64]"])
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_several_gpus_in_one_process_are_refused(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UsageError, match="torchrun"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_without_its_connector_is_refused(recipe: Path, finished: Path, tmp_path: Path) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 2)
    file = broken / "checkpoints" / "02-contrast" / "checkpoint-2" / "trainable.safetensors"
    tensors = {key: value for key, value in load_file(file).items() if not key.startswith("connector")}
    save_file(tensors, file)
    with pytest.raises(LusiferError, match="missing.*connector"):
        train(recipe, broken, resume=True)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch(recipe: Path, tmp_path: Path) -> None:
    bad = ["stages.align.learning_rate=1e38", "stages.align.max_grad_norm=1e38"]
    with pytest.raises(LusiferError, match="loss is nan"):
        train(recipe, tmp_path / "run", overrides=[*bad, "stages.align.save_steps=9"])
    assert load_file(tmp_path / "run" / "checkpoints" / "01-align" / "bad-batch.safetensors")["input_ids"].shape[0] == 4
    with pytest.raises(LusiferError, match="not finite at step 2, so no checkpoint"):
        train(recipe, tmp_path / "other", overrides=[*bad, "stages.align.save_steps=2"])
    assert not list((tmp_path / "other").glob("checkpoints/*/checkpoint-*/model.safetensors"))


def test_what_trained_is_what_was_saved(finished: Path) -> None:
    folder = finished / "checkpoints" / "02-contrast" / "checkpoint-4"
    counts = json.loads((folder / "trainable.json").read_text())
    assert sorted(load_file(folder / "trainable.safetensors")) == counts["tensors"]
    assert all(counts["parts"][part] > 0 for part in ("encoder", "connector", "llm", "output_projection"))


def test_last_checkpoint_of_nothing_is_none(tmp_path: Path) -> None:
    assert record.last_checkpoint(tmp_path) is None


@pytest.fixture(scope="module")
def half(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, with bases in bfloat16 and another attention kernel."""
    output = tmp_path_factory.mktemp("half") / "run"
    train(recipe, output, overrides=HALF)
    return output


HALF = ["model.dtype.frozen=bfloat16", "model.attn_implementation=eager"]


def test_bfloat16_bases_train_and_what_was_learned_is_kept(half: Path) -> None:
    first, second = (
        load_file(half / "checkpoints" / name / "model" / "model.safetensors") for name in ("01-align", "02-contrast")
    )
    assert first["encoder.embeddings.word_embeddings.weight"].dtype == torch.float32  # adapters were merged into it
    assert first["llm.layers.0.mlp.up_proj.weight"].dtype == torch.bfloat16  # frozen so far
    assert {tensor.dtype for tensor in second.values()} == {torch.float32}
    base, learned = (tensors["llm.layers.0.mlp.up_proj.weight"].float() for tensors in (first, second))
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
    prepare = run_module._prepare

    def look(model: torch.nn.Module, stage: object) -> None:
        found.extend((model.encoder.config._attn_implementation, model.llm.config._attn_implementation))
        prepare(model, stage)

    monkeypatch.setattr(run_module, "_prepare", look)
    steps = ["stages.align.max_steps=1", "stages.contrast.max_steps=1"]
    train(recipe, tmp_path / "run", overrides=[*steps, "model.attn_implementation=eager"])
    assert found == ["eager"] * 4


def test_a_tower_that_trains_whole_is_never_rounded(recipe: Path, tmp_path: Path) -> None:
    whole = ["stages.align.train.encoder=full", "stages.align.max_steps=1", "stages.align.learning_rate=1e-7"]
    short = [*whole, "stages.contrast.max_steps=1", "model.dtype.frozen=bfloat16"]
    train(recipe, tmp_path / "run", overrides=short)
    base = load_file(tmp_path / "run" / "bases" / "encoder" / "model.safetensors")
    stage = load_file(tmp_path / "run" / "checkpoints" / "01-align" / "model" / "model.safetensors")
    key = "encoder.layer.0.intermediate.dense.weight"
    assert (stage[f"encoder.{key}"] - base[key]).abs().max() < 1e-6


def test_two_processes_cannot_train_in_one_folder(recipe: Path, finished: Path) -> None:
    settings = recipe_io.load(recipe)
    with record.RunFolder.start(finished, settings, resume=True):
        with pytest.raises(UsageError, match="another process trains in this folder"):
            train(recipe, finished, resume=True)
    train(recipe, finished, resume=True)  # the lock went with its holder


def test_a_base_that_changed_is_refused(recipe: Path, bases_folder: tuple[Path, Path], tmp_path: Path) -> None:
    llm = shutil.copytree(bases_folder[1], tmp_path / "llm")
    settings = [f"model.llm.path={llm}", "stages.align.max_steps=1", "stages.contrast.max_steps=1"]
    train(recipe, tmp_path / "run", overrides=settings)
    base = load_file(llm / "model.safetensors")
    save_file({key: tensor + 1 for key, tensor in base.items()}, llm / "model.safetensors")
    with pytest.raises(UsageError, match=r"llm.model\.safetensors: changed since this run began.*--output"):
        train(recipe, tmp_path / "run", overrides=settings, resume=True)


def test_data_that_changed_is_refused(recipe: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"Sentence number {n} of a few."}) + "\n" for n in range(9)))
    setting = [f"stages.align.data=[{{path: '{rows}'}}]", "stages.align.objectives={reconstruction: 1}"]
    setting += ["stages.align.max_steps=2", "stages.contrast.max_steps=2"]
    train(recipe, tmp_path / "run", overrides=setting)
    train(recipe, tmp_path / "run", overrides=setting, resume=True)
    rows.write_text(rows.read_text().replace("number 3", "number 33"))
    with pytest.raises(UsageError, match=r"rows\.jsonl: changed since this run began"):
        train(recipe, tmp_path / "run", overrides=setting, resume=True)


def test_checkpoints_that_will_be_replaced_count_as_room(
    recipe: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 4)
    there = sum(file.stat().st_size for file in broken.glob("checkpoints/02-contrast/checkpoint-*/**/*"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=there))
    train(recipe, broken, resume=True)  # as much again as is there would be too little for a new run
    assert same(finished, broken)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(LusiferError, match="keep_checkpoints"):
        train(recipe, tmp_path / "new")
