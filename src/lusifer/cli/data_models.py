"""Commands on training data that need a model: data mine, data cluster."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lusifer.cli import terminal
from lusifer.cli.data_options import (
    Fields,
    Input,
    Output,
    Report,
    SkipBad,
    check_places,
    files_of,
    finish,
    named,
    opened,
)
from lusifer.cli.models import Device, Dtype, DtypeOption, locate, usable
from lusifer.errors import UsageError

if TYPE_CHECKING:
    from lusifer.data.mining.mine import Retriever

ModelOption = Annotated[
    str,
    typer.Option("--model", help="Retriever: a model folder, one that comes along (mini), a hub name, package:NAME."),
]
QueryPrompt = Annotated[str, typer.Option(help="Text before each query, as the retriever was trained ('query: ').")]
DocumentPrompt = Annotated[str, typer.Option(help="Text before each document ('passage: ').")]
BatchSize = Annotated[int, typer.Option(min=1, help="Texts embedded at once.")]


LabelRanks = Annotated[
    tuple[int, int], typer.Option(min=0, help="The same for labelled sets: first and last rank of another label.")
]


class Choose(StrEnum):
    """Which of the candidates are taken."""

    RANDOM = "random"
    TOP = "top"


Labels = Annotated[bool, typer.Option("--labels", help="Pairs have a label: take texts of another one.")]
Corpus = Annotated[
    list[str] | None, typer.Option(help="Files of passages to choose from, in place of the set's own texts.")
]
CrossMargin = Annotated[float, typer.Option(help="Score by which it must.")]


def register(app: typer.Typer) -> None:
    """Add this file's commands to the application."""
    for command in (mine, cluster):
        app.command()(command)


def mine(
    files: Input,
    model: ModelOption,
    output: Output,
    negatives: Annotated[int, typer.Option(min=1, help="Negatives of a row; those it has count.")] = 7,
    skip: Annotated[int, typer.Option(min=0, help="Nearest texts to pass over: unmarked answers.")] = 30,
    keep: Annotated[int, typer.Option(min=1, help="Texts after them that negatives are taken from.")] = 128,
    label_ranks: LabelRanks = (20, 140),
    margin: Annotated[float | None, typer.Option(help="Similarity that a negative stays below the positive.")] = None,
    percentage: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the positive's similarity that a negative stays below.")
    ] = None,
    cross_encoder: Annotated[
        str | None, typer.Option(help="Folder or hub name of a cross-encoder that must put negatives below positives.")
    ] = None,
    cross_margin: CrossMargin = 0.0,
    choose: Annotated[Choose, typer.Option(help="Draw from the kept texts, or take the nearest.")] = Choose.RANDOM,
    corpus: Corpus = None,
    corpus_column: Annotated[str, typer.Option(help="Their column that is searched.")] = "text",
    translation: Annotated[
        str | None, typer.Option(help="Their column that is written: the same text in another language.")
    ] = None,
    labels: Labels = False,
    all_sources: Annotated[bool, typer.Option("--all-sources", help="Texts of every source.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Drop the negatives that rows have.")] = False,
    query_prompt: QueryPrompt = "",
    document_prompt: DocumentPrompt = "",
    batch_size: BatchSize = 64,
    dtype: DtypeOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    report: Report = None,
    skip_bad: SkipBad = 0,
    field: Fields = None,
    device: Device = None,
) -> None:
    """Give each row hard negatives. The same call again goes on where one was stopped."""
    from lusifer.data.mining import mine as mining
    from lusifer.data.mining.negatives import MineSettings
    from lusifer.io.rows import BadRows

    if translation and not corpus:
        raise UsageError("--translation: names a column of --corpus: give the file of parallel text")
    kind, rows, bad = opened(files, skip_bad, field, labels)
    if kind == "passages":
        raise UsageError(f"{files[0]}: rows of text alone have no positive: give pairs, or texts with a label")
    inputs = files_of(files)
    check_places(output, report, [*inputs, *files_of(corpus or [])])
    settings = MineSettings(
        negatives, skip, keep, label_ranks, margin, percentage, cross_margin, choose.value, replace,
        by_source=not all_sources, labels=labels or kind == "labelled", seed=seed,
    )  # fmt: skip
    more = BadRows(skip_bad)
    texts = mining.Texts(files_of(corpus), corpus_column, translation, more) if corpus else None
    retriever = _retriever(model, query_prompt, document_prompt, batch_size, dtype, device, cross_encoder)
    with terminal.phases() as show:
        said = mining.mine(lambda: rows, kind, inputs, output, retriever, settings, texts, named(field), bad, show)
    bad.messages += more.messages
    finish(said, output, report, bad)


def cluster(
    files: Input,
    model: ModelOption,
    output: Output,
    clusters: Annotated[int, typer.Option(min=1, help="Most clusters of a source.")] = 1024,
    min_points: Annotated[int, typer.Option(min=1, help="Least rows of a cluster.")] = 20,
    cap: Annotated[
        int | None, typer.Option(min=1, help="Most rows of a source, drawn from each cluster by its share.")
    ] = None,
    query_prompt: QueryPrompt = "",
    batch_size: BatchSize = 64,
    dtype: DtypeOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of k-means and of what is drawn.")] = 0,
    report: Report = None,
    skip_bad: SkipBad = 0,
    field: Fields = None,
    device: Device = None,
) -> None:
    """Number the queries of each source by k-means: a batch of stage 2 then holds rows of one cluster."""
    from lusifer.data import writers
    from lusifer.data.mining import cluster as clustering

    kind, rows, bad = opened(files, skip_bad, field)
    if kind != "pairs":
        raise UsageError(f"{files[0]}: clusters are of queries: give pairs (columns query, positive)")
    check_places(output, report, files_of(files))
    retriever = _retriever(model, query_prompt, "", batch_size, dtype, device)
    with terminal.phases() as show:
        kept, said = clustering.cluster(
            rows, retriever.queries, clusters=clusters, min_points=min_points, cap=cap, seed=seed, progress=show
        )
        writers.write(output, kept, kind)
    finish(said, output, report, bad)


def _retriever(
    model: str,
    query_prompt: str,
    document_prompt: str,
    batch_size: int,
    dtype: Dtype | None,
    device: str | None,
    cross_encoder: str | None = None,
) -> Retriever:
    """A model as functions of texts."""
    # A kernel and its reordered weights are kept for each shape of batch, in bfloat16 gigabytes of them: by oneDNN and
    # once more by torch's layer above it. Both are read when torch loads.
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "16")
    terminal.quiet()
    from lusifer.data.mining.mine import Retriever
    from lusifer.embedder import rerank

    embedder = rerank.retriever(locate(model), device=usable(device), dtype=dtype.value if dtype else None)

    def encoder(prompt: str) -> Any:
        def encode(texts: list[str]) -> Any:
            return embedder.encode(texts, prompt=prompt, batch_size=batch_size, show_progress_bar=False)

        return encode

    rescore = None
    if cross_encoder is not None:
        rescore = rerank.cross_scores(cross_encoder, device=usable(device), batch_size=batch_size)
    return Retriever(model, encoder(query_prompt), encoder(document_prompt), rescore)
