"""Commands on an index: index, search, reindex."""

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
    Model,
    Unscored,
    demand,
    embed_again,
    guard_for,
    load_to_embed,
    model_name,
    quick_imports,
    refuse_words,
    settle_dtype,
)
from lusifer.cli.use import Field, InputFormat
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
"""Characters of a passage that are shown."""
MADE_WITH = {"task": ("query", "document"), "prompt": ("query", "document")} | {
    name: (name,) for name in ("tokens", "overlap", "offsets", "language_field")
}
"""Option -> what an index keeps of it."""
Where = Annotated[str | None, typer.Option(help="SQL condition on the fields, as in: lang = 'de' AND year > 2000.")]
Task = Annotated[str | None, typer.Option(help="Name of a built-in instruction, as for `embed`.")]
Prompt = Annotated[str | None, typer.Option(help="Instruction of questions, as in training.")]
Tokens = Annotated[int | None, typer.Option(min=1, help="Most tokens of a passage; by default what the model reads.")]
Offsets = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="What `calibrate` wrote: its offset from English is taken out of all vectors."),
]
LanguageField = Annotated[
    str | None, typer.Option(help="With --offsets: field of the language; else it is identified.")
]
Asks = Annotated[
    str | None,
    typer.Option(
        callback=model_name,
        help="Model of the question, trained into the space of the index; else that of the index.",
    ),
]
Overlap = Annotated[int | None, typer.Option(min=0, help="Tokens that a passage may share with the next one; else 0.")]


def index(
    context: typer.Context,
    model: Model,
    output: Annotated[Path, typer.Option(metavar="INDEX", help="Folder of the index; one that is there is updated.")],
    input: Annotated[
        str | None,
        typer.Option(help="A folder of .txt and .md files, or texts as for `embed`; other fields are kept."),
    ] = None,
    field: Field = None,
    input_format: InputFormat = None,
    id: Annotated[str | None, typer.Option(help="Field or column of the id; else id, or file and line.")] = None,
    task: Task = None,
    prompt: Prompt = None,
    tokens: Tokens = None,
    overlap: Overlap = None,
    offsets: Offsets = None,
    language_field: LanguageField = None,
    on_long: Annotated[
        Literal["split", "cut", "error"],
        typer.Option(help="Texts longer than a passage: split at sentences, cut and report, or refuse."),
    ] = "split",
    vectors: Annotated[
        str | None,
        typer.Option(
            help="Vectors that MODEL made before: .npy or .faiss with --input or --ids, .parquet, NAME.lance."
        ),
    ] = None,
    ids: Annotated[str | None, typer.Option(help="With --vectors: ids alone, .txt (one a line) or .npy.")] = None,
    vector_field: Annotated[str | None, typer.Option(help="With --vectors: the column of the vectors.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Take out documents that the input does not have.")] = False,
    dtype: AutoDtype = "auto",
    device: Device = None,
    unscored: Unscored = "warn",
) -> None:
    """Put documents into an index on disk, for `search`; what is there and unchanged is not embedded again."""
    _refuse_place(output)
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
            source.documents(),
            fields=found.fields,
            on_long=on_long,
            progress=lambda done: show(done, found.count),
        )
    gone = made.delete(made.ids() - found.ids) if prune else 0
    if getattr(source, "empty", 0):
        are = "file is" if source.empty == 1 else "files are"
        terminal.note(f"{source.empty:,} empty {are} left out")
    _say(report, output, "taken in" if vectors else "embedded", f", {gone:,} taken out" if prune else "")
    if mine is not None and (line := mine.line(model)):
        terminal.note(line)


def _refuse_place(output: Path) -> None:
    from lusifer.index.index import Index
    from lusifer.index.table import is_table

    if not is_table(output):
        Index.refuse_old(output)


