"""What the commands on training data share: their arguments, opening files, saying what was done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lusifer.cli import terminal
from lusifer.errors import UsageError

if TYPE_CHECKING:
    from lusifer.io.rows import BadRows

Input = Annotated[
    list[str], typer.Argument(metavar="FILE...", help=".jsonl, .csv (both also .gz), .parquet, patterns, sample:NAME.")
]
Output = Annotated[Path, typer.Option(help="File to write: .jsonl, .jsonl.gz or .parquet.")]
SkipBad = Annotated[int, typer.Option(min=0, help="Bad rows to leave out and list, at most; one more stops the work.")]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="OURS=THEIRS", help="A column's name in the file, as query=question."),
]
Report = Annotated[Path | None, typer.Option(help="Page of counts and examples; by default beside the output.")]


def files_of(names: list[str]) -> list[Path]:
    """Give the files that the words of a call stand for."""
    from lusifer.data import sources

    return [file for name in names for file in sources.files(name)]


def named(fields: list[str] | None) -> dict[str, str]:
    """Give the map of column names that --field options stand for."""
    from lusifer.data import sources

    return sources.fields(fields or ())


def opened(
    names: list[str], skip_bad: int, fields: list[str] | None, labels: bool = False
) -> tuple[str, Iterator[Any], BadRows]:
    """Give the kind of rows in some files, the rows, and where bad ones are listed; `labels`: a row needs a label."""
    from lusifer.data import sources
    from lusifer.io.rows import BadRows

    files, bad = files_of(names), BadRows(skip_bad)
    renamed = named(fields)
    kind = sources.kind(files[0], renamed)
    if left := sources.unread(files[0], kind, renamed):
        terminal.note(f"{files[0]}: columns that rows of {kind} do not have are left out: {', '.join(left)}")
    labels = labels and kind != "passages"
    return kind, (row for file in files for row in sources.read_file(file, kind, renamed, bad, labels)), bad


def tell_bad(bad: BadRows) -> None:
    """List the rows that were left out."""
    for message in bad.messages:
        terminal.note(f"left out: {message}")


def check_places(output: Path, report: Path | None, inputs: list[Path]) -> None:
    """Refuse an output or a page that cannot be written, or that would replace what is read, before the work."""
    from lusifer.data import writers
    from lusifer.io.atomic import refuse_unwritable

    writers.check_output(output, inputs)
    page = _page(output, report)
    if any(page.resolve() == file.resolve() for file in (output, *inputs)):
        raise UsageError(f"--report {page}: is the output, or is read as input: name another file")
    refuse_unwritable(page, "file", "--report")


def _page(output: Path, report: Path | None) -> Path:
    return report or output.with_name(output.name + ".report.md")


def finish(said: Any, output: Path, report: Path | None, bad: BadRows) -> None:
    """List the rows that were left out, print the counts of a report and write its page."""
    tell_bad(bad)
    page = _page(output, report)
    said.write(page)
    for line in said.lines():
        typer.echo(line)
    terminal.note(f"{output} written; examples of every count in {page}")
