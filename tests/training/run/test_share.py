"""Variants that begin with the same stages: taken over, they leave a run the bytes that it would have alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import lusifer
from lusifer.errors import UsageError
from lusifer.io import seen
from lusifer.training.recipe.load import load_recipe
from lusifer.training.run import run, share
from support.small_run import RECIPE, recipe_of, same, train

pytestmark = pytest.mark.slow
VARIANTS = """\
variants:
  warm: {set: [stages.contrast.temperature=0.2]}
  aligned: {stages: [align]}
  prompted: {set: ["stages.contrast.data.0.instruction=Find the answer"]}
  slow: {set: [stages.align.learning_rate=0.0001]}
  seeded: {set: [seed=2]}
  longer: {set: [max_length=56]}
  whole: {set: [stages.contrast.train.llm=full, stages.contrast.lora.llm=null]}
  turned: {stages: [contrast]}
"""


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("variants") / "variants.yaml"
    # A stage without projection of its own: every variant has the same model.
    file.write_text(RECIPE.replace(", output_projection: true", "") + VARIANTS)
    return file


@pytest.fixture(scope="module")
def full(variants: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("full") / "run"
    train(variants, output)
    return output


def test_how_many_stages_are_the_same(variants: Path) -> None:
    recipe = load_recipe(variants)
    found = {name: share.same_stages(recipe, load_recipe(variants, variant=name)) for name in recipe.variant_names}
    assert found == {"full": 2, "warm": 1, "aligned": 1, "prompted": 1, "slow": 0, "seeded": 0, "longer": 0,
                     "whole": 0, "turned": 0}  # fmt: skip


@pytest.mark.parametrize("variant", ["warm", "aligned", "prompted"])
def test_it_ends_with_the_bytes_of_a_run_alone(variants: Path, full: Path, tmp_path: Path, variant: str) -> None:
    train(variants, tmp_path / "alone", variant=variant)
    recipe = load_recipe(variants, variant=variant)
    shared = share.begin(recipe, tmp_path / "shared", {"full": full, "none": tmp_path / "nowhere"})
    assert shared == share.SharedStages("full", ["align"]) == share.SharedStages.of(tmp_path / "shared")
    began: list[str] = []
    run.train(recipe, tmp_path / "shared", resume=True,
              listen=lambda event: began.append(event["stage"]) if event["event"] == "stage" else None)  # fmt: skip
    assert began == ["contrast"][: variant != "aligned"]
    one, other = tmp_path / "alone", tmp_path / "shared"
    assert same(one, other)
    for name in ("model/README.md", "model/config_sentence_transformers.json", "recipe.yaml", "inputs.json"):
        assert (one / name).read_text() == (other / name).read_text()
    steps = [[(row["stage"], row["step"], row.get("loss")) for row in map(json.loads, (each / "metrics.jsonl").open())]
             for each in (one, other)]  # fmt: skip
    assert steps[0] == steps[1]
    assert len(seen.of_model(other / "model").filters) == len(seen.of_model(one / "model").filters)
    assert lusifer.load(other / "delta", device="cpu").encode(["A river."]).shape


def test_nothing_is_taken_over_where_something_is(variants: Path, full: Path, tmp_path: Path) -> None:
    recipe = load_recipe(variants, variant="warm")
    assert share.begin(load_recipe(variants, variant="slow"), tmp_path / "slow", {"full": full}) is None
    (tmp_path / "there").mkdir()
    assert share.begin(recipe, tmp_path / "there", {"full": full}) is None and not list((tmp_path / "there").iterdir())
    half = shutil.copytree(full, tmp_path / "half")
    shutil.rmtree(half / "checkpoints" / "01-align" / "model")  # as a kill in that stage would leave it
    assert share.begin(recipe, tmp_path / "new", {"half": half}) is None and not (tmp_path / "new").exists()
    assert share.begin(recipe, tmp_path / "new", {"half": half, "full": full}).run == "full"


def test_instructions_of_another_run_are_not_taken_over(variants: Path, tmp_path: Path) -> None:
    train(variants, tmp_path / "prompted", variant="prompted")
    train(variants, tmp_path / "alone", variant="aligned")
    aligned = load_recipe(variants, variant="aligned")
    assert share.begin(aligned, tmp_path / "shared", {"prompted": tmp_path / "prompted"})
    run.train(aligned, tmp_path / "shared", resume=True)
    for result in ("model", "delta"):
        files = [tmp_path / name / result / "config_sentence_transformers.json" for name in ("alone", "shared")]
        one, other = (json.loads(file.read_text())["prompts"] for file in files)
        assert one == other and "Find the answer" not in one


def test_the_longest_row_of_stages_is_taken(variants: Path, full: Path, tmp_path: Path) -> None:
    train(variants, tmp_path / "aligned", variant="aligned")
    found = share.begin(load_recipe(variants), tmp_path / "again", {"aligned": tmp_path / "aligned", "full": full})
    assert found == share.SharedStages("full", ["align", "contrast"])
    train(variants, tmp_path / "again", resume=True)
    assert same(full, tmp_path / "again")


def test_data_that_changed_meanwhile_is_refused(tmp_path: Path, bases_folder: tuple[Path, Path]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f'{{"text": "Sentence {number} of a file."}}\n' for number in range(20)))
    recipe = tmp_path / "recipe.yaml"
    text = RECIPE.replace(", output_projection: true", "") + VARIANTS
    recipe.write_text(text.replace('{path: "sample:passages"}', "{path: rows.jsonl}"))
    train(recipe, tmp_path / "aligned", variant="aligned")
    file.write_text(file.read_text() + '{"text": "One more."}\n')
    warm = load_recipe(recipe, variant="warm")
    assert share.begin(warm, tmp_path / "warm", {"aligned": tmp_path / "aligned"})
    with pytest.raises(UsageError, match=r"stages\.align\.data\.0: rows\.jsonl has changed since"):
        run.train(warm, tmp_path / "warm", resume=True)


def test_runs_that_start_from_a_model_share_too(full: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, full / "delta")
    stage = recipe.read_text()
    second = stage[stage.index("  - name: contrast") : stage.index("model:")].replace("contrast\n", "again\n", 1)
    recipe.write_text(
        stage.replace("model:\n", second + "model:\n") + "variants: {warm: {set: [stages.again.temperature=0.2]}}\n"
    )
    train(recipe, tmp_path / "full")
    train(recipe, tmp_path / "alone", variant="warm")
    warm = load_recipe(recipe, variant="warm")
    assert share.begin(warm, tmp_path / "shared", {"full": tmp_path / "full"}).stages == ["contrast"]
    run.train(warm, tmp_path / "shared", resume=True)
    assert same(tmp_path / "alone", tmp_path / "shared")


def test_a_line_of_the_log_that_a_kill_cut_is_left_out(variants: Path, full: Path, tmp_path: Path) -> None:
    killed = shutil.copytree(full, tmp_path / "killed")
    with (killed / "metrics.jsonl").open("a") as stream:
        stream.write('{"stage": "contr')
    assert share.begin(load_recipe(variants, variant="warm"), tmp_path / "new", {"killed": killed})
    rows = [json.loads(line) for line in (tmp_path / "new" / "metrics.jsonl").open()]
    assert rows and {row["stage"] for row in rows} == {"align"}
