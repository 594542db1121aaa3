"""Commands on a trained model: doctor, info, serve, calibrate, export, push, convert."""

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
    Unscored,
    model_name,
    refuse_words,
    usable,
)
from lusifer.errors import LusiferError, UsageError
from lusifer.io.files import refuse_output, refuse_unwritable

if TYPE_CHECKING:
    from collections.abc import Callable

    from lusifer.calibration.fit import Accepted
    from lusifer.calibration.statistics import LanguageStatistics
    from lusifer.model.probes import Probe

MANY = 200
"""Sentences from which on `calibrate` calls its numbers good for use."""
KEYS = "LUSIFER_API_KEYS"
LOCAL = ("127.0.0.1", "::1", "localhost")
Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL", help="Models, as in `embed`; with two the page shows them side by side."),
]


def doctor(model: Model, device: Device = None) -> None:
    """Check on a model's own weights that it is what it says, or that an index is whole; status 1 if a check fails."""
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
    terminal.say(f"{model}: all {len(probes)} checks hold")


def _model_probes(model: str, device: str | None) -> list[Probe]:
    from lusifer.embedder import doctor as checks

    return checks.examine(model, device=usable(device))


def _index_probes(folder: str) -> list[Probe]:
    """The checks on an index; none where the folder is no index."""
    if not Path(folder).expanduser().is_dir():
        return []
    from lusifer.index.table import is_table

    if not is_table(Path(folder).expanduser()):
        return []
    from lusifer.index import doctor as checks

    return checks.examine(folder)


def info(model: Model) -> None:
    """Say what a model is made of."""
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
        typer.Option(
            help="For int8: some hundred texts like those to embed, a file as in `embed`; they set its scales."
        ),
    ] = None,
    field: Field = None,
    input_format: InputFormat = None,
) -> None:
    """Write a copy of a model: whole, where it was a delta; with --input in int8, smaller, and faster with AMX."""
    if input is None and (field is not None or input_format is not None):
        raise UsageError("--field and --input-format say how to read --input: give it, or leave them out")
    refuse_unwritable(output, "folder", "--output", replaces="modules.json")
    from lusifer.serving.files import TextSource

    source = None if input is None else TextSource(input, field, input_format)
    if source is not None:
        source.check()
    terminal.quiet()
    from lusifer.embedder import folder

    if source is None:
        folder.export(model, output)
        terminal.note(f"{output}: written, whole; embed with it: `lusifer embed {output} ...`")
        return
    from lusifer.embedder import contents, golden, int8
    from lusifer.io import names

    texts = int8.sample(source.rows(), source.name)
    found = names.model(model)
    if isinstance(found, Path) and found.is_dir():
        contents.refuse_links(found)
    embedder = folder.load(model, device="cpu", dtype="float32")
    golden.demand(embedder, model)
    int8.export(embedder, output, texts)
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
    model_name(published)
    refuse_unwritable(out, "folder", "OUT", replaces="modules.json")
    terminal.quiet()
    from lusifer.sharing import convert as conversion

    conversion.convert(published, out, compat=compat, encoder=encoder, llm=llm)
    terminal.note(f"{out}: written; check it with `lusifer doctor {out}`")


def serve(
    models: Models,
    index: Annotated[
        list[Path] | None,
        typer.Option(metavar="INDEX", help="Index to search, of one of the models; can be given several times."),
    ] = None,
    statistics: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="What `calibrate` wrote, for a model without such a file in its folder."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_keys: Annotated[
        Path | None, typer.Option(help=f"File of API keys, one a line; or the variable {KEYS}, with commas between.")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a batch, padding included; by default what suits the device.")
    ] = None,
    queue_tokens: Annotated[int, typer.Option(min=1, help="While so many wait, requests get status 429.")] = 2**18,
    texts: Annotated[int, typer.Option(min=1, help="Most texts of a request.")] = 8192,
    body_bytes: Annotated[int, typer.Option(min=1, help="Most bytes of a request.")] = 2**24,
    unscored: Unscored = "warn",
    dtype: AutoDtype = "auto",
    device: Device = None,
) -> None:
    """Answer over HTTP as OpenAI's embeddings do, with a page to try it; stop with Ctrl-C."""
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        extras.need("serve", module)
    keys = _keys(api_keys)
    terminal.quiet()
    import logging

    _refuse_unserved(models, index or [], statistics or [])
    from lusifer.server import connections
    from lusifer.server.errors import LogLine

    lines = logging.StreamHandler()
    lines.setFormatter(LogLine())
    logging.basicConfig(handlers=[lines], level=logging.WARNING)
    logging.getLogger("lusifer").setLevel(logging.INFO)
    with connections.listen(host, port) as found:  # before torch is imported: an address that is taken is said at once
        from lusifer.server import run

        limits = run.Limits(batch_tokens, queue_tokens, texts, body_bytes)
        more = {"device": usable(device), "dtype": dtype, "unscored": unscored}
        app = run.make(models, limits, indexes=index or [], statistics=statistics or [], keys=keys, **more)
        if not keys and host not in LOCAL:
            terminal.note(f"whoever reaches {host} can use this server: it has no API key (--api-keys)")
        run.serve(app, found, lambda address: terminal.note(f"{', '.join(models)} at {address} (stop with Ctrl-C)"))
    terminal.note("stopped")


