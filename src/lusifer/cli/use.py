"""Commands for a trained model: doctor, info, serve, calibrate, export, push, convert."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lusifer import extras
from lusifer.cli import terminal
from lusifer.cli.models import (
    AutoDtype,
    Device,
    DtypeOption,
    Field,
    InputFormat,
    Model,
    Overwrite,
    Unscored,
    model_name,
    refuse_damaged,
    refuse_model,
    refuse_unserved,
    refuse_words,
    usable,
)
from lusifer.errors import LusiferError, ModelFolderError, Probe, UsageError
from lusifer.io.files import expand_user, refuse_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from lusifer.calibration.fit import Accepted
    from lusifer.calibration.statistics import LanguageStatistics

MANY = 200
"""Number of sentences below which `calibrate` warns that its numbers are rough."""
KEYS = "LUSIFER_API_KEYS"
LOCAL = ("127.0.0.1", "::1", "localhost")
Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL", help="Models, as for `embed`; the page shows two of them side by side."),
]


def doctor(model: Model, device: Device = None) -> None:
    """Check a model or an index. The exit status is 1 if a check fails."""
    terminal.quiet()
    probes = _index_probes(model) or _model_probes(model, device)
    for probe in probes:
        colour = typer.colors.GREEN if probe.ok else typer.colors.RED
        word = typer.style("green" if probe.ok else "red  ", fg=colour, bold=True)
        typer.echo(f"{word}  ", nl=False)
        terminal.say(f"{probe.name}: {probe.detail}")
    failed = sum(not probe.ok for probe in probes)
    if failed:
        cause = next((probe.error for probe in probes if probe.error), None)
        raise LusiferError(f"{model}: {failed} of {len(probes)} checks failed") from cause
    terminal.say(f"{model}: all {len(probes)} checks passed")


def _model_probes(model: str, device: str | None) -> list[Probe]:
    """Run the checks of a model; without torch if its folder lacks a file."""
    from lusifer.embedder.contents import COMPLETE
    from lusifer.io.weights import TRAINABLE

    try:
        refuse_damaged(model)
    except ModelFolderError as error:
        place = expand_user(model)
        if place.is_file():
            raise ModelFolderError(f"{model}: is a file; give the folder of a model or of an index") from error
        if not (place / TRAINABLE).is_file():  # a checkpoint has one more check
            return [Probe(COMPLETE, False, str(error))]
    from lusifer.embedder import doctor as checks

    return checks.examine(model, device=usable(device))


def _index_probes(folder: str) -> list[Probe]:
    """Run the checks of an index; give an empty list if the folder is not an index."""
    if not expand_user(folder).is_dir():
        return []
    from lusifer.index.table import is_table

    if not is_table(expand_user(folder)):
        return []
    from lusifer.index import doctor as checks

    return checks.examine(folder)


def info(model: Model) -> None:
    """Show the parts, sizes and settings of a model."""
    terminal.quiet()
    from lusifer.embedder.info import describe

    rows = describe(model)
    width = max(map(len, rows))
    for name, value in rows.items():
        terminal.say(f"{name:<{width}}  {value}")


def export(
    model: Model,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")],
    input: Annotated[
        str | None,
        typer.Option(help="For int8: a file, as for `embed`, of a few hundred texts like yours, to choose the scales."),
    ] = None,
    field: Field = None,
    input_format: InputFormat = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a complete copy of a model, or one in int8.

    The copy of a delta has the weights of its bases. With --input the copy is in int8: smaller, and faster with AMX.
    """
    if input is None and (field is not None or input_format is not None):
        raise UsageError("--field and --input-format need --input: add it, or leave them out")
    refuse_model(output, "--output", overwrite)
    refuse_damaged(model)
    from lusifer.serving.files import TextSource

    source = None if input is None else TextSource(input, field, input_format)
    if source is not None:
        source.check()
    terminal.quiet()
    from lusifer.embedder import folder

    if source is None:
        terminal.note_replaced(output)
        folder.export(model, output)
        terminal.note(f"{output}: written, with all weights; embed with it: `lusifer embed {output} ...`")
        return
    from lusifer.embedder import contents, golden, int8
    from lusifer.io import names

    texts = int8.sample(source.rows(), source.name)
    found = names.model(model)
    if isinstance(found, Path) and found.is_dir():
        contents.refuse_links(found)
    embedder = folder.load(model, device="cpu", dtype="float32")
    golden.demand(embedder, model)
    terminal.note_replaced(output)
    int8.export(embedder, output, texts)
    terminal.note(f"{output}: written; embed with it: `lusifer embed {output} ...`")


