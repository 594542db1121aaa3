"""Commands for an index: index, search, reindex."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lusifer.cli import terminal
from lusifer.cli.models import (
    OWN_PROCESS,
    AutoDtype,
    Device,
    Field,
    InputFormat,
    LanguageField,
    Model,
    Overlap,
    Prompt,
    Task,
    Tokens,
    Unscored,
    demand,
    embed_again,
    guard_for,
    load_to_embed,
    model_name,
    open_to_add,
    quick_imports,
    refuse_damaged,
    refuse_words,
    settle_dtype,
)
from lusifer.errors import UsageError
from lusifer.index.disk.filters import condition
from lusifer.prompts import check_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lusifer.index.documents import Survey, TextDocument
    from lusifer.index.index import Added, Found, Index
    from lusifer.index.models import Embedder, IndexModel
    from lusifer.serving.guard import LanguageGuard

EXCERPT = 240
"""Number of characters of a passage that are shown."""
MADE_WITH = {"task": ("query", "document"), "prompt": ("query", "document")} | {
    name: (name,) for name in ("tokens", "overlap", "offsets", "language_field")
}
"""Option -> the fields of an index that it sets."""
Where = Annotated[str | None, typer.Option(help="SQL condition on the fields (lang = 'de' AND year > 2000).")]
Offsets = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="File of `calibrate`: its language offsets are subtracted from all vectors."),
]
Asks = Annotated[
    str | None,
    typer.Option(
        callback=model_name,
        help="Model for the query, trained into the space of the index; by default the model of the index.",
    ),
]


def index(
    context: typer.Context,
    model: Model,
    output: Annotated[Path, typer.Option(metavar="INDEX", help="Folder of the index; an existing index is updated.")],
    input: Annotated[
        str | None,
        typer.Option(help="A folder of .txt and .md files, or a file as for `embed`, whose other fields are stored."),
    ] = None,
    field: Field = None,
    input_format: InputFormat = None,
    id: Annotated[str | None, typer.Option(help="Field or column with the id; by default id, or file, line.")] = None,
    task: Task = None,
    prompt: Prompt = None,
    tokens: Tokens = None,
    overlap: Overlap = None,
    offsets: Offsets = None,
    language_field: LanguageField = None,
    on_long: Annotated[
        Literal["split", "cut", "error"],
        typer.Option(help="Texts longer than a passage: split at sentences, truncate and report, or stop."),
    ] = "split",
    vectors: Annotated[
        str | None,
        typer.Option(help="Existing vectors of MODEL: .npy or .faiss with --input or --ids, .parquet, NAME.lance."),
    ] = None,
    ids: Annotated[str | None, typer.Option(help="With --vectors: their ids, .txt (one a line) or .npy.")] = None,
    vector_field: Annotated[str | None, typer.Option(help="With --vectors: column with the vectors.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Delete documents that are not in the input.")] = False,
    dtype: AutoDtype = "auto",
    device: Device = None,
    unscored: Unscored = "warn",
) -> None:
    """Put documents into an index on disk. Documents that are in it and unchanged are not embedded again."""
    _refuse_place(output)
    refuse_damaged(model)
    refuse_words(prompt, task, offsets)
    source = _source(input, field, input_format, id, vectors, ids, vector_field)
    found, mine = _survey(source, model, unscored)
    terminal.quiet()
    settings = {"task": task, "prompt": prompt, "tokens": tokens, "overlap": overlap, "dtype": dtype}
    settings |= {"offsets": offsets, "language_field": language_field}
    settings = {key: value for key, value in settings.items() if value is not None}
    made = _opened(context, output, model, device, settings, vectors is not None, found.sample)
    with terminal.progress("documents") as show:
        report = made.update(
            source.documents(), fields=found.fields, on_long=on_long, progress=lambda done: show(done, found.count)
        )
    gone = made.delete(made.ids() - found.ids) if prune else 0
    if getattr(source, "empty", 0):
        are = "file is" if source.empty == 1 else "files are"
        terminal.note(f"{source.empty:,} empty {are} left out")
    dtype_used = f" in {made.model.dtype}" if made.model.dtype and report.embedded.rows else ""
    _say(report, output, "stored" if vectors else f"embedded{dtype_used}", f", {gone:,} deleted" if prune else "")
    if mine is not None and (line := mine.line(model)):
        terminal.note(line)


def _refuse_place(output: Path) -> None:
    from lusifer.index.index import Index, is_table

    if not is_table(output):
        Index.refuse_old(output)


def _survey(source: Any, model: str, unscored: str) -> tuple[Survey, LanguageGuard | None]:
    """Read all documents before the model is loaded, so that a bad last line does not cost the work on the others.

    Also gives the language guard that has seen the documents; None without one.
    """
    from lusifer.index import documents
    from lusifer.serving import guard

    mine = guard_for(model, unscored)

    def look(each: TextDocument) -> None:
        if mine is not None and each.text is not None:
            mine.see(each.text, each.place)

    found = documents.survey(source, look)
    if mine is not None and unscored == "error":
        guard.refuse(mine, model)
    return found, mine


def _source(
    input: str | None,
    field: str | None,
    form: str | None,
    id: str | None,
    vectors: str | None,
    ids: str | None,
    vector_field: str | None,
) -> Any:
    """Give the source of the documents, with or without their vectors."""
    from lusifer.index import documents

    if vectors is None:
        for option, value in (("--ids", ids), ("--vector-field", vector_field)):
            if value is not None:
                raise UsageError(f"{option} {value}: needs --vectors: add that option, or leave this one out")
        if input is None:
            raise UsageError("--input: name a folder or a file of texts")
        return documents.source(input, field, form, id)
    from lusifer.index.kept import KeptVectors

    rows = None if input is None else documents.source(input, field, form, id)
    return KeptVectors(vectors, rows, ids, field, id, vector_field)


def _opened(
    context: typer.Context,
    output: Path,
    model: str,
    device: str | None,
    settings: dict[str, Any],
    kept: bool,
    sample: Sequence[TextDocument],
) -> Index:
    """Create or open the index and load its model.

    A model that embeds is checked by its golden vectors. With existing vectors (`kept`), those of `sample` are compared
    with vectors of the model.
    """
    with quick_imports():
        from lusifer.index.index import Index
        from lusifer.index.models import describe
        from lusifer.index.table import is_table

        alone = context.obj is OWN_PROCESS
        if not is_table(output):
            # Existing vectors are assumed to be in the dtype that the model was saved in.
            asked = None if kept and settings["dtype"] == "auto" else settings["dtype"]
            embedder, choice = load_to_embed(model, device, asked, alone=alone)
            settings["dtype"] = choice.dtype
            if kept:
                _compare(embedder, describe(model, embedder, **settings)[0], sample)
            elif not choice.checked:
                demand(embedder, model)
            Index.refuse_old(output, meanwhile=True)
            return Index.create(output, model, embedder=embedder, **settings)
        made = open_to_add(output, model)
        made.require_own()
        settle_dtype(settings, output, model, made.model.dtype)
        made.use(lambda name, dtype: load_to_embed(name, device, dtype, alone=alone, index=made)[0])
    # Without offsets `describe` takes no language field: the option itself is compared with that of the index.
    alone_said = {"language_field"} & settings.keys() if made.model.offsets and "offsets" not in settings else set()
    described = {name: value for name, value in settings.items() if name not in alone_said}
    asked = describe(model, made.embedder, **described)[0] if described else made.model
    asked = replace(asked, **{name: settings[name] for name in alone_said})
    for option, names in MADE_WITH.items():
        if option in settings and any(getattr(asked, name) != getattr(made.model, name) for name in names):
            words = "the index was made with another value: leave the option out"
            raise UsageError(f"--{option.replace('_', '-')}: {words}; {embed_again(output, model)}")
    if kept:
        _compare(made.embedder, made.model, sample)
    else:
        demand(made.embedder, model)
    return made


def _compare(embedder: Embedder, model: IndexModel, sample: Sequence[TextDocument]) -> None:
    """Report whether existing vectors come from the model."""
    from lusifer.index import kept

    median = kept.check(embedder, model.name, model.document, sample)
    if median is None:
        terminal.note(f"there are no texts with the vectors, so Lusifer cannot check that {model.name} made them")
    else:
        some = "1 text" if len(sample) == 1 else f"{len(sample)} texts"
        terminal.note(f"{some} embedded again by {model.name}: cosine {median:.3f} with their vectors")


def _say(report: Added, output: Path, done: str = "embedded", more: str = "") -> None:
    if report.embedded.cut:
        terminal.note(report.embedded.cut_line("of a passage"))
    documents = "document" if report.documents == 1 else "documents"
    if report.offsets is not None and report.offsets.unknown:
        embedded = report.added + report.replaced
        terminal.note(
            f"the language of {report.offsets.unknown:,} of {embedded:,} documents was not identified or has no "
            f"offset: their vectors are stored without an offset; the first is {report.offsets.first_unknown}"
        )
    passages = "passage" if report.embedded.rows == 1 else "passages"
    terminal.note(
        f"{report.documents:,} {documents} -> {output}: {report.added:,} added, {report.replaced:,} replaced, "
        f"{report.unchanged:,} unchanged{more}; {report.embedded.rows:,} {passages} {done}"
    )


def search(
    context: typer.Context,
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of an index.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The query, in any language.")],
    model: Asks = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of documents.")] = 10,
    where: Where = None,
    mode: Annotated[
        Literal["vector", "hybrid", "words"],
        typer.Option(help="Search by vectors, by vectors and the words of the query, or by words alone."),
    ] = "vector",
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Also show the score that can be compared between languages.")
    ] = False,
    min_score: Annotated[
        float | None, typer.Option(help="Minimum score of a hit; with --calibrated, minimum calibrated score.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of the query; by default it is identified.")] = None,
    statistics: Annotated[
        str | None, typer.Option(metavar="FILE", help="File of `calibrate`; by default the one in the model folder.")
    ] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, with all fields.")] = False,
    device: Device = None,
    unscored: Unscored = "warn",
) -> None:
    """Find the documents of an index that answer a query. Both may be in any language."""
    terminal.quiet()
    check_text(query, "the query")  # errors in the arguments are reported before a model is loaded
    if (where or "").strip():
        condition(where)
    refuse_words(None, None, statistics, language)
    with quick_imports():
        from lusifer.index.index import Index
        from lusifer.serving.encode import EmbedReport

        found = Index.open(index, model)
        looked = []

        def load(place: str, dtype: str | None) -> Embedder:
            looked.extend(_looked(query, place, found, unscored, model is None))
            return load_to_embed(place, device, dtype, alone=context.obj is OWN_PROCESS, index=found)[0]

        if mode != "words":  # a search by words needs no vector
            found.use(load)
    report = EmbedReport()
    judging = _judging(found, query, calibrated, language, statistics, mode)
    hits = found.search(query, top_k=top_k, where=where, mode=mode, report=report, min_score=min_score, **judging)[0]
    if report.cut:
        terminal.note(f"the query has {report.first_tokens:,} tokens; the model reads the first {report.limit}")
    for place, hit in enumerate(hits, start=1):
        terminal.say(_as_json(hit) if json_lines else _as_text(place, hit))
    if not hits:
        least = "" if min_score is None else f" with a score of {min_score:g} or more"
        terminal.note(f"{index}: nothing found{least}")
    for line in filter(None, looked):
        terminal.note(line)


def _judging(
    index: Index, query: str, calibrated: bool, language: str | None, statistics: str | None, mode: str
) -> dict[str, Any]:
    """Give the arguments of a search that depend on the language of the query; report an unknown language."""
    from lusifer.calibration import asking

    if mode == "words" or not (calibrated or index.model.offsets):
        for option, value in (("language", language), ("statistics", statistics)):
            if value is not None:
                words = "is for calibrated scores or an index with offsets: add --calibrated"
                raise UsageError(f"--{option} {value}: {words}, or leave it out")
        return {"calibrated": calibrated}
    known = index.statistics(statistics)
    code = asking.languages_of([query], language, known)[0]
    if code is None:
        why = "was not identified" if language is None else f"({language}) is not one of {len(known.languages)} known"
        done = ["scores are calibrated with all languages together"] if calibrated else []
        done += ["no offset is subtracted from the vector of the query"] if index.model.offsets else []
        terminal.note(f"the language of the query {why}: {', and '.join(done)} (set it with --language)")
    return {"calibrated": calibrated, "languages": [code], "statistics": known}


def _looked(query: str, place: str, index: Index, unscored: str, by_default: bool) -> list[str | None]:
    """Give notes on the language of the query and the model; with `--unscored error` refuse an unscored query."""
    from lusifer.index.models import shipped_line
    from lusifer.serving import guard

    mine = guard_for(place, unscored)
    if mine is not None:
        mine.see(query)
        if unscored == "error":
            guard.refuse(mine, index.asks)
    hint = by_default and shipped_line(index.model)
    return [mine and mine.line(index.asks), hint if hint and not guard.is_english(query) else None]


def _as_json(hit: Found) -> str:
    said = {"id": hit.id, "score": hit.score, "text": hit.text, "start": hit.start, "end": hit.end}
    said |= {} if hit.calibrated is None else {"calibrated": hit.calibrated, "language": hit.language}
    return json.dumps(said | {"fields": hit.fields}, ensure_ascii=False)


def _as_text(place: int, hit: Found) -> str:
    """A hit in two lines: where it is, and how its passage begins."""
    score = "" if hit.score is None else f"  {hit.score:.3f}"
    pooled = "" if hit.language else ", with all languages"
    score += "" if hit.calibrated is None else f" ({hit.calibrated:.2f}{pooled})"
    text = " ".join((hit.text or "").split())
    shown = text if len(text) <= EXCERPT else text[:EXCERPT].rsplit(" ", 1)[0] + " ..."
    return f"{place}{score}  {hit.id}" + (f"\n   {shown}" if shown else "")


def reindex(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of an index.")],
    model: Annotated[str, typer.Option(metavar="MODEL", callback=model_name, help="New model of the index.")],
    task: Task = None,
    prompt: Prompt = None,
    tokens: Tokens = None,
    overlap: Overlap = None,
    offsets: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="As for `index`, or `none`; by default unchanged if the model is the same."),
    ] = None,
    language_field: LanguageField = None,
    dtype: AutoDtype = "auto",
    device: Device = None,
) -> None:
    """Embed all texts of an index again; the index stays searchable. Repeat a call to resume an interrupted one."""
    refuse_words(prompt, task, None if offsets == "none" else offsets)
    refuse_damaged(model)
    terminal.quiet()
    from lusifer.index.reindex import reindex as embed_again

    settings = {"task": task, "prompt": prompt, "tokens": tokens, "overlap": overlap, "dtype": dtype}
    settings |= {"offsets": offsets, "language_field": language_field}
    with terminal.progress("documents") as show:
        report = embed_again(
            index,
            model,
            device=device,
            progress=lambda done: show(done, None),
            say=terminal.note,
            **{key: value for key, value in settings.items() if value is not None},
        )
    _say(report, index)
