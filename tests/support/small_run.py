"""The recipe of a run of both stages in a few seconds, and copies of a run as a kill would leave them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from lusifer.training.recipe.load import load_recipe
from lusifer.training.run import run

ALIGN = """
name: small
seed: 1
max_length: 48
model:
  encoder: {path: "tiny:encoder"}
  llm: {path: "tiny:llm"}
stages:
  - name: align
    kind: alignment
    train: {encoder: lora, connector: true}
    objectives: {reconstruction: 1, completion: 1}
    data: [{path: "sample:passages"}, {path: "sample:pairs", role: passage_and_query}]
    batch_size: 8
    mini_batch_size: 4
    max_steps: 4
    learning_rate: 1.0e-3
    save_steps: 2
    logging_steps: 1
"""
CONTRAST = """\
  - name: contrast
    kind: contrastive
    train: {encoder: lora, llm: lora, connector: true, output_projection: true}
    data: [{path: "sample:pairs"}]
    hard_negatives: 1
    batch_size: 8
    mini_batch_size: 4
    max_steps: 4
    learning_rate: 1.0e-3
    save_steps: 2
    logging_steps: 1
"""
RECIPE = ALIGN + CONTRAST
TEXTS = ["The river rises in spring.", "Сколько воды нужно человеку каждый день?"]


def recipe_of(folder: Path, start: str | Path, *lines: str) -> Path:
    """Write a recipe that goes on from a model; `lines` are more keys of `model`."""
    file = folder / "more.yaml"
    stage = CONTRAST.replace("encoder: lora", "encoder: frozen").replace(", output_projection: true", "")
    model = "".join(f"  {line}\n" for line in (f"start: {start}", *lines))
    file.write_text(f"name: more\nstages:\n{stage}model:\n{model}")
    return file


def train(
    recipe: str | Path, output: Path, overrides: Sequence[str] = (), variant: str | None = None, **settings: object
) -> Path:
    """Train a recipe by its file or name."""
    return run.train(load_recipe(recipe, overrides, variant=variant), output, **settings)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def unfinish(run: Path, copy: Path, stage: str, step: int) -> Path:
    """A copy of `run` as a kill right after checkpoint `step` of `stage` would leave it."""
    shutil.copytree(run, copy)
    for result in ("model", "delta"):
        shutil.rmtree(copy / result)
    stages = sorted((copy / "checkpoints").iterdir())
    begun = [folder for folder in stages if folder.name >= stage]
    shutil.rmtree(begun[0] / "model")
    for folder in begun[0].glob("checkpoint-*"):
        if int(folder.name.rpartition("-")[2]) > step:
            shutil.rmtree(folder)
    for folder in begun[1:]:
        shutil.rmtree(folder)
    return copy
