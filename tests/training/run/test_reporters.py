"""`report_to`: what is logged goes to transformers' integrations, with the name and the recipe of the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from lusifer.errors import RecipeError, UsageError
from lusifer.training.recipe.load import changed_keys, load_recipe, may_change
from support.small_run import train

pytestmark = pytest.mark.slow
TWO = ["stages.align.max_steps=2", "stages.contrast.max_steps=2"]


def test_it_gets_losses_name_and_recipe(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, dict]] = []

    class Recorder(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs) -> None:  # noqa: ANN001, ANN003
            said.append((args.run_name, args.to_sanitized_dict()))

        def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # noqa: ANN001, ANN003
            said.append((args.run_name, logs))

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Recorder)
    monkeypatch.setattr("lusifer.training.stages.trainer.get_available_reporting_integrations", lambda: ["trackio"])
    train(recipe, tmp_path / "run", [*TWO, "report_to=[trackio]"])
    assert {name for name, _ in said} == {"small-align", "small-contrast"}
    for stage in ("small-align", "small-contrast"):
        rows = [what for name, what in said if name == stage]
        assert "\nname: small" in f"\n{rows[0]['recipe']}" and rows[0]["max_steps"] == 2
        assert sum("loss" in row for row in rows[1:]) == 2


def test_a_package_that_is_missing_is_said_before_anything_is_written(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lusifer.training.stages.trainer.get_available_reporting_integrations", list)
    with pytest.raises(UsageError, match="report_to: wandb is not installed: pip install wandb"):
        train(recipe, tmp_path / "run", ["report_to=[wandb]"])
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="report_to"):
        load_recipe(recipe, ["report_to=[everything]"])


def test_a_resumed_run_may_report_elsewhere(recipe: Path, finished: Path) -> None:
    old, new = load_recipe(recipe), load_recipe(recipe, ["report_to=[mlflow]"])
    (key,) = changed_keys(old, new)
    assert may_change(key, ["align", "contrast"])
