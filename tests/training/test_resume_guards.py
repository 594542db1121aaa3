"""What a resumed run is held to: one process a folder, the same bases, the same data, room on the disk."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lusifer.errors import LusiferError, UsageError
from lusifer.training import inputs, recipe_io, record
from lusifer.training.run import train
from training.small_run import same, unfinish


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


def test_a_resumed_run_reads_hub_names_at_the_commits_it_began_with(recipe: Path, tmp_path: Path) -> None:
    names = ["model.encoder={path: a/encoder, revision: main}", "model.llm.path=a/llm"]
    names += ["stages.contrast.data=[{hub: a/pairs}, {path: 'sample:pairs'}]"]
    settings = recipe_io.load(recipe, names)
    assert inputs.pinned(settings, tmp_path) == settings  # nothing known yet
    inputs.remember(tmp_path, {"model a/encoder@main": "1" * 40, "model a/llm": "2" * 40, "dataset a/pairs": "3" * 40})
    inputs.remember(tmp_path, {"model a/encoder@main": "9" * 40, "model a/llm": "9" * 40, "dataset a/pairs": "9" * 40})
    pinned = inputs.pinned(settings, tmp_path)  # the branches have moved meanwhile
    assert (pinned.model.encoder.revision, pinned.model.llm.revision) == ("1" * 40, "2" * 40)
    assert [source.revision for source in pinned.stages[1].data] == ["3" * 40, None]
    assert pinned.stages[0] == settings.stages[0]