def _refuse_unserved(models: list[str], indexes: list[Path], statistics: list[Path]) -> None:
    """Refuse names of models, folders of indexes and files of statistics that are not there."""
    from lusifer.index.table import refuse_none

    for model in models:
        model_name(model)
    for place in indexes:
        refuse_none(place.expanduser())
    for file in statistics:
        refuse_words(None, None, file)


def calibrate(
    model: Model,
    parallel: Annotated[
        str,
        typer.Option(metavar="FILE|sample", help="Rows of a sentence by language code, or the sample in the package."),
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .safetensors file; by default one in the folder of MODEL.")
    ] = None,
    documents: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            callback=model_name,
            help="What made an index that MODEL asks, trained into the space of its vectors.",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Name of a built-in instruction, as for `index`.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Instruction of questions, as for `index`.")] = None,
    dtype: DtypeOption = None,
    device: Device = None,
) -> None:
    """Measure how a model treats each language, for scores that can be compared between them and for offsets."""
    terminal.quiet()
    from lusifer.calibration import fit
    from lusifer.io import parallel_text
    from lusifer.languages import language

    refuse_words(prompt, task)
    output = _statistics_file(model, output, documents)
    refuse_output(output, (".safetensors",), [Path(parallel)])
    text = parallel_text.read(parallel)
    codes = fit.codes(text.texts, parallel)  # what is wrong with it is said before a model is loaded
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


def _statistics_file(model: str, output: Path | None, documents: str | None) -> Path:
    """Where the statistics go: into the folder of a model of the user's own, or where they say."""
    from lusifer.embedder.contents import LANGUAGES

    if output is not None:
        return output
    if documents is not None:
        raise UsageError(f"--output: what is of two models lies in the folder of none: name a file, as {LANGUAGES}")
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise UsageError(f"--output: {model} is no folder of yours: name a file, as {LANGUAGES}")
    return folder / LANGUAGES


def _say_calibrated(statistics: LanguageStatistics, table: dict[str, Accepted], output: Path) -> None:
    """What one threshold for all languages does, in a table; and how well it is known."""
    if table:
        terminal.say("at one threshold for all languages, counted on the half of the sentences that was not fitted on:")
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
        f"is known to {error:.2f} standard deviations of wrong pairs, or better ({pair} is the worst)"
    )
    if statistics.sentences < MANY:
        terminal.note(f"fewer than {MANY} sentences show how it works: for a threshold to rely on, take some hundred")


def _keys(file: Path | None) -> list[str]:
    """The API keys of a file, or of the environment.

    Raises:
        UsageError: The file cannot be read, there is no key where there should be one, or one that no client can send.
    """
    if file is None:
        if KEYS not in os.environ:
            return []
        where, found = KEYS, os.environ[KEYS].split(",")
    else:
        try:
            where, found = str(file), file.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise UsageError(f"{file}: cannot be read ({error}): give a file of API keys, one a line") from error
        except UnicodeDecodeError:  # whose words hold a byte of a key
            raise UsageError(f"{file}: is no text in UTF-8: give a file of API keys, one a line") from None
    for number, key in enumerate(map(str.strip, found), 1):
        if not (key.isascii() and key.isprintable()):  # a header holds no other, and nobody sees what is wrong
            place = f"{where}: key {number}" if file is None else f"{where} line {number}"
            raise UsageError(f"{place}: an API key may have printable characters of ASCII alone: write another")
    keys = [key.strip() for key in found if key.strip()]
    if not keys:
        raise UsageError(f"{where}: no API key in it: write one a line, or leave it out")
    return keys
