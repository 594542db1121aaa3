"""The keys by which a stage is watched: what is refused and where, the line of the log."""

import json
from pathlib import Path

import pytest

from lusifer.cli import train
from lusifer.errors import RecipeError
from lusifer.training.recipe.load import load_recipe, resolved_yaml
from support.training import RECIPE

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
        ("{patience: 2}", "stages.first.watch: patience: watch no longer ends a stage"),
        ("{metric: margin}", "stages.first.watch.metric: unknown key; known here: every, parallel"),
        ("{parallel: nowhere.jsonl}", "nowhere.jsonl: no such file: correct the name"),
        ("{parallel: few.jsonl}", "few.jsonl: 10 sentences a language, and 11 or more are needed"),
        ("{parallel: small.yaml}", "small.yaml: unknown ending: give a file (.jsonl"),
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
