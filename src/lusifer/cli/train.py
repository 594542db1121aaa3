"""Commands that train: check, train."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from lusifer.cli import terminal

Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of one that comes along.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe, as in stages.align.max_steps=100."),
]
VariantOption = Annotated[
    str | None, typer.Option("--variant", help="One of the recipe's variants, in place of the recipe as it stands.")
]
_LARGER_CLUSTERS = ": most clusters are smaller than a batch; number them with `--min-points` of batch_size or more"


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    for command in (check, train):
        app.command()(command)


def check(
    recipe: Recipe,
    set_: Set = None,
    variant: VariantOption = None,
    measure: Annotated[
        int | None,
        typer.Option("--measure", metavar="N", help="Train N steps of every stage on this device, and time them."),
    ] = None,
) -> None:
    """Say what a recipe would train, and what it needs, before anything is downloaded."""
    from lusifer.cli import check as report

    terminal.quiet()
    typer.echo(report.check(recipe, set_ or [], variant, measure))


def train(
    recipe: Recipe,
    output: Annotated[Path, typer.Option(help="The run folder.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    set_: Set = None,
    variant: VariantOption = None,
) -> None:
    """Train a model by a recipe, stage after stage."""
    from lusifer.training.recipe.load import load_recipe

    load_recipe(recipe, set_ or [], variant=variant)  # a misspelt key is said before torch is imported
    terminal.quiet()
    from lusifer.training.run import run

    with listener() as listen:
        model = run.train(recipe, output, overrides=set_ or [], variant=variant, resume=resume, listen=listen)
    if os.environ.get("RANK", "0") == "0":  # torchrun brings every process here
        typer.echo(f"{model}: done; check it with `lusifer doctor {model}`")


@contextmanager
def listener() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give what listens to a training run: a bar a stage on a terminal, `say` and its plain lines elsewhere."""
    if not terminal.interactive():
        yield say
        return
    with terminal.StageBar() as bar:
        words = {}  # what stands behind the numbers of the bar

        def show(event: dict[str, Any]) -> None:
            kind = event.get("event")
            if kind == "stage":
                bar.open(event["stage"], event["steps"], event.get("done", 0))
                words.clear()
            elif kind == "step":
                bar.move(event["step"])
            elif kind == "log":
                if "loss" in event:
                    words["loss"] = f"loss {event['loss']:.4g}"
                if "watch" in event:
                    words["watch"] = watched(event["watch"])
                bar.tell(", ".join(words.values()))
            else:
                bar.close()  # the stage is over, or has not begun
                say(event)

        yield show


def say(event: dict[str, Any]) -> None:
    """Print one event of a training run as a line on standard error."""
    kind = event.get("event")
    if kind == "counts":
        for part in event["parts"]:
            terminal.note(
                f"{event['stage']}: {part['part']}: {part['trainable']:,} of {part['parameters']:,} parameters train "
                f"({part['trainable_tensors']} tensors)"
            )
    elif kind == "data":
        for source in event["sources"]:
            if source["dropped"]:
                terminal.note(
                    f"{event['stage']}: {source['name']}: {source['rows']:,} rows, {source['dropped']:,} more dropped: "
                    "no negative could be found for them"
                )
            if mixed := source.get("mixed"):
                share = f"{mixed:,} of {source['steps']:,} steps mix clusters"
                mend = "" if mixed * 2 <= source["steps"] else _LARGER_CLUSTERS
                terminal.note(f"{event['stage']}: {source['name']}: {share}{mend}")
        for message in event["skipped"]:
            terminal.note(f"{event['stage']}: bad row left out: {message}")
        for source in event["left_out"]:
            why = f"its language is {source['language']}, and english_only is on"
            terminal.note(f"{event['stage']}: {source['name']}: left out: {why}")
    elif kind == "stage":
        done = f", {event['done']} done already" if event.get("done") else ""
        terminal.note(f"{event['stage']}: {event['steps']} steps{done}")
    elif kind == "log" and "loss" in event:
        numbers = ", ".join(f"{key} {event[key]:.4g}" for key in ("loss", "learning_rate", "grad_norm") if key in event)
        terminal.note(f"{event['stage']}: step {event['step']} of {event['steps']}: {numbers}")
    elif kind == "log" and "watch" in event:
        terminal.note(f"{event['stage']}: step {event['step']} of {event['steps']}: {watched(event['watch'])}")
    elif kind == "saved":
        terminal.note(f"{event['stage']}: {event['merged_layers']} adapters merged, {event['folder']} written")


def watched(row: dict[str, Any]) -> str:
    """Say one measurement of a stage that is watched."""
    unit = " %" if row["metric"] == "retrieval" else ""
    best = f" (best {row['best']:.4g}{unit} at step {row['best_step']})"
    end = "" if row["stopped"] is None else f"; no better for {row['waited']} in a row: the stage ends here"
    return f"{row['metric']} {row['value']:.4g}{unit}{best}{end}"
