"""Commands for training data: data inspect, dedup, mine, cluster, sets, fetch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lusifer.cli import terminal
from lusifer.cli.models import Device, DtypeOption, limit_caches, model_name, refuse_damaged, usable
from lusifer.errors import UsageError

if TYPE_CHECKING:
    from lusifer.data.schema import Row
    from lusifer.data.sources import OpenedFiles
    from lusifer.data.tables import RowCounts
    from lusifer.io.rows import BadRows


Input = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help="Rows: .jsonl or .csv (also .gz), .parquet, a pattern, or sample:NAME."),
]
Output = Annotated[Path, typer.Option(help="File to write: .jsonl, .jsonl.gz or .parquet.")]
SkipBad = Annotated[int, typer.Option(min=0, help="Number of bad rows to skip and list; one more stops the command.")]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="OURS=THEIRS", help="Rename a column of the files, as in query=question."),
]
Retrieving = Annotated[
    str,
    typer.Option(
        "--model",
        callback=model_name,
        help="Retriever: a model folder, a packaged model (mini), an id on the Hub, or package:NAME.",
    ),
]
QueryPrompt = Annotated[str, typer.Option(help="Prompt of the retriever for queries ('query: ').")]
DocumentPrompt = Annotated[str, typer.Option(help="Prompt of the retriever for documents ('passage: ').")]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts in a mini-batch of the retriever.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random choices.")]
LabelRanks = Annotated[
    tuple[int, int],
    typer.Option(min=0, help="With labels: lowest and highest rank of a negative among the texts with other labels."),
]
Margin = Annotated[float | None, typer.Option(help="Minimum difference of similarity between positive and negative.")]
Percentage = Annotated[
    float | None, typer.Option(min=0, max=1, help="Maximum similarity of a negative, relative to the positive.")
]
CrossEncoder = Annotated[
    str | None, typer.Option(help="Cross-encoder (folder or id on the Hub); it must rank negatives below positives.")
]
CrossMargin = Annotated[float, typer.Option(help="Minimum difference of their cross-encoder scores.")]
HowToChoose = Annotated[
    Literal["random", "top"],
    typer.Option(help="Take negatives at random from the texts of --keep, or the nearest ones."),
]
Corpus = Annotated[
    list[str] | None, typer.Option(help="File of passages to take negatives from, instead of the texts of the rows.")
]
AllSources = Annotated[
    bool, typer.Option("--all-sources", help="Take negatives from all sources, not only from the source of the row.")
]


def inspect(
    files: Input,
    max_length: Annotated[int, typer.Option(min=1, help="Maximum length of a model in tokens, for counts.")] = 512,
    seen: Annotated[Path | None, typer.Option(help="Run folder: count the texts that it trained on.")] = None,
    skip_bad: SkipBad = 0,
    field: Fields = None,
) -> None:
    """Read every row and describe the files. A bad row stops the command."""
    from lusifer.data import overview
    from lusifer.io import seen as seen_texts

    opened = _open(files, skip_bad, field)
    trained = seen_texts.of_run(seen) if seen else None
    with terminal.progress("rows") as show:
        found = overview.overview(opened.rows, opened.kind, seen=trained, progress=show)
    _list_left_out(opened.bad.messages)
    for line in overview.lines(found, max_length):
        terminal.say(line)


def dedup(
    files: Input,
    output: Output,
    threshold: Annotated[
        float,
        typer.Option(min=0.5, help="Jaccard similarity of near-duplicates, over 5-grams; 2: only exact duplicates."),
    ] = 0.8,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Evaluation file or folder: drop rows that contain one of its texts; may be repeated."),
    ] = None,
    skip_bad: SkipBad = 0,
    field: Fields = None,
) -> None:
    """Drop duplicates, near-duplicates and test texts.

    Unicode is normalized. With --against, rows that contain a text of an evaluation file are dropped.
    """
    from lusifer.data import dedup as cleaning
    from lusifer.data import tables

    opened = _open(files, skip_bad, field)
    held_out = [file for path in against or () for file in (path.rglob("*") if path.is_dir() else [path])]
    page = tables.check_output(output, [*opened.files, *held_out])
    with terminal.progress("rows read") as show:
        kept, counts = cleaning.dedup(
            opened.rows, opened.kind, threshold=threshold, against=against or (), progress=show
        )
    terminal.note_replaced(output)
    tables.write_rows(output, kept, opened.kind)
    _finish(counts, output, page, opened.bad)


def mine(
    files: Input,
    model: Retrieving,
    output: Output,
    negatives: Annotated[int, typer.Option(min=1, help="Negatives of each row, including existing ones.")] = 7,
    skip: Annotated[int, typer.Option(min=0, help="Nearest texts to skip: many of them are unmarked answers.")] = 30,
    keep: Annotated[int, typer.Option(min=1, help="Texts after the skipped ones to take negatives from.")] = 128,
    label_ranks: LabelRanks = (20, 140),
    margin: Margin = None,
    percentage: Percentage = None,
    cross_encoder: CrossEncoder = None,
    cross_margin: CrossMargin = 0.0,
    choose: HowToChoose = "random",
    corpus: Corpus = None,
    corpus_column: Annotated[str, typer.Option(help="Column of --corpus with the text.")] = "text",
    labels: Annotated[bool, typer.Option("--labels", help="Only take negatives with another label.")] = False,
    all_sources: AllSources = False,
    replace: Annotated[bool, typer.Option("--replace", help="Drop the negatives that rows already have.")] = False,
    query_prompt: QueryPrompt = "",
    document_prompt: DocumentPrompt = "",
    batch_size: BatchSize = 64,
    dtype: DtypeOption = None,
    seed: Seed = 0,
    skip_bad: SkipBad = 0,
    field: Fields = None,
    device: Device = None,
) -> None:
    """Find hard negatives for each row. Repeat a call to resume an interrupted one."""
    from lusifer.data import sources, tables
    from lusifer.data.mining import mine as mining
    from lusifer.data.mining.corpus import CorpusFiles
    from lusifer.data.mining.negatives import MineSettings
    from lusifer.io.rows import BadRows

    opened = _open(files, skip_bad, field, labels)
    if opened.kind == "passages":
        raise UsageError(f"{files[0]}: rows with only a text have no positive: give pairs, or texts with labels")
    corpus_files = [file for name in corpus or () for file in sources.files(name)]
    page = tables.check_output(output, [*opened.files, *corpus_files])
    settings = MineSettings(
        negatives, skip, keep, label_ranks, margin, percentage, cross_margin, choose, replace,
        by_source=not all_sources, labels=labels or opened.kind == "labelled", seed=seed,
    )  # fmt: skip
    if not output.with_name(output.name + ".work").is_dir():  # a stopped call has read the rows
        opened = _read_first(opened, files, skip_bad, field, labels)
        for _ in CorpusFiles(corpus_files, corpus_column, BadRows(skip_bad))():
            pass
    corpus_bad = BadRows(skip_bad)
    candidates = CorpusFiles(corpus_files, corpus_column, corpus_bad) if corpus else None
    encoder, rescore = _models(model, batch_size, dtype, device, cross_encoder)
    retriever = mining.Retriever(model, encoder(query_prompt), encoder(document_prompt), rescore)
    terminal.note_replaced(output)
    with terminal.phases() as show:
        counts = mining.mine(
            lambda: opened.rows, opened.kind, opened.files, output, retriever, settings, candidates, opened.fields,
            opened.bad, show,
        )  # fmt: skip
    opened.bad.messages += corpus_bad.messages
    _finish(counts, output, page, opened.bad)


def cluster(
    files: Input,
    model: Retrieving,
    output: Output,
    clusters: Annotated[int, typer.Option(min=1, help="Maximum number of clusters of a source.")] = 1024,
    min_points: Annotated[int, typer.Option(min=1, help="Minimum number of rows of a cluster.")] = 20,
    cap: Annotated[int | None, typer.Option(min=1, help="Maximum number of rows of a source, drawn at random.")] = None,
    query_prompt: QueryPrompt = "",
    batch_size: BatchSize = 64,
    dtype: DtypeOption = None,
    seed: Seed = 0,
    skip_bad: SkipBad = 0,
    field: Fields = None,
    device: Device = None,
) -> None:
    """Cluster the queries of each source by k-means. Stage 2 can then take each batch from one cluster."""
    from lusifer.data import tables
    from lusifer.data.mining import cluster as clustering

    opened = _open(files, skip_bad, field)
    if opened.kind != "pairs":
        raise UsageError(f"{files[0]}: only pairs have queries to cluster: give columns query and positive")
    page = tables.check_output(output, opened.files)
    terminal.quiet()
    table = tables.collect(_shown(opened.rows), opened.kind)  # a bad row is reported before a model is loaded
    encoder, _ = _models(model, batch_size, dtype, device)
    terminal.note_replaced(output)
    with terminal.phases() as show:
        kept, counts = clustering.cluster(
            table, encoder(query_prompt), clusters=clusters, min_points=min_points, cap=cap, seed=seed,
            progress=show,
        )  # fmt: skip
        tables.write_rows(output, kept, opened.kind)
    _finish(counts, output, page, opened.bad)


def sets(
    english_only: Annotated[bool, typer.Option("--english-only", help="Omit datasets in other languages.")] = False,
) -> None:
    """List the published training datasets and how each one is used."""
    from lusifer.data import sources

    terminal.say(sources.published_page(english_only), nl=False)


def fetch(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a packaged recipe.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the datasets without fetching them.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe key.")] = None,
) -> None:
    """Download the datasets of a recipe. They go into the cache, and every row is checked."""
    terminal.quiet()
    from lusifer.training.recipe.load import load_recipe
    from lusifer.training.run import inputs

    loaded = load_recipe(recipe, set_ or [])
    if dry_run:
        for line in inputs.lines(loaded):
            terminal.say(line)
        return

    def show(each: inputs.PlannedSource, rows: int, skipped: list[str]) -> None:
        terminal.say(f"{each.stage}: {each.source.name}: {rows:,} rows")
        _list_left_out(skipped)

    inputs.fetch(loaded, show)


def _open(names: list[str], skip_bad: int, fields: list[str] | None, labels: bool = False) -> OpenedFiles:
    from lusifer.data import sources

    opened = sources.open_files(names, skip_bad, sources.fields(fields or ()), labels)
    if opened.ignored:
        columns = ", ".join(opened.ignored)
        terminal.note(f"{opened.files[0]}: ignored columns, which rows of {opened.kind} do not have: {columns}")
    return opened


def _shown(rows: Iterator[Row]) -> Iterator[Row]:
    """Yield rows and show how many were read."""
    with terminal.progress("rows checked") as show:
        for number, row in enumerate(rows, start=1):
            show(number, None)
            yield row


def _read_first(
    opened: OpenedFiles, names: list[str], skip_bad: int, fields: list[str] | None, labels: bool
) -> OpenedFiles:
    """Read every row, and open the files again: a bad row is reported before a model is loaded.

    The rows are not stored meanwhile: whether they belong to earlier work is known only with the model.
    """
    from lusifer.data import sources

    for _ in _shown(opened.rows):
        pass
    return sources.open_files(names, skip_bad, sources.fields(fields or ()), labels)


def _models(
    model: str, batch_size: int, dtype: str | None, device: str | None, cross_encoder: str | None = None
) -> tuple[Callable[[str], Any], Any]:
    """Load the retriever, as a function of a prompt, and the cross-encoder, or None."""
    limit_caches()
    terminal.quiet()
    refuse_damaged(model)
    from lusifer.embedder import folder
    from lusifer.prompts import check_room

    place = usable(device)
    embedder = folder.load(model, device=place, dtype=dtype)
    rescore = cross_encoder and folder.load_cross_encoder(cross_encoder, device=place, batch_size=batch_size)

    def encoder(prompt: str) -> Any:
        check_room(prompt, embedder.tokenizer, embedder.max_seq_length, "--query-prompt or --document-prompt")
        return partial(embedder.encode, batch_size=batch_size, show_progress_bar=False, prompt=prompt)

    return encoder, rescore


def _list_left_out(messages: list[str]) -> None:
    for message in messages:
        terminal.note(f"left out: {message}")


def _finish(counts: RowCounts, output: Path, page: Path, bad: BadRows) -> None:
    """List the skipped rows, print the counts and write the page of counts."""
    _list_left_out(bad.messages)
    counts.write(page)
    for line in counts.lines():
        terminal.say(line)
    terminal.note(f"{output} written; {page} has examples of every count")
