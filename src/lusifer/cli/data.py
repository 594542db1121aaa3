"""Commands on training data: data inspect, dedup, mine, cluster, sets, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lusifer.cli import data_models, terminal
from lusifer.cli.data_options import (
    Fields,
    Input,
    Output,
    Report,
    SkipBad,
    check_places,
    files_of,
    finish,
    opened,
    tell_bad,
)

app = typer.Typer(
    name="data", help="Look at training data, clean it, mine negatives, cluster it.", no_args_is_help=True
)


def register(parent: typer.Typer) -> None:
    """Add this file's commands to the application."""
    for command in (inspect, dedup, sets, fetch):
        app.command()(command)
    data_models.register(app)
    parent.add_typer(app)


def inspect(
    files: Input,
    max_length: Annotated[int, typer.Option(min=1, help="Tokens that the model reads, to count longer texts.")] = 512,
    seen: Annotated[Path | None, typer.Option(help="Run folder: count texts that its training has seen.")] = None,
    skip_bad: SkipBad = 0,
    field: Fields = None,
) -> None:
    """Read every row and say what is in the files; the first bad row stops it with its place and mend."""
    from lusifer.data.cleaning import overview
    from lusifer.io import seen as record

    kind, rows, bad = opened(files, skip_bad, field)
    filters = record.of_run(seen) if seen else None
    with terminal.progress("rows") as show:
        made = overview.overview(rows, kind, max_length=max_length, seen=filters, progress=show)
    tell_bad(bad)
    for line in overview.lines(made, max_length):
        typer.echo(line)


def dedup(
    files: Input,
    output: Output,
    threshold: Annotated[
        float,
        typer.Option(min=0.5, help="Jaccard likeness of 5-grams from which rows are one; 2 looks for exact ones only."),
    ] = 0.8,
    against: Annotated[
        list[Path] | None, typer.Option(help="Evaluation file or folder none of whose texts may stay; may be repeated.")
    ] = None,
    report: Report = None,
    skip_bad: SkipBad = 0,
    field: Fields = None,
) -> None:
    """Normalise Unicode, drop repeats and near repeats, and rows that stand in evaluation files."""
    from lusifer.data import writers
    from lusifer.data.cleaning import clean

    kind, rows, bad = opened(files, skip_bad, field)
    held = [file for path in against or () for file in (path.rglob("*") if path.is_dir() else [path])]
    check_places(output, report, [*files_of(files), *held])
    with terminal.progress("rows read") as show:
        kept, said = clean.dedup(rows, kind, threshold=threshold, against=against or (), progress=show)
    writers.write(output, kept, kind)
    finish(said, output, report, bad)


def sets(
    english_only: Annotated[bool, typer.Option("--english-only", help="Without those in other languages.")] = False,
) -> None:
    """List the published training sets: what each is used for, and how."""
    from lusifer.data import published

    typer.echo(published.markdown(english_only), nl=False)


def fetch(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or one that comes along.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched, and ask nobody.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key.")] = None,
) -> None:
    """Fetch a recipe's data sets into the cache and check every row, without training."""
    terminal.quiet()
    from lusifer.training.recipe.load import load_recipe
    from lusifer.training.run import inputs

    loaded = load_recipe(recipe, set_ or [])
    if dry_run:
        for line in inputs.lines(loaded):
            typer.echo(line)
        return

    def said(each: inputs.PlannedSource, rows: int, skipped: list[str]) -> None:
        typer.echo(f"{each.stage}: {each.source.name}: {rows:,} rows")
        for message in skipped:
            terminal.note(f"left out: {message}")

    inputs.fetch(loaded, said)
