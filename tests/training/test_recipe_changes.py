"""What `--set` and a resume compare: keys that changed, and where paths start."""

from pathlib import Path

import pytest
import yaml

from lusifer.training import recipe_io
from training.test_recipe import RECIPE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_changes_are_named_and_only_those_that_do_not_teach_are_allowed(file: Path) -> None:
    old = recipe_io.load(file)
    assert recipe_io.changed(old, recipe_io.load(file)) == []
    new = recipe_io.load(
        file, ["stages.first.max_steps=9", "stages.1.save_steps=7", "stages.1.learning_rate=0.1", "seed=1"]
    )
    keys = recipe_io.changed(old, new)
    assert keys == ["seed", "stages.first.max_steps", "stages.second.learning_rate", "stages.second.save_steps"]
    assert [recipe_io.may_change(key, ["first", "second"]) for key in keys] == [False, False, False, True]
    assert [recipe_io.may_change(key, ["first"]) for key in keys] == [False, False, True, True]
    other = old.model_copy(update={"stages": old.stages[::-1]})
    assert recipe_io.changed(old, other) == ["stages"] and not recipe_io.may_change("stages", [])


def test_paths_start_where_they_were_written(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the file in its folder, those of --set where it was typed; other keys move nothing."""
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    text = file.read_text()
    value = yaml.safe_load(text)
    value["model"]["encoder"] = {"path": "./bases/encoder"}
    value["stages"][0]["data"] = [{"path": "rows.jsonl"}]
    file.write_text(yaml.safe_dump(value))

    def read(*given: str) -> tuple[str, str]:
        loaded = recipe_io.load(file, given, check_files=False)
        return loaded.model.encoder.path, loaded.stages[0].data[0].path

    inside = (str(file.parent / "bases" / "encoder"), str(file.parent / "rows.jsonl"))
    assert read() == read("model.encoder.revision=main", "stages.0.batch_size=64") == inside
    typed = (str(away / "mine"), str(away / "my.jsonl"))
    assert read("model.encoder.path=./mine", "stages.0.data.0.path=my.jsonl") == typed
