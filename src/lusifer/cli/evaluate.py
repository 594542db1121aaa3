"""`lusifer evaluate`: score a model in every language."""

from __future__ import annotations

import hashlib
import json
import reprlib
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lusifer.cli import terminal
from lusifer.cli.models import DtypeOption, Model, model_name, usable
from lusifer.errors import DataError, UsageError
from lusifer.io.files import refuse_unwritable, write_file

if TYPE_CHECKING:
    from lusifer.evaluation.scores.results import Results
    from lusifer.evaluation.search.collection import Searched
SUITE_HELP = (
    "offline: SIB-200, XQuAD and similarity from --data. sample: the packaged sentences. robust: these in disguise "
    "(romanised, in capitals, mistyped, ...), with --data SIB-200 and XQuAD too. mine: your own questions "
    "(--data FILE). long: how far into a long text it reads. From the hub: paper, cross-lingual, robust-hub, "
    "lists-only, quick (docs/benchmark.md)."
)
RUN = "run.json"  # by it a folder shows that it holds an evaluation


Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder with sib200-xx-train.jsonl.gz and -dev.jsonl.gz, xquad-xx.json, sts-xx.jsonl; of the suite mine a "
        "file of questions (JSONL, CSV, Parquet)."
    ),
]
Documents = Annotated[
    Path | None,
    typer.Option(
        help="Of the suite mine: another file, a folder of .txt and .md, or an index whose vectors are kept; else "
        "documents stand in --data."
    ),
]
Output = Annotated[Path | None, typer.Option(help="Evaluation folder; the same call goes on where one was stopped.")]
Languages = Annotated[
    str | None,
    typer.Option(help="Codes, as in en,es, or all that there are; by default the 14 of the paper, of mine all."),
]
Minutes = Annotated[float | None, typer.Option(min=0, help="Begin nothing after that; the next call goes on.")]
Instructions = Annotated[
    bool | None,
    typer.Option(
        "--instructions/--no-instructions",
        help="Whether queries get the instruction of their task; by default for a LUSIFER model that has any prompt.",
    ),
]
LanguageGap = Annotated[
    bool,
    typer.Option(
        "--language-gap/--no-language-gap",
        help="Measure the gap between languages after the scores (suites offline, sample).",
    ),
]
Compare = Annotated[
    list[Path] | None, typer.Option(help="Output folder of another evaluation, for the tables; may be repeated.")
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="EMBEDDER",
        callback=model_name,
        help="As MODEL: it embeds the documents, MODEL the queries (not for suites of the hub).",
    ),
]
Devices = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:0,cuda:1 (a process each); by default the best one here.")
]


