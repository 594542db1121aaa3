"""`lusifer ablate`: train and score every variant of a recipe, and lay them beside each other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lusifer.cli import terminal
from lusifer.cli.measure import Data, listed
from lusifer.cli.train import Recipe, Set
from lusifer.errors import LusiferError, UsageError
from lusifer.io.atomic import refuse_unwritable

Only = Annotated[str | None, typer.Option(help="Variants to run, as in full,alignment-only; by default all.")]


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    app.command()(ablate)


def ablate(
    recipe: Recipe,
    output: Annotated[Path, typer.Option(help="Folder: a run and an evaluation for each variant, and the tables.")],
    data: Data = None,
    suite: Annotated[str, typer.Option(help="As for `lusifer evaluate`.")] = "offline",
    languages: Annotated[str | None, typer.Option(help="Codes, as in en,es; by default the 14 of the paper.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Names of tasks; by default all of the suite.")] = None,
    only: Only = None,
    set_: Set = None,
) -> None:
    """Train and score every variant of a recipe. The same call goes on where one was stopped."""
    from lusifer.training.recipe.load import load_recipe

    names = _chosen(load_recipe(recipe, check_files=False).variant_names, only)
    for name in names:  # what is wrong with the last one is said before the first one trains
        load_recipe(recipe, set_ or [], variant=name)
    refuse_unwritable(output, "folder")
    terminal.quiet()
    from lusifer.evaluation.run import evaluate as evaluation

    asked = (listed(languages, "--languages"), listed(tasks, "--tasks"))
    evaluation.check(evaluation.Options(suite, data, *asked))  # likewise
    changes = [word for change in set_ or [] for word in ("--set", change)]
    given = {"--data": data, "--suite": suite, "--languages": languages, "--tasks": tasks}
    words = [str(word) for option, value in given.items() if value is not None for word in (option, value)]
    for name in names:
        run, scores = output / name / "run", output / name / "scores"
        terminal.note(f"{name}: training")
        # A finished run is soon done with, and one of another recipe is refused.
        resume = ["--resume"] if (run / "recipe.yaml").is_file() else []
        _command(["train", recipe, "--output", str(run), "--variant", name, *changes, *resume])
        terminal.note(f"{name}: scoring")
        _command(["evaluate", str(run / "model"), "--output", str(scores), "--name", name, *words], quiet=True)
    _compare([output / name / "scores" for name in names], output)


def _chosen(known: Sequence[str], only: str | None) -> list[str]:
    """The variants that are run, in the recipe's order.

    Raises:
        UsageError: A name is unknown, or there is nothing to compare.
    """
    asked = [name.strip() for name in only.split(",") if name.strip()] if only else list(known)
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise UsageError(f"--only {unknown[0]}: no such variant: use some of {', '.join(known)}")
    if len(known) < 2:
        raise UsageError("the recipe has no variants to compare with: add `variants:` to it (docs/how-to/evaluate.md)")
    return [name for name in known if name in asked]


def _command(words: list[str], quiet: bool = False) -> None:
    """Run a command of ours in a process of its own, so that a model's memory is free before the next one."""
    done = subprocess.run(
        [sys.executable, "-m", "lusifer.cli", *words], stdout=subprocess.DEVNULL if quiet else None, check=False
    )
    if done.returncode:
        raise LusiferError(f"lusifer {' '.join(words)}: ended with status {done.returncode}; see above")


def _compare(folders: list[Path], output: Path) -> None:
    """The table, and the page with the bars."""
    from lusifer.cli.report import report
    from lusifer.evaluation.report import tables
    from lusifer.evaluation.scores import results
    from lusifer.io.atomic import write_file

    text = tables.page([results.read(folder) for folder in folders])
    typer.echo(text)
    with write_file(output / "ablation.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    terminal.note(f"{output / 'ablation.md'} written")
    report(folders, output / "ablation.html")