def push(
    model: Model,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the Hugging Face Hub: OWNER/NAME.")],
    whole: Annotated[bool, typer.Option("--whole", help="Of a delta: include the weights of its bases.")] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; by default it is private.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files in REPO.")] = False,
    incomplete_card: Annotated[
        bool, typer.Option("--incomplete-card", help="Upload although the card has no license or no scores.")
    ] = False,
) -> None:
    """Upload a model to the Hugging Face Hub, by default as private.

    The model is tested before the upload, and the uploaded files are compared with it afterwards.
    """
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
    terminal.note(
        f"{repository}: uploaded as {commit[:12]} and checked; embed with it: `lusifer embed {repository} ...`"
    )


def convert(
    published: Annotated[
        str, typer.Argument(metavar="PUBLISHED", help="The authors' checkpoint: a folder or an id on the Hub.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    compat: Annotated[
        bool, typer.Option("--compat", help="Reproduce the numbers of the authors' code, including its faults.")
    ] = False,
    encoder: Annotated[
        str | None, typer.Option(help="Folder of the encoder, instead of the one in the checkpoint.")
    ] = None,
    llm: Annotated[str | None, typer.Option(help="Folder of the LLM, instead of the one in the checkpoint.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a checkpoint of the authors' code to a model folder."""
    model_name(published)
    refuse_model(out, "OUT", overwrite)
    terminal.note_replaced(out)
    terminal.quiet()
    from lusifer.sharing import convert as conversion

    conversion.convert(published, out, compat=compat, encoder=encoder, llm=llm)
    terminal.note(f"{out}: written; check it with `lusifer doctor {out}`")


def serve(
    models: Models,
    index: Annotated[
        list[Path] | None,
        typer.Option(metavar="INDEX", help="Index of one of the models, for searches; may be repeated."),
    ] = None,
    statistics: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="File of `calibrate`, for a model without one in its folder; may be repeated."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is all addresses of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 8000,
    api_keys: Annotated[
        Path | None, typer.Option(help=f"File of API keys, one a line; or set {KEYS}, with commas between keys.")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens in a batch, with padding; by default chosen for the device.")
    ] = None,
    queue_tokens: Annotated[int, typer.Option(min=1, help="Tokens that may wait; further requests get status 429.")] = 2
    ** 18,
    texts: Annotated[int, typer.Option(min=1, help="Maximum texts of a request.")] = 8192,
    body_bytes: Annotated[int, typer.Option(min=1, help="Maximum bytes of a request.")] = 2**24,
    unscored: Unscored = "warn",
    dtype: AutoDtype = "auto",
    device: Device = None,
) -> None:
    """Serve embeddings and search over HTTP. The API is that of OpenAI, with a search page; stop with Ctrl-C."""
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        extras.need("serve", module)
    keys = _keys(api_keys)
    terminal.quiet()
    import logging

    refuse_unserved(models, index or [], statistics or [])
    from lusifer.server import connections
    from lusifer.server.errors import LogLine

    lines = logging.StreamHandler()
    lines.setFormatter(LogLine())
    logging.basicConfig(handlers=[lines], level=logging.WARNING)
    logging.getLogger("lusifer").setLevel(logging.INFO)
    with connections.listen(host, port) as found:  # before torch is imported, so that a used port is reported at once
        from lusifer.server import run

        limits = run.Limits(batch_tokens, queue_tokens, texts, body_bytes)
        more = {"device": usable(device), "dtype": dtype, "unscored": unscored}
        app = run.make(models, limits, indexes=index or [], statistics=statistics or [], keys=keys, **more)
        if not keys and host not in LOCAL:
            terminal.note(f"everyone who can reach {host} can use this server: it has no API key (--api-keys)")
        run.serve(app, found, lambda address: terminal.note(f"{', '.join(models)} at {address} (stop with Ctrl-C)"))
    terminal.note("stopped")


def calibrate(
    model: Model,
    parallel: Annotated[
        str,
        typer.Option(metavar="FILE|sample", help="Rows with a sentence by language code, or the packaged sample."),
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .safetensors file; by default in the folder of MODEL.")
    ] = None,
    documents: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            callback=model_name,
            help="Model of the index, if MODEL only embeds queries and was trained into its space.",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Name of a built-in instruction, as for `index`.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Instruction for queries, as for `index`.")] = None,
    dtype: DtypeOption = None,
    device: Device = None,
) -> None:
    """Measure each language of a model. The result is for language offsets and for comparable scores."""
    terminal.quiet()
    from lusifer.calibration import fit
    from lusifer.io import parallel_text
    from lusifer.languages import language

    refuse_words(prompt, task)
    output = _statistics_file(model, output, documents, parallel)
    text = parallel_text.read(parallel)
    codes = fit.codes(text.texts, parallel)  # reports its errors before a model is loaded
    named = ", ".join(f"{language(code).name} ({key})" for code, key in codes.items())
    terminal.note(f"{parallel}: {text.sentences:,} sentences, each in {len(codes)} languages: {named}")
    from lusifer.embedder import folder, golden
    from lusifer.index.models import describe, may_ask
    from lusifer.serving import encode

    embedder = folder.load(model, device=usable(device), dtype=dtype)
    golden.demand(embedder, model)
    made, asks, _ = describe(model, embedder, task=task, prompt=prompt, dtype=dtype)
    by, other = made, embedder
    if documents is not None:
        other = folder.load(documents, device=usable(device))
        by = describe(documents, other, task=task, prompt=prompt)[0]
        may_ask(documents, by, asks)
    terminal.note_replaced(output)

    def embed(side: object, before: str | None) -> Callable[[list[str]], Any]:
        report = encode.EmbedReport(limit=side.max_seq_length)
        return lambda texts: encode.embed_rows(side, [(parallel, each) for each in texts], report, prompt=before)

    same = other is embedder and (made.query or "") == (by.document or "")
    asked = fit.Parties(made.name, made.identity, by.identity, made.query or "", by.document or "")
    statistics, table = fit.measure(
        text, embed(embedder, made.query), None if same else embed(other, by.document), asked, parallel
    )
    statistics.write(output)
    _say_calibrated(statistics, table, output)


def _statistics_file(model: str, output: Path | None, documents: str | None, parallel: str) -> Path:
    """Give the file of the statistics, --output or a file in the model folder; refuse damage and unwritable files."""
    from lusifer.embedder.contents import LANGUAGES

    refuse_damaged(model, documents)
    if output is None:
        folder, why = expand_user(model), None
        if documents is not None:
            why = "needed with --documents, because the statistics are of two models"
        elif not folder.is_dir():
            why = f"needed, because {model} is not a folder"
        if why is not None:
            raise UsageError(f"--output: {why}: name a file, as {LANGUAGES}")
        output = folder / LANGUAGES
    refuse_output(output, (".safetensors",), [Path(parallel)])
    return output


def _say_calibrated(statistics: LanguageStatistics, table: dict[str, Accepted], output: Path) -> None:
    """Print a table of one threshold for all languages, and how precise the statistics are."""
    if table:
        terminal.say("at one threshold for all languages, on the half of the sentences that was held out:")
        terminal.say("          mean cosine     wrong accepted, %   right missed, %")
        terminal.say("language  right   wrong   cosine  calibrated  cosine  calibrated")
    for code, row in table.items():
        terminal.say(
            f"{code:<8}  {row.right:5.3f}  {row.wrong:6.3f}   {row.accepted_before:6.2f}  {row.accepted_after:10.2f}  "
            f"{row.missed_before:6.1f}  {row.missed_after:10.1f}"
        )
    error, pair = statistics.worst
    terminal.note(
        f"{statistics.sentences:,} sentences in {len(statistics.languages)} languages -> {output}; the zero of a score "
        f"is precise to {error:.2f} standard deviations of wrong pairs or better (worst: {pair})"
    )
    if statistics.sentences < MANY:
        terminal.note(
            f"fewer than {MANY} sentences are only a demonstration: take a few hundred for a threshold to rely on"
        )


def _keys(file: Path | None) -> list[str]:
    """Read the API keys from a file or the environment.

    Raises:
        UsageError: The file cannot be read, it has no key, or a key has characters that no client can send.
    """
    if file is None:
        if KEYS not in os.environ:
            return []
        where, found = KEYS, os.environ[KEYS].split(",")
    else:
        try:
            where, found = str(file), file.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            words = f"cannot be read ({error.strerror}): give a file of API keys, one a line"
            raise UsageError(f"{file}: {words}") from error
        except UnicodeDecodeError:  # its message has a byte of a key
            raise UsageError(f"{file}: not UTF-8 text: give a file of API keys, one a line") from None
    for number, key in enumerate(map(str.strip, found), 1):
        if not (key.isascii() and key.isprintable()):  # other characters cannot be in a header
            place = f"{where}: key {number}" if file is None else f"{where} line {number}"
            raise UsageError(f"{place}: an API key may only have printable ASCII characters: choose another key")
    keys = [key.strip() for key in found if key.strip()]
    if not keys:
        raise UsageError(f"{where}: has no API key: write one a line, or leave the option out")
    return keys