def evaluate(
    model: Model,
    suite: Annotated[str, typer.Option(help=SUITE_HELP)] = "offline",
    data: Data = None,
    documents: Documents = None,
    output: Output = None,
    languages: Languages = None,
    tasks: Annotated[str | None, typer.Option(help="Names of tasks, as in STS17,XNLI; by default all.")] = None,
    minutes: Minutes = None,
    language_gap: LanguageGap = True,
    instructions: Instructions = None,
    name: Annotated[str | None, typer.Option(help="What tables call the model; by default as it is typed.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap intervals.")] = 0,
    compare: Compare = None,
    against: Against = None,
    device: Devices = None,
    dtype: DtypeOption = None,
) -> None:
    """Score a model in every language; a language that cannot be measured is missing, never 0."""
    terminal.quiet()
    if data is not None and suite != "mine" and not data.is_dir():
        raise UsageError(f"--data {data}: no such folder; give the one with the sib200-*.jsonl.gz files")
    if output is not None:
        refuse_unwritable(output, "folder", replaces=RUN)
    codes, names = listed(languages, "--languages"), listed(tasks, "--tasks")
    from lusifer.evaluation.scores import results
    from lusifer.evaluation.suites import suite as suites

    others = [results.read(folder) for folder in compare or []]
    searched: Any = documents
    if documents is not None and documents.is_dir():
        searched, dtype = _searched(documents, model, instructions, dtype)
    chosen = suites.choose(suite, data, codes, names, against is not None, searched)
    devices = tuple(usable(name.strip()) for name in device.split(",")) if device else ()
    from lusifer.evaluation.report import card, facts
    from lusifer.evaluation.run import evaluate as evaluation

    options = evaluation.Options(
        suite, data, codes, names, instructions, minutes, devices, dtype, against, seed,
        command=shlex.join(["lusifer", *sys.argv[1:]]), documents=searched, chosen=chosen, language_gap=language_gap,
    )  # fmt: skip
    with ExitStack() as stack:
        path = output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lusifer-evaluation-")))
        with terminal.progress("languages and tasks") as show:
            evaluation.evaluate(
                model, options, path, name=name or model, note=terminal.note,
                progress=lambda rows, of, seconds: show(rows, of, _left(seconds)),
            )  # fmt: skip
        made = results.read(path)
        text = card.markdown(facts.gather([made, *others], seed))
    terminal.say(text, nl=False)
    _say(made)
    if output is not None:
        with write_file(output / "table.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        terminal.note(f"{output / 'summary.json'} written; a page: lusifer report {output} --output report.html")


def _searched(place: Path, model: str, instructions: bool | None, dtype: str | None) -> tuple[Searched, str | None]:
    """The documents of a folder of texts, or of an index with their vectors; and the number format of the model.

    Raises:
        UsageError: The model may not ask the index, or an option says otherwise than the index.
    """
    from lusifer.evaluation.search.collection import Searched, SearchedDocument
    from lusifer.index.documents import DocumentFolder
    from lusifer.index.table import is_table

    if is_table(place):
        return _of_index(place, model, instructions, dtype)
    source = DocumentFolder(str(place))
    found = [*source.documents()]
    digest = hashlib.sha256("".join(f"{each.id}\0{each.digest}\0" for each in found).encode()).hexdigest()
    empty = (f"--documents: {source.empty:,} empty files are left out",) if source.empty else ()
    documents = tuple(SearchedDocument(each.id, each.text, "") for each in found)
    return Searched(documents, digests={place.name or str(place): digest}, notes=empty), dtype


def _of_index(place: Path, model: str, instructions: bool | None, dtype: str | None) -> tuple[Searched, str | None]:
    """The passages of an index as they are; their language is the field `language` or `lang`."""
    import numpy as np

    from lusifer.evaluation.search.collection import Searched, SearchedDocument
    from lusifer.index.index import Index
    from lusifer.index.passages import joined

    opened = Index.open(place, model)
    if instructions is not None:
        raise UsageError("--instructions: the index says what stands before a question: leave it out")
    made = opened.model
    if opened.asks_own and dtype not in (None, made.dtype):
        raise UsageError(f"--dtype {dtype}: the index was made in {made.dtype or 'the format saved'}: leave it out")
    rows, vectors = opened.held()
    order = sorted(range(len(rows)), key=lambda row: (rows[row]["id"], rows[row]["chunk"]))
    rows = [rows[row] for row in order]
    found = sorted(joined(rows), key=lambda each: each.id)
    places = {each.id: number for number, each in enumerate(found)}
    said = [f"{row['id']}\0{row['chunk']}\0{row['digest']}\0" for row in rows]
    digest = hashlib.sha256("".join([json.dumps(made.to_dict(), sort_keys=True), *said]).encode()).hexdigest()
    codes, notes = _languages_of(place, [each.fields for each in found])
    searched = Searched(
        tuple(SearchedDocument(each.id, each.text, code) for each, code in zip(found, codes, strict=True)),
        vectors[order],
        np.array([places[row["id"]] for row in rows], dtype=int),
        {place.name or str(place): digest},
        opened.prompt_of,
        notes,
    )
    return searched, made.dtype if opened.asks_own else dtype


def _languages_of(place: Path, fields: Sequence[Mapping[str, Any]]) -> tuple[list[str], tuple[str, ...]]:
    """The code of each document of an index, "" where its fields say none; and what to say of those that are no codes.

    The field may mean something else, and cannot be changed where the index is read.
    """
    from lusifer.evaluation.search.questions import code_of

    codes, strange = [], []
    for each in fields:
        name = "language" if "language" in each else "lang"
        try:
            codes.append(code_of(each.get(name), str(place)))
        except DataError:  # said below, once for all
            codes.append("")
            strange.append(f"field {name!r}: {reprlib.repr(each[name])}")
    if not strange:
        return codes, ()
    many = "1 document has" if len(strange) == 1 else f"{len(strange):,} documents have"
    words = f"{many} a language that is no code, and count{'s' * (len(strange) == 1)} as without one"
    return codes, (f"--documents {place}: {words}: {strange[0]}",)


def listed(words: str | None, option: str) -> list[str] | None:
    """Split words at commas; None where nothing was given.

    Raises:
        UsageError: Something was given, and no word is in it.
    """
    if words is None:
        return None
    found = [word.strip() for word in words.split(",") if word.strip()]
    if not found:
        raise UsageError(f"{option} {words!r}: expected names with commas between them")
    return found


def _left(seconds: float | None) -> str:
    """The time left, where it is known; a bar shows it itself."""
    if seconds is None or terminal.interactive():
        return ""
    return f"{terminal.duration(seconds / 3600)} left"


def _say(made: Results) -> None:
    """What a reader must know beside the scores."""
    seen = [entry.seen for entry in made.scores if entry.seen is not None]
    if seen:
        count, of = sum(each.seen for each in seen), sum(each.of for each in seen)
        terminal.note(f"{count:,} of the suite's {of:,} texts (a text of two tasks counts twice) stand in the model's "
                      "training data")  # fmt: skip
    for reason, count in Counter(entry.missing for entry in made.scores if entry.missing).items():
        terminal.note(f"missing: {count} of {len(made.scores)}: {reason}")
