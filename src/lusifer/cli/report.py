"""`lusifer report`: one page about evaluation folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lusifer import extras
from lusifer.cli import terminal
from lusifer.errors import UsageError
from lusifer.io.atomic import refuse_unwritable, write_file

Folders = Annotated[list[Path], typer.Argument(help="Output folders of `lusifer evaluate`, the one of interest first.")]


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    app.command()(report)


def report(
    folders: Folders,
    output: Annotated[Path, typer.Option(help="HTML file to write; it needs no other file and no network.")],
    markdown: Annotated[Path | None, typer.Option(help="Markdown file to write too, for a model card.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling behind intervals and tests.")] = 0,
) -> None:
    """Lay evaluations beside each other on a page: means, intervals, what is missing, what training has seen."""
    _check("--output", output, ".html")
    if markdown is not None:
        _check("--markdown", markdown, ".md")
    extras.need("report", "matplotlib")
    terminal.quiet()
    from lusifer.evaluation.report import facts as report_facts
    from lusifer.evaluation.report import markdown as report_markdown
    from lusifer.evaluation.report import page as page

    facts = report_facts.read(folders, seed)
    # Both texts are made before either is written: what fails leaves the old files as they were.
    texts = {output: page.page(facts)}
    if markdown is not None:
        texts[markdown] = report_markdown.card(facts)
    for file, text in texts.items():
        with write_file(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
        terminal.note(f"{file} written")


def _check(option: str, file: Path, suffix: str) -> None:
    """Refuse a place that cannot be written to, and a name by which an evaluation's own files could be lost."""
    if file.suffix.lower() != suffix:
        raise UsageError(f"{option} {file}: name a file that ends in {suffix}")
    refuse_unwritable(file, "file", option)