def _survey(source: Any, model: str, unscored: str) -> tuple[Survey, LanguageGuard | None]:
    """Read all documents, and look at their languages, before the model is loaded: a bad last line costs no work."""
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
    """Where documents come from, with their vectors or without."""
    from lusifer.index import documents

    if vectors is None:
        for option, value in (("--ids", ids), ("--vector-field", vector_field)):
            if value is not None:
                raise UsageError(f"{option} {value}: says something of --vectors: give them, or leave it out")
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
    """The index, made or there, with its model loaded.

    A model that embeds is checked by its golden vectors; where vectors were `kept`, those of `sample` are compared with
    the model's.
    """
    with quick_imports():
        from lusifer.index.index import Index
        from lusifer.index.models import describe
        from lusifer.index.table import is_table

        alone = context.obj is OWN_PROCESS
        if not is_table(output):
            # Vectors that were made before are of the format that the model was saved in, as far as anybody knows.
            asked = None if kept and settings["dtype"] == "auto" else settings["dtype"]
            embedder, settings["dtype"] = load_to_embed(model, device, asked, alone=alone)
            if kept:
                _compare(embedder, describe(model, embedder, **settings)[0], sample)
            else:
                demand(embedder, model)
            return Index.create(output, model, embedder=embedder, **settings)
        made = Index.open(output, model)
        made.require_own()
        settle_dtype(settings, output, model, made.model.dtype)
        made.use(lambda name, dtype: load_to_embed(name, device, dtype, alone=alone, index=made)[0])
    # Without offsets there is no field to describe: it is compared with that of the index as it is.
    alone_said = {"language_field"} & settings.keys() if "offsets" not in settings else set()
    described = {name: value for name, value in settings.items() if name not in alone_said}
    asked = describe(model, made.embedder, **described)[0] if described else made.model
    asked = replace(asked, **{name: settings[name] for name in alone_said})
    for option, names in MADE_WITH.items():
        if option in settings and any(getattr(asked, name) != getattr(made.model, name) for name in names):
            words = "the index was made otherwise: leave it out"
            raise UsageError(f"--{option.replace('_', '-')}: {words}; {embed_again(output, model)}")
    if kept:
        _compare(made.embedder, made.model, sample)
    else:
        demand(made.embedder, model)
    return made


def _compare(embedder: Embedder, model: IndexModel, sample: Sequence[TextDocument]) -> None:
    """Say what is known of where kept vectors come from."""
    from lusifer.index import kept

    median = kept.check(embedder, model.name, model.document, sample)
    if median is None:
        terminal.note(f"no texts beside the vectors: that {model.name} made them cannot be checked")
    else:
        texts = "text" if len(sample) == 1 else "texts"
        terminal.note(f"{len(sample)} {texts} embedded again by {model.name}: cosine {median:.3f} with their vectors")


def _say(report: Added, output: Path, done: str = "embedded", more: str = "") -> None:
    if report.embedded.cut:
        terminal.note(report.embedded.cut_line("of a passage"))
    documents = "document" if report.documents == 1 else "documents"
    if report.offsets is not None and report.offsets.unknown:
        embedded = report.added + report.replaced
        terminal.note(
            f"of {report.offsets.unknown:,} of {embedded:,} documents the language could not be told, or is not among "
            f"those of the offsets: they have none taken out; the first is {report.offsets.first_unknown}"
        )
    passages = "passage" if report.embedded.rows == 1 else "passages"
    terminal.note(
        f"{report.documents:,} {documents} -> {output}: {report.added:,} added, {report.replaced:,} replaced, "
        f"{report.unchanged:,} unchanged{more}; {report.embedded.rows:,} {passages} {done}"
    )


def search(
    context: typer.Context,
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder that `index` wrote.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The question, in any language.")],
    model: Asks = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many documents.")] = 10,
    where: Where = None,
    mode: Annotated[
        Literal["vector", "hybrid", "words"],
        typer.Option(help="By meaning; by meaning and by the question's own words; by words alone."),
    ] = "vector",
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Show the score that can be compared between languages as well.")
    ] = False,
    min_score: Annotated[
        float | None, typer.Option(help="Only hits with this score at least: the calibrated one with --calibrated.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Language of the question; by default identified.")] = None,
    statistics: Annotated[
        str | None, typer.Option(metavar="FILE", help="What `calibrate` wrote; by default that in the model's folder.")
    ] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="An object a line, with all fields.")] = False,
    device: Device = None,
    unscored: Unscored = "warn",
) -> None:
    """Find the documents of an index that answer a question, whatever the languages of both."""
    terminal.quiet()
    check_text(query, "the question")  # what is wrong with the words is said before a model is loaded
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

        if mode != "words":  # for words no vector is made
            found.use(load)
    report = EmbedReport()
    judging = _judging(found, query, calibrated, language, statistics, mode)
    hits = found.search(query, top_k=top_k, where=where, mode=mode, report=report, min_score=min_score, **judging)[0]
    if report.cut:
        terminal.note(f"the question has {report.first_tokens:,} tokens, of which the first {report.limit} are read")
    for place, hit in enumerate(hits, start=1):
        terminal.say(_as_json(hit) if json_lines else _as_text(place, hit))
    if not hits:
        terminal.note(
            f"{index}: nothing found" + ("" if min_score is None else f" with a score of {min_score:g} or more")
        )
    for line in filter(None, looked):
        terminal.note(line)


