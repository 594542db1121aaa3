"""`lusifer evaluate`: score a model in every language."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lusifer.cli import terminal
from lusifer.cli.models import DtypeOption, Model, usable
from lusifer.errors import UsageError
from lusifer.io.files import refuse_unwritable, write_file

if TYPE_CHECKING:
    from lusifer.evaluation.scores.results import Results

SUITE_HELP = (
    "offline: SIB-200, XQuAD and similarity from --data. sample: the packaged sentences. From the hub: paper, "
    "cross-lingual, lists-only, quick (docs/benchmark.md)."
)
RUN = "run.json"  # by it a folder shows that it holds an evaluation


Data = Annotated[
    Path | None,
    typer.Option(help="Folder with sib200-xx-train.jsonl.gz and -dev.jsonl.gz, xquad-xx.json, sts-xx.jsonl."),
]
Output = Annotated[Path | None, typer.Option(help="Evaluation folder; the same call goes on where one was stopped.")]
Languages = Annotated[
    str | None, typer.Option(help="Codes, as in en,es, or all that there are; by default the 14 of the paper.")
]
Minutes = Annotated[float | None, typer.Option(min=0, help="Begin nothing after that; the next call goes on.")]
Instructions = Annotated[
    bool | None,
    typer.Option(
        "--instructions/--no-instructions",
        help="Whether queries get the instruction of their task; by default for a LUSIFER model that has any prompt.",
    ),
]
Compare = Annotated[
    list[Path] | None, typer.Option(help="Output folder of another evaluation, for the tables; may be repeated.")
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="EMBEDDER",
        help="As MODEL: it embeds the documents, MODEL the queries (suites offline and sample).",
    ),
]
Devices = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:0,cuda:1 (a process each); by default the best one here.")
]


def evaluate(
    model: Model,
    suite: Annotated[str, typer.Option(help=SUITE_HELP)] = "offline",
    data: Data = None,
    output: Output = None,
    languages: Languages = None,
    tasks: Annotated[str | None, typer.Option(help="Names of tasks, as in STS17,XNLI; by default all.")] = None,
    minutes: Minutes = None,
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
    if data is not None and not data.is_dir():
        raise UsageError(f"--data {data}: no such folder; give the one with the sib200-*.jsonl.gz files")
    if output is not None:
        refuse_unwritable(output, "folder", replaces=RUN)
    devices = tuple(usable(name.strip()) for name in device.split(",")) if device else ()
    from lusifer.evaluation.report import card, facts
    from lusifer.evaluation.run import evaluate as evaluation
    from lusifer.evaluation.scores import results

    others = [results.read(folder) for folder in compare or []]
    options = evaluation.Options(
        suite, data, listed(languages, "--languages"), listed(tasks, "--tasks"), instructions, minutes, devices,
        dtype, against, seed, command=shlex.join(["lusifer", *sys.argv[1:]]),
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
    typer.echo(text, nl=False)
    _say(made)
    if output is not None:
        with write_file(output / "table.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        terminal.note(f"{output / 'summary.json'} written; a page: lusifer report {output} --output report.html")


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
