"""Commands that measure: evaluate."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lusifer.cli import terminal
from lusifer.cli.models import Device, Model, locate, usable
from lusifer.errors import UsageError
from lusifer.folders import refuse_unwritable


class Suite(StrEnum):
    """What is measured."""

    OFFLINE = "offline"


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    app.command()(evaluate)


def evaluate(
    model: Model,
    data: Annotated[Path, typer.Option(help="Folder with sib200-xx-train.jsonl.gz and -dev.jsonl.gz, xquad-xx.json.")],
    suite: Annotated[Suite, typer.Option(help="offline: SIB-200 and XQuAD from files.")] = (Suite.OFFLINE),
    output: Annotated[Path | None, typer.Option(help="Folder for summary.json and table.md.")] = None,
    languages: Annotated[str | None, typer.Option(help="Codes, as in en,es; by default the 14 of the paper.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap intervals.")] = 0,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Output folder of another evaluation, for the table; may be repeated.")
    ] = None,
    device: Device = None,
) -> None:
    """Score a model in every language; a language that cannot be measured is missing, never 0."""
    from lusifer import languages as known

    codes = [known.language(code).code for code in languages.split(",")] if languages else None
    if not data.is_dir():
        raise UsageError(f"{data}: no such folder; give the one with the sib200-*.jsonl.gz files")
    if output is not None:
        refuse_unwritable(output, "folder")
    terminal.quiet()
    from lusifer.evaluation import local, table

    others = [table.read(folder) for folder in compare or []]
    with terminal.progress("languages") as show:
        summary = local.evaluate(
            locate(model), data, codes, name=model, seed=seed, device=usable(device), progress=show
        )
    text = table.markdown([*others, summary])
    typer.echo(text)
    if (known := summary["seen_in_training"]) is not None:
        terminal.note(f"{known['seen']:,} of the suite's {known['of']:,} texts stand in the model's training data")
    for part, reason in summary["left_out"].items():
        terminal.note(f"{part}: left out: {reason}")
    if output is not None:
        local.write(summary, output, text)
        terminal.note(f"{output / 'summary.json'} written")
