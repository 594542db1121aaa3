"""`lusifer check --measure`: a few real steps, and nothing of them stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from lusifer.cli.check import describe
from lusifer.errors import UsageError
from lusifer.training.recipe.load import load_recipe
from lusifer.training.run.measure import measure

pytestmark = pytest.mark.slow


def test_steps_are_counted_without_the_first(recipe: Path) -> None:
    found = measure(load_recipe(recipe), 2)
    assert [(each.stage, len(each.seconds), len(each.processor)) for each in found] == [
        ("align", 2, 2),
        ("contrast", 2, 2),
    ]
    assert all(each.step > 0 and (each.memory is None or each.memory > 0) for each in found)
    assert found[0].step == pytest.approx(sum(found[0].seconds) / 2)


def test_output_has_both(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = describe(str(recipe), measure=1)
    assert text.count("measured here, 1 steps") == 2 and text.count("seconds a step") == 2
    assert not list(tmp_path.iterdir())


def test_nothing_is_downloaded_and_0_steps_are_refused(recipe: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.llm\.path: someone/far is not a folder on this machine"):
        measure(load_recipe(recipe, ["model.llm.path=someone/far"]), 1)
    with pytest.raises(UsageError, match="--measure 0: give 1 step or more"):
        measure(load_recipe(recipe), 0)
