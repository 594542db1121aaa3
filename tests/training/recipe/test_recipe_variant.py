"""Variants of a recipe: stages left out and keys changed."""

from pathlib import Path

import pytest

from lusifer.errors import RecipeError
from lusifer.training.recipe.load import changed_keys, load_recipe, resolved_yaml

RECIPE = """
name: small
model:
  encoder: {path: "tiny:encoder"}
  llm: {path: "tiny:llm"}
stages:
  - name: align
    kind: alignment
    train: {}
    objectives: {reconstruction: 1}
    max_steps: 2
    learning_rate: 0.001
    data: [{path: "sample:passages"}]
  - name: contrast
    kind: contrastive
    train: {llm: lora}
    max_steps: 3
    learning_rate: 0.001
    data: [{path: mine.jsonl}]
variants:
  alignment-only: {stages: [align]}
  contrastive-only: {stages: [contrast], set: [stages.contrast.max_steps=9]}
  frozen: {set: [stages.align.train.encoder=frozen]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "mine.jsonl").write_text('{"query": "a", "positive": "b", "negative": ["c"]}\n')
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path / "r.yaml"


def test_a_variant_is_the_recipe_with_its_changes_and_a_name_of_its_own(recipe):
    names = load_recipe(recipe, check_files=False).variant_names
    assert names == [
        "full",
        "alignment-only",
        "contrastive-only",
        "frozen",
    ]
    align = load_recipe(recipe, variant="alignment-only")
    assert (align.name, [stage.name for stage in align.stages]) == ("small-alignment-only", ["align"])
    contrast = load_recipe(recipe, variant="contrastive-only")
    assert [stage.max_steps for stage in contrast.stages] == [9] and Path(contrast.stages[0].data[0].path).is_absolute()
    frozen = load_recipe(recipe, variant="frozen")
    assert frozen.stages[0].train.encoder == "frozen" and len(frozen.stages) == 2
    assert load_recipe(recipe, variant="full") == load_recipe(recipe).model_copy(update={"variants": {}})


def test_overrides_come_before_what_the_variant_sets(recipe):
    given = ["stages.contrast.max_steps=5", "stages.align.max_steps=7", "stages.contrast.temperature=0.1"]
    made = load_recipe(recipe, given, variant="contrastive-only")
    assert (made.stages[0].max_steps, made.stages[0].temperature) == (9, 0.1)
    assert load_recipe(recipe, given, variant="frozen").stages[0].max_steps == 7


def test_the_run_records_the_variant_as_a_plain_recipe(recipe, tmp_path):
    made = load_recipe(recipe, variant="contrastive-only")
    (tmp_path / "again.yaml").write_text(resolved_yaml(made))
    assert "variants" not in (tmp_path / "again.yaml").read_text()
    assert load_recipe(tmp_path / "again.yaml") == made
    # A variant more is no other training.
    assert changed_keys(load_recipe(recipe), load_recipe(recipe, variant="full")) == []


def test_errors_in_what_is_left_name_their_own_line(recipe):
    recipe.write_text(RECIPE.replace("max_steps: 3", "max_steps: many"))
    line = 1 + RECIPE.splitlines().index("    max_steps: 3")
    with pytest.raises(RecipeError, match=rf"r\.yaml:{line}|line {line}"):
        load_recipe(recipe, variant="frozen")
    (recipe.parent / "mine.jsonl").unlink()
    recipe.write_text(RECIPE)
    with pytest.raises(RecipeError, match=rf"(:|line ){line + 2}\b"):
        load_recipe(recipe, variant="contrastive-only")
    assert load_recipe(recipe, variant="alignment-only")  # it does not read that file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("alignment-only: {stages: [align]}", "alignment-only: {stages: [alig]}"), "there is no stage 'alig'"),
        (("alignment-only:", "full:"), "this name stands for the unchanged recipe"),
        (("{stages: [align]}", "{stage: [align]}"), "stage"),
        (("{stages: [align]}", "{stages: []}"), "stages"),
    ],
)
def test_a_variant_that_cannot_be_is_refused_when_the_recipe_is_read(recipe, change, message):
    recipe.write_text(RECIPE.replace(*change))
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe)


def test_unknown_variants_and_keys_are_named(recipe):
    with pytest.raises(RecipeError, match="variant 'half' is unknown: use one of full, alignment-only"):
        load_recipe(recipe, variant="half")
    recipe.write_text(RECIPE.replace("train.encoder=frozen", "train.encodre=frozen"))
    with pytest.raises(RecipeError, match="did you mean encoder"):
        load_recipe(recipe, variant="frozen")


@pytest.mark.parametrize("name", ["tiny", "bridge", "paper-mistral", "paper-llama", "mmbert-qwen3"])
def test_every_variant_of_the_recipes_that_come_along_can_be_read(name):
    names = load_recipe(name, check_files=False).variant_names
    assert len(names) >= 5
    assert len({resolved_yaml(load_recipe(name, variant=each, check_files=False)) for each in names}) == len(names)
