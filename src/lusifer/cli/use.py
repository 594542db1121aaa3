"""Commands on a trained model: doctor, info, export, push, convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lusifer.cli import terminal
from lusifer.cli.models import Device, Field, InputFormat, Model, usable
from lusifer.errors import LusiferError, UsageError
from lusifer.io.files import refuse_unwritable


def doctor(model: Model, device: Device = None) -> None:
    """Check on the model's own weights that it is what it says; status 1 if a check fails."""
    terminal.quiet()
    from lusifer.embedder import doctor as checks

    probes = checks.examine(model, device=usable(device))
    for probe in probes:
        colour = typer.colors.GREEN if probe.ok else typer.colors.RED
        word = typer.style("green" if probe.ok else "red  ", fg=colour, bold=True)
        typer.echo(f"{word}  {probe.name}: {probe.detail}")
    failed = sum(not probe.ok for probe in probes)
    if failed:
        cause = next((probe.error for probe in probes if probe.error), None)
        raise LusiferError(f"{model}: {failed} of {len(probes)} checks failed") from cause
    typer.echo(f"{model}: all {len(probes)} checks hold")


def info(model: Model) -> None:
    """Say what a model is made of."""
    terminal.quiet()
    from lusifer.embedder.info import describe

    rows = describe(model)
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{name:<{width}}  {value}")


def export(
    model: Model,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")],
    input: Annotated[
        str | None,
        typer.Option(
            help="For int8: some hundred texts like those to embed, a file as in `embed`; they set its scales."
        ),
    ] = None,
    field: Field = None,
    input_format: InputFormat = None,
) -> None:
    """Write a copy of a model: whole, where it was a delta; with --input in int8, smaller, and faster with AMX."""
    refuse_unwritable(output, "folder", "--output", replaces="modules.json")
    terminal.quiet()
    from lusifer.embedder import folder

    if input is None:
        if field is not None or input_format is not None:
            raise UsageError("--field and --input-format say how to read --input: give it, or leave them out")
        folder.export(model, output)
        terminal.note(f"{output}: written, whole; embed with it: `lusifer embed {output} ...`")
        return
    from lusifer.embedder import int8
    from lusifer.serving.files import TextSource

    source = TextSource(input, field, input_format)
    texts = int8.sample(source.rows(), source.name)
    int8.export(folder.load(model, device="cpu", dtype="float32"), output, texts)
    terminal.note(f"{output}: written; embed with it: `lusifer embed {output} ...`")


def push(
    model: Model,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="On the hub: OWNER/NAME.")],
    whole: Annotated[bool, typer.Option("--whole", help="Of a delta: with the weights of its bases.")] = False,
    public: Annotated[bool, typer.Option("--public", help="For everyone; by default a new one is private.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files that REPO has.")] = False,
    incomplete_card: Annotated[
        bool, typer.Option("--incomplete-card", help="Go on where the card has no licence or no scores.")
    ] = False,
) -> None:
    """Upload a model to the hub, tried before and fetched back after; private unless --public."""
    terminal.quiet()
    from lusifer.sharing.push import push as upload

    commit = upload(
        model,
        repository,
        whole=whole,
        public=public,
        overwrite=overwrite,
        incomplete=incomplete_card,
        listen=terminal.note,
    )
    terminal.note(f"{repository}: uploaded as {commit[:12]}, fetched back, the same: `lusifer embed {repository} ...`")


def convert(
    published: Annotated[str, typer.Argument(metavar="PUBLISHED", help="The authors' checkpoint: folder or hub name.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    compat: Annotated[
        bool, typer.Option("--compat", help="Reproduce the published arithmetic and its oddities.")
    ] = False,
    encoder: Annotated[str | None, typer.Option(help="Encoder folder, in place of the one named there.")] = None,
    llm: Annotated[str | None, typer.Option(help="LLM folder, in place of the one named there.")] = None,
) -> None:
    """Turn a checkpoint of the authors' code into a model folder."""
    refuse_unwritable(out, "folder", "OUT", replaces="modules.json")
    terminal.quiet()
    from lusifer.sharing import convert as conversion

    conversion.convert(published, out, compat=compat, encoder=encoder, llm=llm)
    terminal.note(f"{out}: written; check it with `lusifer doctor {out}`")
