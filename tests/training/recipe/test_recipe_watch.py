"""The keys by which a stage is watched: what is refused and where, what `lusifer check` says, several processes."""

import json
from pathlib import Path

import pytest

from lusifer.cli import train
from lusifer.cli.check import describe
from lusifer.errors import RecipeError
from lusifer.model.tiny import make_tiny_bases
from lusifer.training.recipe.load import load_recipe, resolved_yaml
from support.training import RECIPE, losses, without_dropout

FIRST = "    objectives: {distill: 1}\n"


def written(folder: Path, watch: str) -> Path:
    file = folder / "small.yaml"
    assert FIRST in RECIPE
    file.write_text(RECIPE.replace(FIRST, f"{FIRST}    watch: {watch}\n"), encoding="utf-8")
    return file


def rows(file: Path, count: int) -> Path:
    lines = [json.dumps({"en": f"Sentence {n}.", "sw": f"Sentensi {n}."}) for n in range(count)]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("watch", "words"),
    [
        ("{evry: 3}", "stages.first.watch.evry: unknown key; did you mean every?"),
        ("{patience: 0}", "stages.first.watch.patience: input should be greater than or equal to 1, found 0"),
        ("{metric: shift}", "stages.first.watch.metric: input should be 'retrieval' or 'margin', found 'shift'"),
        ("{parallel: nowhere.jsonl}", "nowhere.jsonl: no such file: correct the name"),
        ("{parallel: few.jsonl}", "few.jsonl: 10 sentences a language: 11 or more are needed"),
        ("{parallel: small.yaml}", "small.yaml: give a .jsonl or .jsonl.gz file"),
    ],
)
def test_a_wrong_watch_is_refused_where_it_is_wrong(tmp_path: Path, watch: str, words: str) -> None:
    rows(tmp_path / "few.jsonl", 10)
    file = written(tmp_path, watch)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    assert str(caught.value).startswith(f"{file} line 10: ") and words in str(caught.value)


def test_a_file_is_found_from_the_recipe_and_with_set_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    file = written(tmp_path, "{parallel: rows.jsonl}")
    beside, here = rows(tmp_path / "rows.jsonl", 11), rows(tmp_path / "here" / "rows.jsonl", 12)
    monkeypatch.chdir(tmp_path / "here")
    assert load_recipe(file).stages[0].watch.parallel == str(beside)
    typed = load_recipe(file, ["stages.first.watch.parallel=rows.jsonl"])
    assert typed.stages[0].watch.parallel == str(here)
    (tmp_path / "resolved.yaml").write_text(resolved_yaml(typed))
    assert load_recipe(tmp_path / "resolved.yaml") == typed
    assert load_recipe(file, ["stages.first.watch=null"]).stages[0].watch is None


@pytest.mark.slow
def test_check_says_what_is_watched() -> None:
    said = " ".join(describe("tiny", ["stages.contrastive.watch={every: 7, patience: 2}"]).split())
    assert said.count("watched every") == 1
    assert "watched every 7 steps and at the end (3 times in 20 steps): 392 texts, 28 sentences in 14 languages" in said
    assert "ends the stage after 2 measurements without a better retrieval" in said
    assert "ends no stage" in " ".join(describe("tiny", ["stages.alignment.watch={}"]).split())


def test_a_measurement_is_a_line_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"metric": "retrieval", "value": 40.0, "best": 41.25, "best_step": 20, "waited": 2, "stopped": None}
    event = {"event": "log", "stage": "align", "step": 40, "steps": 90}
    train.say({**event, "watch": row})
    train.say({**event, "watch": {**row, "metric": "margin", "stopped": 40}})
    first, last = capsys.readouterr().err.splitlines()
    assert first == "lusifer: align: step 40 of 90: retrieval 40 % (best 41.25 % at step 20)"
    assert last.endswith(": margin 40 (best 41.25 at step 20); no better for 2 in a row: the stage ends here")


@pytest.mark.slow
def test_two_processes_stop_at_one_step(tmp_path: Path) -> None:
    encoder, llm = make_tiny_bases(tmp_path / "bases", 0)
    without_dropout(encoder)
    command = ["tiny", "--set", f"model.encoder.path={encoder}", "--set", f"model.llm.path={llm}"]
    settings = ["max_steps=30", "lora.encoder.dropout=0.0", "mini_batch_size=4", "watch={every: 1, patience: 2}"]
    for setting in settings:
        command += ["--set", f"stages.0.{setting}"]
    losses(tmp_path, [*command, "--set", "stages.1.max_steps=1"])
    told = json.loads((tmp_path / "two" / "checkpoints" / "01-alignment" / "watch.json").read_text())
    assert 3 < told["stopped"] < 30 and told["model_step"] == told["best_step"] < told["stopped"]
    one, two = (
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])["watch"]["means"]
        for name in ("one", "two")
    )
    for name in ("shift", "anisotropy"):
        assert two[name] == pytest.approx(one[name], rel=1e-3)
