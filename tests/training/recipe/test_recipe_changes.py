"""What `--set` and a resume compare: keys that changed, and where paths start."""

from pathlib import Path

import pytest

from lusifer.training.recipe.document import Document, write
from lusifer.training.recipe.load import changed_keys, load_recipe, may_change
from support.training import RECIPE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_changes_are_named_and_only_those_that_do_not_teach_are_allowed(file: Path) -> None:
    old = load_recipe(file)
    assert changed_keys(old, load_recipe(file)) == []
    new = load_recipe(
        file, ["stages.first.max_steps=9", "stages.1.save_steps=7", "stages.1.learning_rate=0.1", "seed=1"]
    )
    keys = changed_keys(old, new)
    assert keys == ["seed", "stages.first.max_steps", "stages.second.learning_rate", "stages.second.save_steps"]
    assert [may_change(key, ["first", "second"]) for key in keys] == [False, False, False, True]
    assert [may_change(key, ["first"]) for key in keys] == [False, False, True, True]
    other = old.model_copy(update={"stages": old.stages[::-1]})
    assert changed_keys(old, other) == ["stages"] and not may_change("stages", [])


def test_paths_start_where_they_were_written(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the file in its folder, those of --set where it was typed; other keys move nothing."""
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    text = file.read_text()
    value = Document.parse(text, "x").value
    value["model"]["encoder"] = {"path": "./bases/encoder"}
    value["stages"][0]["data"] = [{"path": "rows.jsonl"}]
    file.write_text(write(value))

    def read(*given: str) -> tuple[str, str]:
        loaded = load_recipe(file, given, check_files=False)
        return loaded.model.encoder.path, loaded.stages[0].data[0].path

    inside = (str(file.parent / "bases" / "encoder"), str(file.parent / "rows.jsonl"))
    assert read() == read("model.encoder.revision=main", "stages.0.batch_size=64") == inside
    typed = (str(away / "mine"), str(away / "my.jsonl"))
    assert read("model.encoder.path=./mine", "stages.0.data.0.path=my.jsonl") == typed
