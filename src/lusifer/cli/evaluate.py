"""`lusifer evaluate`: evaluate a model in every language."""

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
from lusifer.cli.models import DtypeOption, Model, model_name, refuse_damaged, usable
from lusifer.errors import DataError, UsageError
from lusifer.io.files import refuse_unwritable, write_file

if TYPE_CHECKING:
    from lusifer.evaluation.scores.results import Results
    from lusifer.evaluation.search.collection import Searched
SUITE_HELP = (
    "offline: SIB-200, XQuAD and similarity from --data. sample: the packaged sentences. robust: perturbed text "
    "(romanized, in capitals, with typing errors, ...) of the packaged sentences, with --data also of SIB-200 and "
    "XQuAD. mine: your own questions (--data FILE). long: how far the model reads into long texts. From the Hugging "
    "Face Hub: paper, cross-lingual, robust-hub, lists-only, quick (docs/benchmark.md)."
)
RUN = "run.json"  # marks a folder as an evaluation folder


Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder with sib200-xx-train.jsonl.gz and -dev.jsonl.gz, xquad-xx.json, sts-xx.jsonl; for the suite mine "
        "a file of questions (JSONL, CSV, Parquet)."
    ),
]
Documents = Annotated[
    Path | None,
    typer.Option(
        help="Documents of the suite mine: a file, a folder of .txt and .md files, or an index, whose vectors are "
        "used; by default they are in --data."
    ),
]
Output = Annotated[Path | None, typer.Option(help="Evaluation folder; repeat the call to resume an interrupted one.")]
Languages = Annotated[
    str | None,
    typer.Option(help="Codes of languages (en,es), or all; by default the 14 of the paper, for the suite mine all."),
]
Minutes = Annotated[
    float | None, typer.Option(min=0, help="Minutes after which no task begins; repeat the call to resume.")
]
Instructions = Annotated[
    bool | None,
    typer.Option(
        "--instructions/--no-instructions",
        help="Whether queries get the instruction of their task; by default only for Lusifer models with any prompt.",
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
        help="Another model, named like MODEL, that embeds the documents; MODEL embeds the queries. Not for suites "
        "from the Hub.",
    ),
]
Devices = Annotated[
    str | None, typer.Option(help="cpu, cuda, or several (cuda:0,cuda:1: one process each); by default the best one.")
]


def evaluate(
    model: Model,
    suite: Annotated[str, typer.Option(help=SUITE_HELP)] = "offline",
    data: Data = None,
    documents: Documents = None,
    output: Output = None,
    languages: Languages = None,
    tasks: Annotated[str | None, typer.Option(help="Names of tasks (STS17,XNLI); by default all.")] = None,
    minutes: Minutes = None,
    language_gap: LanguageGap = True,
    instructions: Instructions = None,
    name: Annotated[str | None, typer.Option(help="Name of the model in tables; by default MODEL.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap intervals.")] = 0,
    compare: Compare = None,
    against: Against = None,
    device: Devices = None,
    dtype: DtypeOption = None,
) -> None:
    """Evaluate a model in every language. A score that cannot be measured is missing, never 0."""
    terminal.quiet()
    refuse_damaged(model, against)
    if data is not None and suite != "mine" and not data.is_dir():
        raise UsageError(f"--data {data}: no such folder: name the folder of evaluation files")
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
    """Read the documents of a folder of texts, or of an index with their vectors; also give the dtype of the model.

    Raises:
        UsageError: The model does not fit the index, or an option contradicts the index.
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
    """Read the passages of an index; their language is the field `language` or `lang`."""
    import numpy as np

    from lusifer.evaluation.search.collection import Searched, SearchedDocument
    from lusifer.index.index import Index
    from lusifer.index.passages import joined

    opened = Index.open(place, model)
    if instructions is not None:
        raise UsageError("--instructions: the index has its own prompt of questions: leave it out")
    made = opened.model
    if opened.asks_own and dtype not in (None, made.dtype):
        raise UsageError(f"--dtype {dtype}: the index was made in {made.dtype or 'the saved dtype'}: leave it out")
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
    """Give the code of each document of an index ("" without one), and a note on values that are no codes.

    Such values are no error, because the field may have another meaning.
    """
    from lusifer.evaluation.search.questions import code_of

    codes, strange = [], []
    for each in fields:
        name = "language" if "language" in each else "lang"
        try:
            codes.append(code_of(each.get(name), str(place)))
        except DataError:  # reported below, once for all documents
            codes.append("")
            strange.append(f"field {name!r}: {reprlib.repr(each[name])}")
    if not strange:
        return codes, ()
    many = "1 document has" if len(strange) == 1 else f"{len(strange):,} documents have"
    words = f"{many} a value that is no language code; the language counts as unknown"
    return codes, (f"--documents {place}: {words}: {strange[0]}",)


def listed(words: str | None, option: str) -> list[str] | None:
    """Split a list at commas; None if nothing was given.

    Args:
        words: The value of an option.
        option: Name of the option, for the error message.

    Raises:
        UsageError: The value has no names.
    """
    if words is None:
        return None
    found = [word.strip() for word in words.split(",") if word.strip()]
    if not found:
        raise UsageError(f"{option} {words!r}: expected names with commas between them, such as en,es")
    return found


def _left(seconds: float | None) -> str:
    """Write the remaining time, if it is known and no bar shows it."""
    if seconds is None or terminal.interactive():
        return ""
    return f"{terminal.duration(seconds / 3600)} left"


def _say(made: Results) -> None:
    """Print notes on the scores: test texts seen in training, and missing scores."""
    seen = [entry.seen for entry in made.scores if entry.seen is not None]
    if seen:
        count, of = sum(each.seen for each in seen), sum(each.of for each in seen)
        terminal.note(f"{count:,} of the suite's {of:,} texts (a text of two tasks counts twice) are in the model's "
                      "training data")  # fmt: skip
    for reason, count in Counter(entry.missing for entry in made.scores if entry.missing).items():
        terminal.note(f"missing: {count} of {len(made.scores)}: {reason}")
