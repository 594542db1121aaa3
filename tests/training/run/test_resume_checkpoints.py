"""What a resume may change, and what it refuses to read."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lusifer.errors import LusiferError, UsageError
from lusifer.training import checkpoints
from lusifer.training import folder as record
from lusifer.training.recipe.load import load_recipe
from lusifer.training.run import bases, inputs, share
from lusifer.training.stages.trainer import StageTrainer
from support.small_run import same, train, unfinish

pytestmark = pytest.mark.slow


NEEDED = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainable.safetensors", "trainer_state.json"]


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("damage", ["gone", "cut", "one byte"])
def test_of_a_damaged_checkpoint_the_one_before_is_used(
    recipe: Path, finished: Path, tmp_path: Path, name: str, damage: str
) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 4)
    stage = broken / "checkpoints" / "02-contrast"
    _damage(stage / "checkpoint-4" / name, damage)
    told = []
    assert checkpoints.last_checkpoint(stage, told.append) == stage / "checkpoint-2"
    assert told == [stage / "checkpoint-4" / name]
    assert (stage / "damaged-checkpoint-4").is_dir() and not (stage / "checkpoint-4").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "trainable.safetensors", "trainer_state.json"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_checkpoint_of_an_earlier_version_is_looked_at_without_checksums(
    finished: Path, tmp_path: Path, name: str, damage: str
) -> None:
    stage = tmp_path / "stage"
    shutil.copytree(finished / "checkpoints" / "02-contrast", stage)
    newest = stage / "checkpoint-4"
    (newest / checkpoints.CHECKSUMS).unlink()
    assert checkpoints.last_checkpoint(stage) == newest
    _damage(newest / name, damage)
    told = []
    assert checkpoints.last_checkpoint(stage, told.append) != newest
    # Without its last file it was never whole, and is no loss.
    never = name == "trainer_state.json" and damage == "gone"
    assert [file.name for file in told] == ([] if never else [name.replace("state.pth", "state*.pth")])


def test_what_is_left_of_a_checkpoint_that_was_damaged_is_kept_with_its_run(finished: Path, tmp_path: Path) -> None:
    broken = unfinish(finished, tmp_path / "broken", "01-align", 2)
    stage = broken / "checkpoints" / "01-align"
    (stage / "checkpoint-2" / "trainer_state.json").unlink()
    settings = load_recipe(broken / "recipe.yaml", check_files=False)
    for _ in range(2):  # the second time it is set aside already, and the run was killed before it wrote another one
        with record.RunFolder.start(broken, settings, resume=True) as run:
            assert run.begun(1, "align") and run.inputs.is_file()
        with pytest.raises(UsageError, match="contains a run already"), record.RunFolder.start(broken, settings, False):
            pass
        assert checkpoints.last_checkpoint(stage) is None
        assert (stage / "damaged-checkpoint-2" / "optimizer.pt").is_file()


def test_a_pickle_that_was_planted_is_named_and_the_checkpoint_before_is_used(finished: Path, tmp_path: Path) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 4)
    stage = broken / "checkpoints" / "02-contrast"
    torch.save({"state": Planted(tmp_path / "ran")}, stage / "checkpoint-4" / "optimizer.pt")
    checkpoints.seal_checkpoint(stage / "checkpoint-4")
    told = []
    assert checkpoints.last_checkpoint(stage, told.append) == stage / "checkpoint-2"
    assert told == [stage / "checkpoint-4" / "optimizer.pt"] and not (tmp_path / "ran").exists()


def test_a_resumed_run_runs_no_pickle_and_comes_to_the_same_weights(
    recipe: Path, finished: Path, tmp_path: Path
) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 4)
    stage, ran = broken / "checkpoints" / "02-contrast", tmp_path / "ran"
    for file in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "pytorch_model.bin"):
        torch.save(Planted(ran), stage / "checkpoint-4" / file)
    checkpoints.seal_checkpoint(stage / "checkpoint-4")  # as somebody would who knows of the checksums
    torch.save(Planted(ran), broken / "checkpoints" / "01-align" / "model" / "pytorch_model.bin")
    train(recipe, broken, resume=True)
    assert same(broken, finished) and not ran.exists()
    assert (stage / "damaged-checkpoint-4").is_dir()


class Planted:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def test_a_checkpoint_without_the_random_state_of_a_process_is_not_whole(finished: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    shutil.copytree(finished / "checkpoints" / "02-contrast", stage)
    newest = stage / "checkpoint-4"
    (newest / checkpoints.CHECKSUMS).unlink()  # killed before it was sealed
    for number in (0, 2):
        shutil.copy(newest / "rng_state.pth", newest / f"rng_state_{number}.pth")
    (newest / "rng_state.pth").unlink()
    told = []
    assert checkpoints.last_checkpoint(stage, told.append) == stage / "checkpoint-2"
    assert [file.name for file in told] == ["rng_state_1.pth"]


def test_the_state_by_which_a_checkpoint_counts_waits_for_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    class Library:
        def _save_rng_state(self, output_dir: str) -> None:
            done.append("own")

    class Trainer(StageTrainer, Library):
        pass

    monkeypatch.setattr(
        "lusifer.training.processes.state", lambda: SimpleNamespace(wait_for_everyone=lambda: done.append("others"))
    )
    Trainer()._save_rng_state("")  # behind it the library writes trainer_state.json and removes older checkpoints
    assert done == ["own", "others"]


def test_another_number_of_processes_is_said(recipe: Path, finished: Path, tmp_path: Path) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 2)
    newest = broken / "checkpoints" / "02-contrast" / "checkpoint-2"
    for number in (0, 1):
        shutil.copy(newest / "rng_state.pth", newest / f"rng_state_{number}.pth")
    (newest / "rng_state.pth").unlink()
    checkpoints.seal_checkpoint(newest)
    events = []
    train(recipe, broken, resume=True, listen=events.append)
    (said,) = [event for event in events if event["event"] == "processes"]
    assert (said["before"], said["now"]) == (2, 1)


def test_lines_of_the_log_that_are_damaged_are_passed_over(recipe: Path, finished: Path, tmp_path: Path) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 2)
    whole = (broken / "metrics.jsonl").read_bytes()
    (broken / "metrics.jsonl").write_bytes(b'{"x": "\xff"}\n{}\n5\n{"stage": 3, "step": 1}\n' + whole)
    run = record.RunFolder(broken)
    assert [line for line, _ in run.logged()] == whole.decode().splitlines()
    run.trim_metrics("contrast", 2)
    kept = (broken / "metrics.jsonl").read_bytes()
    assert kept in whole and len(kept) < len(whole)


def test_a_run_without_a_whole_checkpoint_trains_its_stage_anew(recipe: Path, finished: Path, tmp_path: Path) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 2)
    _damage(broken / "checkpoints" / "02-contrast" / "checkpoint-2" / "optimizer.pt", "one byte")
    events = []
    train(recipe, broken, resume=True, listen=events.append)
    (told,) = [event for event in events if event["event"] == "damaged"]
    assert told["file"].endswith("checkpoint-2/optimizer.pt") and told["kept"] == "damaged-checkpoint-2"
    assert [event["done"] for event in events if event["event"] == "stage"] == [0]
    assert same(finished, broken)


@pytest.mark.parametrize("damage", ["gone", "one byte"])
def test_a_damaged_model_of_a_stage_is_made_anew(recipe: Path, finished: Path, tmp_path: Path, damage: str) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 2)
    stage = broken / "checkpoints" / "01-align"
    _damage(stage / "model" / "model.safetensors", damage)
    events = []
    train(recipe, broken, resume=True, listen=events.append)
    assert [event["file"] for event in events if event["event"] == "damaged"] == [
        str(stage / "model/model.safetensors")
    ]
    assert same(finished, broken) and (stage / "damaged-model").is_dir()
    with pytest.raises(LusiferError, match=r"model\.safetensors: missing or damaged: resume the run of one"):
        _damage(stage / "model" / "model.safetensors", damage)
        share.begin(load_recipe(recipe), tmp_path / "other", {"one": broken})


def _damage(file: Path, how: str) -> None:
    whole = file.read_bytes()
    if how == "gone":
        file.unlink()
    elif how == "cut":
        file.write_bytes(whole[:-40])
    else:
        middle = len(whole) // 2
        file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])


def test_a_checkpoint_that_was_removed_is_trained_again(recipe: Path, finished: Path, tmp_path: Path) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 2)
    shutil.rmtree(broken / "checkpoints" / "02-contrast" / "checkpoint-2")
    train(recipe, broken, resume=True)
    assert same(finished, broken)


def test_a_copy_of_a_checkpoint_is_none(recipe: Path, finished: Path, tmp_path: Path) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 4)
    stage = broken / "checkpoints" / "02-contrast"
    shutil.copytree(stage / "checkpoint-2", stage / "checkpoint-2-copy")
    assert checkpoints.last_checkpoint(stage) == stage / "checkpoint-4"
    train(recipe, broken, resume=True)
    assert same(finished, broken) and (stage / "checkpoint-2-copy").is_dir()


def test_stages_in_another_order_are_another_run(recipe: Path, finished: Path) -> None:
    settings = bases.concrete(load_recipe(recipe))
    turned = settings.model_copy(update={"stages": settings.stages[::-1]})
    with pytest.raises(UsageError, match="the recipe changed in stages:"):
        with record.RunFolder.start(finished, turned, resume=True):
            pass


def test_a_stage_that_has_not_begun_can_be_mended(recipe: Path, finished: Path, tmp_path: Path) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 0)
    shutil.rmtree(broken / "checkpoints" / "02-contrast")
    folder = broken / "checkpoints" / "01-align" / "model" / "config_sentence_transformers.json"
    said = json.loads(folder.read_text())
    folder.write_text(json.dumps({**said, "prompts": {**said["prompts"], "Find it": "Find it\n"}}))  # before the mend
    mended = ["stages.contrast.learning_rate=0.002", "stages.contrast.data.0.instruction=Find the answer"]
    with pytest.raises(UsageError, match=r"changed in stages\.align\.learning_rate: .* stages that have not begun"):
        train(recipe, broken, overrides=[*mended, "stages.align.learning_rate=0.002"], resume=True)
    model = train(recipe, broken, overrides=mended, resume=True)
    assert not same(finished, broken)
    prompts = json.loads((model / "config_sentence_transformers.json").read_text())["prompts"]
    assert "Find the answer" in prompts and "Find it" not in prompts


def test_logging_and_saving_follow_the_recipe_of_the_resume(recipe: Path, finished: Path, tmp_path: Path) -> None:
    broken = unfinish(finished, tmp_path / "broken", "02-contrast", 2)
    more = ["stages.contrast.logging_steps=2", "stages.contrast.save_steps=1", "stages.contrast.keep_checkpoints=9"]
    train(recipe, broken, overrides=more, resume=True)
    assert same(finished, broken)
    rows = map(json.loads, (broken / "metrics.jsonl").read_text().splitlines())
    assert [row["step"] for row in rows if row["stage"] == "contrast" and "loss" in row] == [1, 2, 4]
    assert (broken / "checkpoints" / "02-contrast" / "checkpoint-3").is_dir()


def test_a_run_that_learned_nothing_leaves_nothing_to_the_next(recipe: Path, tmp_path: Path) -> None:
    bad = ["stages.align.learning_rate=1e38", "stages.align.max_grad_norm=1e38", "stages.align.save_steps=9"]
    with pytest.raises(LusiferError, match="loss is nan"):
        train(recipe, tmp_path / "run", overrides=bad)
    assert (tmp_path / "run" / "metrics.jsonl").is_file()
    renamed = ["stages.align.name=first", "stages.first.max_steps=1", "stages.contrast.max_steps=1"]
    train(recipe, tmp_path / "run", overrides=renamed)
    rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert {row["stage"] for row in rows} == {"first", "contrast"}
    assert not (tmp_path / "run" / "checkpoints" / "01-align").exists()


def test_a_recipe_of_the_users_own_makes_no_run_of_its_folder(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe.read_text())
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "thesis.bin").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and contains no run"):
        train(tmp_path / "recipe.yaml", tmp_path)
    assert (tmp_path / "recipe.yaml").read_text() == recipe.read_text()
    assert (tmp_path / "checkpoints" / "thesis.bin").is_file()


def test_hidden_files_are_no_work_of_the_users(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / ".recipe.yaml.host-1-00.yaml").write_text("name: ha")  # what a kill left of the first file written
    with record.RunFolder.start(tmp_path, load_recipe(recipe), resume=False) as run:
        assert (run.root / record.RECIPE).is_file()


def test_an_output_that_cannot_be_made_is_said_in_one_line(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"cannot be written to \(Not a directory\): choose another --output"):
        train(recipe, tmp_path / "file" / "run")


def test_files_of_one_name_in_two_folders_are_two_fingerprints(recipe: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text(json.dumps({"text": f"A sentence of {folder}."}) + "\n")
    setting = f"stages.align.data=[{{path: '{tmp_path}/*/rows.jsonl'}}]"
    found = inputs.fingerprints(load_recipe(recipe, [setting, "stages.align.objectives={reconstruction: 1}"]))
    assert sorted(found["stages.align.data.0"]) == ["a/rows.jsonl", "b/rows.jsonl"]


@pytest.mark.parametrize("text", ["[]", '{"model.llm": 3}', "{", "\udcff"])
def test_damaged_fingerprints_are_named(recipe: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / record.INPUTS).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(LusiferError, match=r"inputs\.json: damaged.*; remove it to continue without this check"):
        inputs.pinned(load_recipe(recipe), record.RunFolder(tmp_path))
