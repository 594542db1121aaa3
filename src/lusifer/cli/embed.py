"""`lusifer embed`: embed the texts of a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lusifer.cli import terminal
from lusifer.cli.models import (
    AUTO,
    OWN_PROCESS,
    AutoDtype,
    Field,
    InputFormat,
    Model,
    Unscored,
    guard_for,
    load_to_embed,
    quick_imports,
    usable,
)
from lusifer.errors import UsageError
from lusifer.io.files import refuse_output, refuse_unwritable
from lusifer.prompts import Role

if TYPE_CHECKING:
    from lusifer.serving.bulk import EmbedJob, Engine, Progress
    from lusifer.serving.encode import EmbedReport
    from lusifer.serving.files import TextSource
    from lusifer.serving.forms import VectorForm
    from lusifer.serving.guard import LanguageGuard

Input = Annotated[
    str, typer.Option(help="Texts: .txt (one a line), .jsonl, .csv (also .gz), .parquet, or - (standard input).")
]
Output = Annotated[
    Path, typer.Option(help="File of vectors (.npy, .parquet, .jsonl); any other name is a folder of shards.")
]
Prompt = Annotated[str | None, typer.Option(help="Instruction for queries, as in training.")]
Task = Annotated[str | None, typer.Option(help="Name of a built-in instruction, in place of --prompt.")]
Side = Annotated[Role | None, typer.Option(help="Role of the texts in a search; it chooses their prompt.")]
IdField = Annotated[
    str | None, typer.Option("--id", help="Field or column with the id of a row; by default id, if all rows have it.")
]
ShardFormat = Annotated[
    Literal["parquet", "npy", "jsonl"], typer.Option(help="Format of the shards, if --output is a folder.")
]
ShardRows = Annotated[int, typer.Option(min=1, help="Rows of a shard, which is saved when it is complete.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete the unfinished work of another call in --output.")]
Precision = Annotated[
    Literal["float32", "int8", "uint8", "binary", "ubinary"],
    typer.Option(help="Precision of the saved vectors: int8 takes 1/4 of the space of float32, binary 1/32."),
]
Dimensions = Annotated[
    int | None, typer.Option(min=1, help="Keep only so many first dimensions, if the model was trained for it.")
]
Calibration = Annotated[
    Path | None, typer.Option(help="For int8: _manifest.json or .calibration.json with the ranges to use.")
]
BatchTokens = Annotated[
    int | None, typer.Option(min=1, help="Tokens in a batch, with padding; by default chosen for the device.")
]
OnLong = Annotated[
    Literal["cut", "error"], typer.Option(help="Texts longer than the model reads: truncate and report them, or stop.")
]
Compiled = Annotated[
    bool, typer.Option("--compile", help="Compile the layers first; takes up to a minute, for long jobs.")
]
EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="Embed in this process, or in workers of Ray (at RAY_ADDRESS, or on this machine)."),
]
Workers = Annotated[int, typer.Option(min=1, help="Number of Ray workers, each with the model.")]
Devices = Annotated[
    str | None, typer.Option(help="cpu, cuda, or several (cuda:0,cuda:1: one process each); by default the best one.")
]


@dataclass(frozen=True)
class _Wish:
    """Options of the model."""

    model: str
    prompt: tuple[str | None, str | None, Role | None]
    batch_tokens: int | None
    refuse_long: bool
    dtype: str | None
    compiled: bool
    devices: tuple[str, ...]

    def said(self) -> dict[str, Any]:
        """Give everything that a vector depends on, except its text and its output format."""
        from lusifer.embedder import identity

        prompt = dict(zip(("prompt", "task", "role"), self.prompt, strict=True))
        about = {"batch_tokens": self.batch_tokens, "dtype": self.dtype}
        return {"model": identity.of_model(self.model)} | prompt | about | {"compiled": self.compiled}


def embed(
    context: typer.Context,
    model: Model,
    input: Input,
    output: Output,
    prompt: Prompt = None,
    task: Task = None,
    role: Side = None,
    field: Field = None,
    id_field: IdField = None,
    input_format: InputFormat = None,
    shard_format: ShardFormat = "parquet",
    shard_rows: ShardRows = 8192,
    fresh: Fresh = False,
    precision: Precision = "float32",
    dimensions: Dimensions = None,
    calibration: Calibration = None,
    batch_tokens: BatchTokens = None,
    on_long: OnLong = "cut",
    dtype: AutoDtype = "auto",
    compiled: Compiled = False,
    device: Devices = None,
    engine_name: EngineName = "local",
    workers: Workers = 2,
    unscored: Unscored = "warn",
) -> None:
    """Embed the texts of a file. Repeat a call to resume an interrupted one."""
    from lusifer.serving import encode, forms, shards
    from lusifer.serving.files import TextSource

    form = forms.VectorForm(dimensions, precision)
    form = form if calibration is None else forms.read_calibration(calibration, form)
    # A wrong prompt is reported before the texts are read; only the model knows the instructions of documents.
    encode.choose_prompt({}, prompt, task, role if prompt is None else None)
    source = TextSource(input, field, input_format, id_field)
    job = _job(source, output, form, f".{shard_format}", shard_rows, fresh)
    guard = _look(job, model, unscored)
    terminal.quiet()
    names = [name.strip() for name in device.split(",")] if device else []
    devices = tuple(usable(name) if engine_name == "local" else name.lower() for name in names)
    wish = _Wish(model, (prompt, task, role), batch_tokens, on_long == "error", dtype, compiled, devices)
    with ExitStack() as stack:
        long = job.in_shards or job.survey.windows > 1
        if long and not fresh:
            shards.refuse_other(job.place, job.settings())
        before = job.begun() if long and dtype == AUTO else None
        wish = wish if before is None else replace(wish, dtype=before.get("dtype"))
        if engine_name == "ray":
            wish = replace(wish, dtype=None if wish.dtype == AUTO else wish.dtype)  # on other processors, perhaps
            engine = _in_workers(wish, dimensions, workers)
        else:
            wish, engine = _here(wish, stack, dimensions, long, alone=context.obj is OWN_PROCESS)
        if long:
            job.about, job.refuse_long = wish.said(), wish.refuse_long
        if not job.in_shards:
            terminal.note_replaced(output)
        _run(job, engine, wish.dtype if dtype == AUTO else None)
    if guard is not None and (line := guard.line(model)):
        terminal.note(line)


def _look(job: EmbedJob, model: str, unscored: str) -> LanguageGuard | None:
    """Read the texts before the model is loaded, so that a bad last line does not cost the work on the others.

    Returns:
        The language guard that has seen the texts; None without one.
    """
    from lusifer.serving import guard

    mine = guard_for(model, unscored)
    job.look(None if mine is None else lambda row: mine.see(row.text, row.place))
    if mine is not None and unscored == "error":
        guard.refuse(mine, model)
    return mine


def _job(source: TextSource, output: Path, form: VectorForm, shard_form: str, shard_rows: int, fresh: bool) -> EmbedJob:
    """Make the job and check its options; no texts are read."""
    from lusifer.serving import bulk, files

    folder = bulk.is_folder(output)
    if folder:
        refuse_unwritable(output, "folder")
    else:
        refuse_output(output, tuple(files.WRITERS), [source.path] if source.path != Path(files.STDIN) else [])
    ending = shard_form if folder else output.suffix.lower()
    if source.needs_id and ending not in files.WITH_IDS:
        words = f"{ending} holds no ids, rows keep their order: take .parquet or .jsonl"
        raise UsageError(f"--id {source.id_field}: {words}")
    return bulk.EmbedJob(source, output, form, shard_form=ending, rows=shard_rows, fresh=fresh)


def _in_workers(wish: _Wish, dimensions: int | None, workers: int) -> Callable[[Progress], Engine]:
    """Embed in workers of Ray, which report only complete windows."""
    from lusifer.serving import cluster

    if len(wish.devices) > 1:
        raise UsageError(
            f"--device {','.join(wish.devices)}: a worker has one device: name one, and take more --workers"
        )
    device = wish.devices[0] if wish.devices else None
    how = (wish.prompt, wish.batch_tokens, wish.refuse_long, wish.dtype, wish.compiled, device, dimensions)
    engine = cluster.engine(cluster.WorkerWish(wish.model, *how), workers)
    return lambda listen: engine


def _here(
    wish: _Wish, stack: ExitStack, dimensions: int | None, long: bool, alone: bool
) -> tuple[_Wish, Callable[[Progress], Engine]]:
    """Embed in this process, or in one process for each of several devices while the stack is open.

    A `long` job begins with a check of the golden vectors.

    Returns:
        The options with the chosen dtype, and a function that makes an engine which reports each batch.
    """
    from lusifer.serving import bulk, encode, forms

    several = len(wish.devices) > 1
    with quick_imports():
        first = wish.devices[0] if wish.devices else None
        alone = alone and not wish.compiled and not several
        embedder, choice = load_to_embed(wish.model, first, wish.dtype, alone=alone, advise=long)
    wish = replace(wish, dtype=choice.dtype)
    if wish.compiled:
        from lusifer.model.bases.backbones import compile_layers

        compile_layers(embedder)
    settings: dict[str, Any] = {"batch_tokens": wish.batch_tokens, "refuse_long": wish.refuse_long}
    settings |= {"prompt": encode.choose_prompt(embedder.prompts, *wish.prompt)}
    if several:
        settings["pool"] = stack.enter_context(encode.spread(embedder, wish.devices))
    if dimensions is not None:
        forms.check_dimensions(dimensions, encode.dimensions(embedder))
    if long and (wish.compiled or not choice.checked):
        from lusifer.embedder import golden

        golden.demand(embedder, wish.model)
    return wish, lambda listen: bulk.local(embedder, embedder.max_seq_length, listen, **settings)


class _Pace:
    """Shows the progress and speed of a job; the speed leaves out the work of earlier calls."""

    def __init__(self, total: int, show: Callable[..., None]) -> None:
        self.total, self.began = total, time.monotonic()
        self._show = show
        self._first: tuple[int, int] | None = None
        self._base = (0, 0)

    def whole(self, report: EmbedReport) -> None:
        """Count the complete windows."""
        self._base = (report.rows, report.tokens)
        if self._first is None:
            self._first, self.began = self._base, time.monotonic()
            if report.rows:
                terminal.note(f"{report.rows:,} of {self.total:,} texts were done before: resuming")
        self._show(report.rows, self.total, self.words(*self._base))

    def part(self, report: EmbedReport) -> None:
        """Count the finished part of the current window."""
        done = (self._base[0] + report.rows, self._base[1] + report.tokens)
        self._show(done[0], self.total, self.words(*done))

    def words(self, rows: int, tokens: int) -> str:
        """Write texts and tokens per second, and the remaining time if no bar shows it."""
        first, seconds = self._first or (0, 0), time.monotonic() - self.began
        done = rows - first[0]
        if done < 1 or seconds <= 0:
            return ""
        speed = f"{done / seconds:,.0f} texts/s, {(tokens - first[1]) / seconds:,.0f} tokens/s"
        left = terminal.duration((self.total - rows) * seconds / done / 3600)
        return speed if terminal.interactive() or rows >= self.total else f"{speed}, {left} left"


def _run(job: EmbedJob, engine: Callable[[Progress], Engine], chosen: str | None) -> None:
    """Run the job and print a summary, with the dtype that `--dtype auto` has chosen if it is not the saved one."""
    from lusifer.serving import bulk

    with terminal.progress("texts") as show:
        pace = _Pace(job.survey.rows, show)
        try:
            report = bulk.run(job, engine(pace.part), pace.whole)
        except KeyboardInterrupt:
            if job.about:
                terminal.note("finished work is saved: run the same command again to resume")
            raise
    if report.cut:
        terminal.note(report.cut_line())
    texts = "text" if report.rows == 1 else "texts"
    kind = "bytes" if job.form.precision in ("binary", "ubinary") else "numbers"
    long = time.monotonic() - pace.began >= terminal.SECONDS_BETWEEN_LINES
    speed = f", {pace.words(report.rows, report.tokens)}" if long else ""
    made = "" if chosen is None else f", computed in {chosen} (--dtype {AUTO})"
    terminal.note(f"{report.rows:,} {texts} -> {job.output} ({report.dimension} {kind} each){made}{speed}")
