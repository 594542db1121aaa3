"""Commands on a trained model: doctor, info, embed, export, push, convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lusifer.cli import terminal
from lusifer.cli.models import OWN_PROCESS, Device, DtypeOption, Model, load_to_embed, quick_imports, usable
from lusifer.errors import LusiferError, UsageError
from lusifer.io.files import refuse_output, refuse_unwritable
from lusifer.prompts import Role

Field = Annotated[str | None, typer.Option(help="Field or column of the text (JSON lines, CSV, Parquet); else text.")]
InputFormat = Annotated[
    Literal["txt", "jsonl", "csv"] | None,
    typer.Option(help="What the input is; by default by its ending, and a text a line on standard input."),
]


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


def embed(
    context: typer.Context,
    model: Model,
    input: Annotated[
        str, typer.Option(help="Texts: .txt (one a line), .jsonl, .csv (also .gz), .parquet, or - (standard input).")
    ],
    output: Annotated[Path, typer.Option(help="Vectors: .npy (float32, a row each), .parquet or .jsonl.")],
    prompt: Annotated[str | None, typer.Option(help="Instruction for queries, as in training.")] = None,
    task: Annotated[str | None, typer.Option(help="Name of a built-in instruction, in place of --prompt.")] = None,
    role: Annotated[Role | None, typer.Option(help="Which side of a search the texts are on.")] = None,
    field: Field = None,
    input_format: InputFormat = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a batch, padding included; by default what suits the device.")
    ] = None,
    on_long: Annotated[
        Literal["cut", "error"], typer.Option(help="Texts too long to read: cut and report, or refuse.")
    ] = "cut",
    dtype: DtypeOption = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the layers first: up to a minute, for long jobs.")
    ] = False,
    device: Device = None,
) -> None:
    """Turn texts into vectors, order kept; the output is written whole or not at all."""
    from lusifer.serving import files

    source = files.TextSource(input, field, input_format)
    refuse_output(output, tuple(files.WRITERS), [source.path] if input != files.STDIN else [])
    total = source.check()  # before the model is loaded: a bad last line must not cost the work on the others
    terminal.quiet()
    with quick_imports():
        from lusifer.serving import encode

        wish = (prompt, task, role)
        # A wrong wish is said before the model is loaded; whether documents have this instruction, the model knows.
        encode.choose_prompt({}, prompt, task, role if prompt is None else None)
        embedder = load_to_embed(model, device, dtype, alone=context.obj is OWN_PROCESS and not compiled)
    if slow := encode.slow_format(embedder.device, dtype):
        terminal.note(slow)
    if compiled:
        from lusifer.model.bases.backbones import compile_layers

        compile_layers(embedder)
    with terminal.progress("texts") as show:
        report = encode.embed_file(
            embedder,
            source,
            output,
            prompt=encode.choose_prompt(embedder.prompts, *wish),
            batch_tokens=batch_tokens,
            refuse_long=on_long == "error",
            progress=lambda done: show(done, total),
            count=total,
        )
    if report.cut:
        terminal.note(report.cut_line())
    texts = "text" if report.rows == 1 else "texts"
    terminal.note(f"{report.rows:,} {texts} -> {output} ({report.dimension} numbers each)")


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
