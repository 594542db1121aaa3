"""What each process of several is handed in each step of a recipe's contrastive stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from lusifer.training.recipe.load import load_recipe
from lusifer.training.run import bases
from lusifer.training.stages import contrastive
from lusifer.training.stages.trainer import arguments


def main(file: str, folder: str) -> None:
    """Go through the data as training does, without learning, and write the rows down as `FOLDER/RANK.json`."""
    recipe = load_recipe(file)
    stage = recipe.stages[0]
    state = PartialState(cpu=True)
    embedder = bases.build_model(recipe, torch.float32)
    rows = contrastive.examples(recipe, stage, seed=1)
    settings = arguments(recipe, stage, Path(folder), rows.steps, 1, bf16=False)
    trainer = contrastive.trainer(recipe, stage, embedder, rows, settings)
    seen: list[list[str]] = []
    kind = type(trainer.data_collator)

    class Recorded(kind):
        """The library's collator, which writes down what it is handed."""

        def __call__(self, features: list[dict[str, Any]]) -> Any:
            seen.append([row["query"] for row in features])
            return super().__call__(features)

    trainer.data_collator.__class__ = Recorded
    steps = sum(1 for _ in trainer.get_train_dataloader())
    plan = [[step.name, len(step.rows), step.cluster] for step in rows.plan]
    result = {"seen": seen, "steps": steps, "plan": plan, "reads": rows.reads()}
    Path(folder, f"{state.process_index}.json").write_text(json.dumps(result))
