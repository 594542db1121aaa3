"""A recipe is read, or one line names its file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from lusifer.training.recipe.load import load_recipe
from support.fuzzing import ODD, any_text, damaged, inputs, tried, values
from support.small_run import RECIPE

KEYS = [
    "seed", "max_length", "model.encoder.path", "model.connector", "model.connector.num_soft_tokens", "stages",
    "stages.0", "stages.align.kind", "stages.align.train", "stages.align.batch_size",
    "stages.align.learning_rate", "variants", "stages.align.data", "stages.1.data.0.path", "stages.contrast.loss",
    "stages.contrast.lora.llm.r", "model.dtype", "x", "",
]  # fmt: skip

SETTINGS = st.sampled_from([*ODD, "3", "16", "0.5", "infonce"]) | any_text(20) | values().map(str)


@inputs(0.1, 40)
@given(damaged(RECIPE.encode()))
def test_damaged_recipes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.yaml"
    file.write_bytes(content)
    with tried("recipes: bytes"):
        load_recipe(file)


@inputs(0.05, 30)
@given(st.dictionaries(st.sampled_from(["name", "seed", "model", "stages", "variants", "data_root", "x"]), values()))
def test_recipes_of_any_values_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, found: dict) -> None:
    file = tmp_path_factory.getbasetemp() / "values.yaml"
    whole = YAML(typ="safe").load(RECIPE)
    try:
        with file.open("w", encoding="utf-8") as stream:
            YAML(typ="safe").dump({**whole, **found}, stream)
    except (UnicodeError, ValueError):  # the library writes no halves of characters
        return
    with tried("recipes: values"):
        load_recipe(file)


@inputs(0.05, 60)
@given(
    st.sampled_from(KEYS) | any_text(12),
    st.sampled_from([*ODD, "3", "16", "0.5", "infonce"]) | any_text(20) | values().map(str),
)
def test_settings_are_taken_or_refused(recipe: Path, key: str, value: Any) -> None:
    with tried("recipes: --set"):
        load_recipe(recipe, [f"{key}={value}"])
