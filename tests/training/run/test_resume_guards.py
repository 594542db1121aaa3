"""What a resumed run is held to: one process a folder, the same bases, the same data, room on the disk."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lusifer.errors import LusiferError, UsageError
from lusifer.training import folder
from lusifer.training.recipe.load import load_recipe
from lusifer.training.run import bases, inputs
from support.small_run import same, train, unfinish

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("stage", ["align", "contrast"])
def test_a_resumed_run_logs_each_step_once(recipe: Path, finished: Path, tmp_path: Path, stage: str) -> None:
    """Killed after the lines of steps 3 and 4 and before checkpoint 4: both steps are run again."""

    def logged(run: Path) -> list[tuple[str, int]]:
        rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        return [(row["stage"], row["step"]) for row in rows if "loss" in row]

    every = [(name, step) for name in ("align", "contrast") for step in range(1, 5)]
    assert logged(finished) == every
    broken = unfinish(finished, tmp_path / "broken", {"align": "01-align", "contrast": "02-contrast"}[stage], 2)
    lines = (broken / "metrics.jsonl").read_text().splitlines()
    kept = lines if stage == "contrast" else [line for line in lines if json.loads(line)["stage"] == "align"]
    half = '{"stage": "' + stage  # the line that the kill cut off
    (broken / "metrics.jsonl").write_text("".join(f"{line}\n" for line in kept) + half)
    assert {(stage, 3), (stage, 4)} <= {(row["stage"], row["step"]) for row in map(json.loads, kept)}
    train(recipe, broken, resume=True)
    assert logged(broken) == every


def test_two_processes_cannot_train_in_one_folder(recipe: Path, finished: Path) -> None:
    settings = bases.concrete(load_recipe(recipe))
    with folder.RunFolder.start(finished, settings, resume=True):
        with pytest.raises(UsageError, match="another process trains in this folder"):
            train(recipe, finished, resume=True)
        with pytest.raises(UsageError, match="another process trains in this folder"):
            train(recipe, finished)
        with pytest.raises(UsageError, match="another process trains in this folder"):
            folder.RunFolder(finished).refuse(finished, resume=False)
    with pytest.raises(UsageError, match="contains a finished run, with its model in model: choose"):
        folder.RunFolder(finished).refuse(finished, resume=False)
    train(recipe, finished, resume=True)  # the lock went with its holder


@pytest.fixture(scope="module")
def based(
    one_stage: Path, bases_folder: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """A run whose LLM lies in a folder of its own, and its settings."""
    root = tmp_path_factory.mktemp("based")
    llm = shutil.copytree(bases_folder[1], root / "llm")
    settings = [f"model.llm.path={llm}", "stages.align.max_steps=1"]
    train(one_stage, root / "run", overrides=settings)
    return root / "run", settings


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer_config.json"])
def test_a_base_that_changed_is_refused(one_stage: Path, based: tuple[Path, list[str]], name: str) -> None:
    run, settings = based
    file = run.parent / "llm" / name
    before = file.read_bytes()
    if name.endswith(".safetensors"):
        save_file({key: tensor + 1 for key, tensor in load_file(file).items()}, file)
    else:
        file.write_text(file.read_text() + "\n")
    with pytest.raises(UsageError, match=rf"model\.llm: {name} has changed since .*--output"):
        train(one_stage, run, overrides=settings, resume=True)
    file.write_bytes(before)


def write_rows(file: Path, first: int, text: str = "Sentence number {} of a few.") -> None:
    lines = (json.dumps({"text": text.format(number)}) for number in range(first, first + 9))
    file.write_text("".join(f"{line}\n" for line in lines))


def test_data_that_changed_came_or_went_is_refused(one_stage: Path, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    for number in range(2):
        write_rows(tmp_path / "rows" / f"{number}.jsonl", 9 * number)
    setting = [f"stages.align.data=[{{path: '{tmp_path}/rows/*.jsonl'}}]", "stages.align.max_steps=1"]
    setting += ["stages.align.objectives={reconstruction: 1}"]
    run = tmp_path / "run"
    train(one_stage, run, overrides=setting)
    run = run.rename(tmp_path / "moved")  # where it lies makes no difference
    train(one_stage, run, overrides=setting, resume=True)
    write_rows(tmp_path / "rows" / "1.jsonl", 10)
    with pytest.raises(UsageError, match=r"stages\.align\.data\.0: 1\.jsonl has changed since"):
        train(one_stage, run, overrides=setting, resume=True)
    write_rows(tmp_path / "rows" / "1.jsonl", 9)
    train(one_stage, run, overrides=setting, resume=True)
    write_rows(tmp_path / "rows" / "2.jsonl", 18)
    with pytest.raises(UsageError, match=r"2\.jsonl has changed since"):
        train(one_stage, run, overrides=setting, resume=True)


def test_a_bad_row_of_a_later_stage_shows_before_anything_trains_and_can_be_mended(
    recipe: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "pairs.jsonl"
    good = [{"query": f"Question {n}?", "positive": [f"Answer {n}."]} for n in range(60)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in [*good, {"query": "No answer?"}]))
    setting = [f"stages.contrast.data=[{{path: '{rows}'}}]", "stages.align.max_steps=1", "stages.contrast.max_steps=1"]
    with pytest.raises(LusiferError, match=r"pairs\.jsonl line 61"):
        train(recipe, tmp_path / "run", overrides=setting)
    assert not list((tmp_path / "run").glob("checkpoints/*/checkpoint-*"))
    rows.write_text("".join(json.dumps(row) + "\n" for row in good))
    train(recipe, tmp_path / "run", overrides=[*setting, "seed=2"])  # nothing was learned yet: no --resume needed
    assert (tmp_path / "run" / "model").is_dir()


def test_resume_without_a_run_starts_none(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run to resume: correct"):
        train(recipe, tmp_path / "typo", resume=True)
    assert not (tmp_path / "typo").exists()


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
    settings = load_recipe(recipe, names)
    run = folder.RunFolder(tmp_path)
    keys = ("model.encoder", "model.llm", "stages.contrast.data.0")
    assert inputs.pinned(settings, run) == settings  # nothing known yet

    def begin(commit: str) -> list[str | None]:
        inputs.remember(run, settings, {key: {"commit": commit * 40} for key in keys})
        pinned = inputs.pinned(settings, run)
        assert pinned.stages[0] == settings.stages[0]
        bases = [pinned.model.encoder.revision, pinned.model.llm.revision]
        return bases + [source.revision for source in pinned.stages[1].data]

    assert begin("1") == ["1" * 40, "1" * 40, "1" * 40, None]
    assert begin("2") == ["2" * 40, "2" * 40, "2" * 40, None]  # nothing was learned from the first
    (run.stage(1, "align") / "model").mkdir(parents=True)
    assert begin("3") == ["2" * 40, "2" * 40, "3" * 40, None]  # the data of the second stage were not read yet
    (run.stage(2, "contrast") / "model").mkdir(parents=True)
    assert begin("4") == ["2" * 40, "2" * 40, "3" * 40, None]
