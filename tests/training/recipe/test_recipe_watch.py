"""The keys by which a stage is watched: what is refused and where, the line of the log, several processes."""

import json
from pathlib import Path

import pytest

from lusifer.cli import train
from lusifer.errors import RecipeError
from lusifer.model.build import make_tiny_bases
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
        ("{every: 0}", "stages.first.watch.every: input should be greater than or equal to 1, found 0"),
        ("{patience: 2}", "stages.first.watch: patience: a stage is no longer ended by text in many languages"),
        ("{metric: margin}", "stages.first.watch.metric: unknown key; known here: every, parallel"),
        ("{parallel: nowhere.jsonl}", "nowhere.jsonl: no such file: correct the name"),
        ("{parallel: few.jsonl}", "few.jsonl: 10 sentences a language: 11 or more are needed"),
        ("{parallel: small.yaml}", "small.yaml: give a file of rows (.jsonl"),
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


def test_a_measurement_is_a_line_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    means = {"retrieval": 41.25, "margin": 0.1234, "shift": 0.5, "shift_share": None}
    train.say({"event": "log", "stage": "align", "step": 40, "steps": 90, "watch": {"means": means, "retrieval": {}}})
    said = capsys.readouterr().err
    assert said == "lusifer: align: step 40 of 90: retrieval 41.25 %, margin 0.1234, shift 0.5\n"


@pytest.mark.slow
def test_two_processes_are_watched_as_one(tmp_path: Path) -> None:
    encoder, llm = make_tiny_bases(tmp_path / "bases", 0)
    without_dropout(encoder)
    command = ["tiny", "--set", f"model.encoder.path={encoder}", "--set", f"model.llm.path={llm}"]
    for setting in ["max_steps=4", "lora.encoder.dropout=0.0", "mini_batch_size=4", "watch={every: 2}"]:
        command += ["--set", f"stages.0.{setting}"]
    losses(tmp_path, [*command, "--set", "stages.1.max_steps=2", "--set", "stages.1.watch={every: 1}"])
    found = {name: list(map(json.loads, (tmp_path / name / "metrics.jsonl").open())) for name in ("one", "two")}
    one, two = ([row for row in rows if "watch" in row] for rows in found.values())
    places = [(row["stage"], row["step"]) for row in one]
    assert places == [("alignment", 2), ("alignment", 4), ("contrastive", 1), ("contrastive", 2)]
    assert [(row["stage"], row["step"]) for row in two] == places
    for name in ("shift", "anisotropy"):
        assert two[0]["watch"]["means"][name] == pytest.approx(one[0]["watch"]["means"][name], rel=1e-3)
