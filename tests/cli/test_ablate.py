"""`lusifer ablate` on the toy recipe."""

import re
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from lusifer.cli import main, train
from lusifer.errors import DataError
from lusifer.training.recipe.load import load_recipe
from lusifer.training.run.share import SHARED, SharedStages

CALL = ["ablate", "tiny", "--suite", "sample", "--languages", "en,sw", "--output", "out"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> list[list[str]]:
    """Commands run in this process, and are listed."""
    monkeypatch.chdir(tmp_path)
    ran: list[list[str]] = []

    def command(words, quiet=False):
        ran.append(words)
        assert main([str(word) for word in words]) == 0

    monkeypatch.setattr(train, "_command", command)
    return ran


@pytest.mark.slow
def test_variants_are_trained_scored_and_compared_and_a_second_call_trains_nothing(here, capsys):
    small = ["--set", "stages.alignment.max_steps=2", "--set", "stages.contrastive.max_steps=2"]
    call = [*CALL, "--only", "frozen-encoder,connector-only", "--dtype", "bfloat16", *small]
    assert main(call) == 0
    assert [words[0] for words in here] == ["train", "evaluate"] * 2
    assert '"dtype": "bfloat16"' in Path("out/frozen-encoder/scores/summary.json").read_text(encoding="utf-8")
    table = Path("out/ablation.md").read_text(encoding="utf-8")
    assert "| task | connector-only | frozen-encoder |" in table and "Swahili (sw)" in table
    once = "- frozen-encoder: alignment copied from connector-only, which trained the same\n"
    assert table.endswith(f"\nStages that were trained once:\n\n{once}")
    assert not list(Path("out/frozen-encoder/run/checkpoints/01-alignment").glob("checkpoint-*"))
    assert once[2:].strip() in Path("out/ablation.html").read_text(encoding="utf-8")
    file = Path("out/frozen-encoder/run/model/model.safetensors")
    weights = file.stat().st_mtime_ns
    here.clear()
    assert main(call) == 0
    assert ["--resume" in words for words in here if words[0] == "train"] == [True, True]
    assert file.stat().st_mtime_ns == weights  # nothing was trained again
    assert Path("out/ablation.md").read_text(encoding="utf-8") == table


@pytest.mark.slow
def test_a_finished_run_of_another_recipe_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "_command", lambda words, quiet=False: main(words) and pytest.fail("refused"))
    call = [*CALL, "--only", "alignment-only", "--set"]
    assert main([*call, "stages.alignment.max_steps=2"]) == 0
    capfd.readouterr()
    with pytest.raises(pytest.fail.Exception):
        main([*call, "stages.alignment.max_steps=3"])
    assert "the recipe changed in stages.alignment.max_steps" in capfd.readouterr().err


def test_wrong_calls_are_said_before_anything_trains(here, capsys):
    assert main([*CALL, "--only", "half"]) == 2
    assert "--only half: no such variant: choose from full, alignment-only" in capsys.readouterr().err
    assert main([*CALL, "--only", ","]) == 2
    assert "--only ',': expected names with commas between them" in capsys.readouterr().err
    assert main([*CALL, "--set", "stages.alignment.max_stepz=2"]) == 2
    assert "did you mean max_steps" in capsys.readouterr().err
    for words, message in (
        (["--suite", "nope"], "--suite 'nope' is unknown"),
        (["--tasks", "nope"], "task 'nope' is not in this suite"),
        (["--languages", "xx"], "language 'xx' is unknown"),
        (["--languages", ","], "--languages ',': expected names"),
        (["--suite", "offline"], "name their folder with --data"),
    ):
        assert main([*CALL, *words]) == 2
        assert message in capsys.readouterr().err
    Path("plain.yaml").write_text(
        'model: {encoder: {path: "tiny:encoder"}, llm: {path: "tiny:llm"}}\n'
        "stages: [{name: a, kind: contrastive, train: {llm: lora}, learning_rate: 0.001, max_steps: 1, "
        'data: [{path: "sample:pairs"}]}]\n'
    )
    assert main(["ablate", "plain.yaml", "--output", "out"]) == 2
    assert "the recipe has no variants to compare" in capsys.readouterr().err
    assert here == [] and not Path("out").exists()


