"""A run folder goes on wherever it, its data and its bases were moved, as long as their content is the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lusifer.errors import UsageError
from lusifer.io.files import write_json
from lusifer.training.folder import RunFolder
from lusifer.training.recipe.load import load_recipe, resolved_yaml
from lusifer.training.recipe.recipe import Recipe
from lusifer.training.run import inputs
from support.small_run import same, train, unfinish

RECIPE = """
name: moved
max_length: 48
model: {encoder: {path: ENCODER}, llm: {path: LLM}, output_projection: false}
stages:
  - name: align
    kind: alignment
    train: {encoder: lora}
    objectives: {reconstruction: 1, completion: 1}
    data:
      - {path: more/chinese.jsonl, language: zh}
      - {path: texts.jsonl}
      - {path: more/pairs.jsonl, role: passage_and_query}
    watch: {every: 2, parallel: parallel.jsonl}
    batch_size: 8
    mini_batch_size: 4
    max_steps: 4
    learning_rate: 1.0e-3
    save_steps: 2
"""


@pytest.fixture
def home(tmp_path: Path, bases_folder: tuple[Path, Path]) -> Path:
    """A folder with bases, data and a recipe."""
    home = tmp_path / "home"
    for backbone, base in zip(("encoder", "llm"), bases_folder, strict=True):
        shutil.copytree(base, home / "bases" / backbone)
    (home / "data" / "more").mkdir(parents=True)
    texts = [{"text": f"Sentence number {number} of a few."} for number in range(9)]
    pairs = [{"query": f"What is {number}?", "positive": [f"It is number {number}."]} for number in range(9)]
    parallel = [{"en": f"Text {n}.", "es": f"Texto {n}."} for n in range(12)]
    files = {"texts": texts, "more/chinese": texts, "more/pairs": pairs, "parallel": parallel}
    for name, rows in files.items():
        (home / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "recipe.yaml").write_text(RECIPE.replace("ENCODER", "./bases/encoder").replace("LLM", "./bases/llm"))
    return home


def recipe_of(home: Path, *more: str) -> Recipe:
    return load_recipe(home / "recipe.yaml", [f"data_root={home / 'data'}", *more])


def begun(home: Path) -> Path:
    """A run folder as a run leaves it that has learned, without the training."""
    recipe, run = recipe_of(home), home / "run"
    (run / "checkpoints" / "01-align" / "model").mkdir(parents=True)
    (run / "recipe.yaml").write_text(resolved_yaml(recipe))
    inputs.remember(RunFolder(run, recipe), recipe, inputs.fingerprints(recipe))
    return run


def resume(recipe: Recipe, run: Path) -> None:
    """What a run does before it reads anything."""
    with RunFolder.start(run, recipe, resume=True) as opened:
        inputs.remember(opened, recipe, inputs.fingerprints(recipe))


def test_a_run_that_was_moved_with_all_it_reads_goes_on(home: Path) -> None:
    begun(home)
    elsewhere = home.rename(home.parent / "elsewhere")
    resume(recipe_of(elsewhere), elsewhere / "run")
    assert str(elsewhere) in (elsewhere / "run" / "recipe.yaml").read_text()


def test_a_run_folder_that_was_renamed_goes_on(home: Path) -> None:
    resume(recipe_of(home), begun(home).rename(home / "other name"))


def test_only_the_data_or_only_a_base_may_move(home: Path) -> None:
    run = begun(home)
    (home / "data").rename(home / "corpus")
    resume(load_recipe(home / "recipe.yaml", [f"data_root={home / 'corpus'}"]), run)
    (home / "bases" / "llm").rename(home / "llm")
    resume(load_recipe(home / "recipe.yaml", [f"data_root={home / 'corpus'}", f"model.llm.path={home / 'llm'}"]), run)


def change_data(home: Path) -> None:
    with (home / "data" / "texts.jsonl").open("a") as stream:
        stream.write('{"text": "One more."}\n')


def change_base(home: Path) -> None:
    file = home / "bases" / "encoder" / "config.json"
    file.write_text(file.read_text() + "\n")


def change_parallel(home: Path) -> None:
    file = home / "data" / "parallel.jsonl"
    file.write_text(file.read_text().replace("Texto 3", "Texto tres"))


def forget(home: Path) -> None:
    (home / "run" / "inputs.json").unlink()


def forget_one(home: Path) -> None:
    file = home / "run" / "inputs.json"
    known = json.loads(file.read_text())
    write_json(file, {key: value for key, value in known.items() if key != "stages.align.data.1"})


def was_of_the_hub(home: Path) -> None:
    file = home / "run" / "inputs.json"
    write_json(file, json.loads(file.read_text()) | {"model.llm": {"commit": "0" * 40}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_data, r"stages\.align\.data\.0: texts\.jsonl has changed since"),
        (change_base, r"model\.encoder: config\.json has changed since"),
        (change_parallel, r"watch\.parallel: parallel\.jsonl has changed since"),
        (forget, r"changed in model\.encoder\.path, model\.llm\.path, stages\.align\.data\.1\.path"),
        (forget_one, r"changed in stages\.align\.data\.2\.path:"),
        (was_of_the_hub, r"changed in model\.llm\.path:"),
    ],
)
def test_what_is_not_known_to_be_the_same_is_refused(home: Path, change: Callable[[Path], None], words: str) -> None:
    begun(home)
    change(home)
    elsewhere = home.rename(home.parent / "elsewhere")
    with pytest.raises(UsageError, match=words):
        resume(recipe_of(elsewhere), elsewhere / "run")


def test_a_file_of_another_name_is_another_source(home: Path) -> None:
    """A set's draws are made of its name."""
    run = begun(home)
    (home / "data" / "texts.jsonl").rename(home / "data" / "sentences.jsonl")
    with pytest.raises(UsageError, match=r"changed in stages\.align\.data\.1\.path:"):
        resume(recipe_of(home, f"stages.align.data.1.path={home / 'data' / 'sentences.jsonl'}"), run)


@pytest.mark.slow
def test_a_moved_run_ends_with_the_weights_of_one_that_stayed(home: Path) -> None:
    whole = train(home / "recipe.yaml", home / "run", [f"data_root={home / 'data'}"]).parent
    unfinish(whole, home / "killed", "01-align", 2)
    elsewhere = home.rename(home.parent / "elsewhere")
    killed = elsewhere / "killed"
    train(elsewhere / "recipe.yaml", killed, [f"data_root={elsewhere / 'data'}"], resume=True)
    assert same(killed, elsewhere / "run")