def _judging(
    index: Index, query: str, calibrated: bool, language: str | None, statistics: str | None, mode: str
) -> dict[str, Any]:
    """What a search needs where the language of the question counts; says of one that is not known what is done."""
    from lusifer.calibration import asking

    if mode == "words" or not (calibrated or index.model.offsets):
        for option, value in (("language", language), ("statistics", statistics)):
            if value is not None:
                words = "says something of calibrated scores or of an index with offsets: add --calibrated"
                raise UsageError(f"--{option} {value}: {words}, or leave it out")
        return {"calibrated": calibrated}
    known = index.statistics(statistics)
    code = asking.languages_of([query], language, known)[0]
    if code is None:
        why = "could not be told" if language is None else f"({language}) is not among the {len(known.languages)} known"
        done = ["scores are calibrated by all languages together"] if calibrated else []
        done += ["no offset is taken out of the vector of the question"] if index.model.offsets else []
        terminal.note(f"the language of the question {why}: {', and '.join(done)} (--language names it)")
    return {"calibrated": calibrated, "languages": [code], "statistics": known}


def _looked(query: str, place: str, index: Index, unscored: str, by_default: bool) -> list[str | None]:
    """What to say of the language of a question, by the card of a model; refused if that is asked for."""
    from lusifer.index.models import shipped_line
    from lusifer.serving import guard

    mine = guard_for(place, unscored)
    if mine is not None:
        mine.see(query)
        if unscored == "error":
            guard.refuse(mine, index.asks)
    return [mine and mine.line(index.asks), shipped_line(index.model) if by_default else None]


def _as_json(hit: Found) -> str:
    said = {"id": hit.id, "score": hit.score, "text": hit.text, "start": hit.start, "end": hit.end}
    said |= {} if hit.calibrated is None else {"calibrated": hit.calibrated, "language": hit.language}
    return json.dumps(said | {"fields": hit.fields}, ensure_ascii=False)


def _as_text(place: int, hit: Found) -> str:
    """A hit in two lines: where it is, and how its passage begins."""
    score = "" if hit.score is None else f"  {hit.score:.3f}"
    pooled = "" if hit.language else ", by all languages"
    score += "" if hit.calibrated is None else f" ({hit.calibrated:.2f}{pooled})"
    text = " ".join((hit.text or "").split())
    shown = text if len(text) <= EXCERPT else text[:EXCERPT].rsplit(" ", 1)[0] + " ..."
    return f"{place}{score}  {hit.id}" + (f"\n   {shown}" if shown else "")


def reindex(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder that `index` wrote.")],
    model: Annotated[str, typer.Option(metavar="MODEL", callback=model_name, help="What embeds from now on.")],
    task: Task = None,
    prompt: Prompt = None,
    tokens: Tokens = None,
    overlap: Overlap = None,
    offsets: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="As for `index`, or `none`; the model of the index keeps its own."),
    ] = None,
    language_field: LanguageField = None,
    dtype: AutoDtype = "auto",
    device: Device = None,
) -> None:
    """Embed the texts of an index anew; until that is done it is searched as before. A call that stopped goes on."""
    refuse_words(prompt, task, None if offsets == "none" else offsets)
    terminal.quiet()
    from lusifer.index.reindex import reindex as embed_anew

    settings = {"task": task, "prompt": prompt, "tokens": tokens, "overlap": overlap, "dtype": dtype}
    settings |= {"offsets": offsets, "language_field": language_field}
    with terminal.progress("documents") as show:
        report = embed_anew(
            index,
            model,
            device=device,
            progress=lambda done: show(done, None),
            say=terminal.note,
            **{key: value for key, value in settings.items() if value is not None},
        )
    _say(report, index)