def test_what_the_page_needs_is_asked_for_before_anything_trains(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(CALL) == 1
    assert "lusifer[report]" in capsys.readouterr().err and here == [] and not Path("out").exists()


@pytest.mark.slow
def test_a_command_that_fails_ends_the_ablation_with_its_words(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    assert main(["train", "tiny", "--output", "file"]) == 2
    refused = capfd.readouterr().err.splitlines()[-1]
    assert refused == "lusifer: error: file: is a file; give a folder"
    # A process that says so at once, without a second of imports.
    stand_in = Path("stand-in")
    stand_in.write_text(f'#!/bin/sh\necho "$@" >&2\necho "{refused}" >&2\nexit 2\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in.resolve()))
    assert main([*CALL, "--only", "full"]) == 1
    words, *said = capfd.readouterr().err.splitlines()[-3:]
    assert words.startswith("-m lusifer.cli train tiny --output out/full/run --variant full")
    assert said[0] == refused
    assert said[1].startswith("lusifer: error: lusifer train tiny --output out/full/run") and "status 2" in said[1]


@pytest.mark.parametrize("said", ["{}", '{"run": 3, "stages": ["a"]}', '{"run": "full", "stages": "a"}', "[]"])
def test_what_says_nothing_of_shared_stages_is_damaged(said, tmp_path):
    (tmp_path / SHARED).write_text(said)
    with pytest.raises(DataError, match=r"shared\.json: damaged, .*put it back, or train the run again"):
        SharedStages.of(tmp_path)


@pytest.mark.parametrize("begun", [True, False])
def test_an_interrupted_run_says_how_to_go_on_if_it_has_begun(begun, tmp_path, monkeypatch, capsys):
    def interrupted(*_: object, listen: Any, **__: object) -> None:
        if begun:
            (tmp_path / "run" / "checkpoints" / "01-alignment" / "checkpoint-10").mkdir(parents=True)
            (tmp_path / "run" / "recipe.yaml").write_text("")
            listen({"event": "stage", "stage": "alignment", "steps": 20, "done": 0})
            listen({"event": "step", "stage": "alignment", "step": 13})
        raise KeyboardInterrupt

    monkeypatch.setattr("lusifer.training.run.run.train", interrupted)
    assert main(["train", "tiny", "--output", str(tmp_path / "run")]) == 130
    said = capsys.readouterr().err
    words = f"{tmp_path / 'run'}: stopped at step 13 of 20 of stage alignment, saved up to step 10; repeat the command "
    assert (f"{words}with --resume to continue" in said) == begun and "interrupted" in said


def test_the_example_in_the_help_of_set_changes_a_recipe():
    (example,) = re.findall(r"as in (\S+)\.$", get_args(train.SetOption)[1].help)
    assert load_recipe("tiny", [example]).stages[1].max_steps == 100


def test_where_a_run_stopped_is_said_also_before_its_first_checkpoint(tmp_path):
    assert train.stopped(tmp_path, {}) == "stopped before a step"
    at = {"stage": "alignment", "steps": 20, "step": 3}
    (tmp_path / "checkpoints" / "01-pre-alignment" / "checkpoint-10").mkdir(parents=True)
    words = "step 3 of 20 of stage alignment, before the first checkpoint of this stage, which begins again"
    assert train.stopped(tmp_path, at).endswith(words)


def test_rows_that_a_stage_never_reads_are_no_matter_in_the_packaged_sample(capsys, tmp_path):
    (tmp_path / "own.jsonl").write_text('{"text": "water"}\n')
    reads = {"reconstruction": {"rows": 510, "unread": 350, "steps": 10, "most": 1}}
    event = {"event": "data", "stage": "alignment", "sources": [], "objectives": reads, "skipped": [], "left_out": []}
    for changes, count in (([], 0), ([f"stages.alignment.data.0.path={tmp_path / 'own.jsonl'}"], 1)):
        train.follow(load_recipe("tiny", changes), {}, train.say)(event)
        assert capsys.readouterr().err.count("350 of its 510 rows are never read") == count
