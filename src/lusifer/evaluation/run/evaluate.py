"""Score a model on a suite: a model in, an evaluation folder out."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from lusifer import __version__, extras, language_gap, languages
from lusifer.errors import LusiferError, UsageError
from lusifer.evaluation.run import model as subject
from lusifer.evaluation.run import workers
from lusifer.evaluation.run.encoder import Encoder, default_prompt
from lusifer.evaluation.run.folder import VECTORS, Folder
from lusifer.evaluation.run.model import Measured
from lusifer.evaluation.run.runner import Done, Plan, run
from lusifer.evaluation.scores import bootstrap
from lusifer.evaluation.scores.summary import DRAWN, digests, write, write_gap, write_islands
from lusifer.evaluation.suites import benchmark, offline
from lusifer.evaluation.suites.rows import LOCAL, Row, fingerprint
from lusifer.io import parallel_text
from lusifer.io.atomic import locked

RETRIED = ("the time budget", "cannot be loaded", "failed", "no process")  # reasons that a next call may not find
PACKAGES = ("torch", "transformers", "sentence-transformers", "mteb", "scikit-learn", "numpy")


def suites() -> tuple[str, ...]:
    """Name the suites."""
    return (*LOCAL, *benchmark.names())


@dataclass(frozen=True)
class Options:
    """How a model is scored.

    Attributes:
        suite: One of `suites`.
        data: Folder with the files of the offline suite; None for the others.
        languages: Codes; None takes the 14 of the paper.
        tasks: Names of tasks; None takes all of the suite.
        instructed: Whether queries get the instruction of their task; None: if the model is one of ours and its folder
            has any prompt. Else its own prompts named "query" and "document" or "passage" stand before the texts.
        minutes: Rows that are not begun by then are left for the next run.
        devices: Where to load the model, a process each if there are several; empty takes the best one here.
        dtype: Number format to load the model in, as in "bfloat16"; None takes that of its folder.
        seed: Of the bootstrap intervals.
        command: What was typed, for the record.
    """

    suite: str = "offline"
    data: Path | None = None
    languages: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    instructed: bool | None = None
    minutes: float | None = None
    devices: Sequence[str] = ()
    dtype: str | None = None
    seed: int = 0
    command: str = ""


@dataclass(frozen=True)
class Hears:
    """Who is told what while it runs."""

    progress: Callable[[Done], None] | None = None
    note: Callable[[str], None] = field(default=lambda _: None)


def evaluate(
    model: str | os.PathLike[str] | SentenceTransformer,
    options: Options,
    output: Path | None = None,
    *,
    name: str | None = None,
    hears: Hears | None = None,
) -> dict[str, Any]:
    """Score a model, going on where an earlier run into the same folder stopped.

    Args:
        model: A folder or hub name, or the embedder itself.
        options: What to measure and how.
        output: The evaluation folder; None keeps nothing.
        name: What to call the model in tables; None takes the folder's name.
        hears: Who is told of progress, and of files that have to be made again.

    Returns:
        The summary, as `summary.json` in the folder holds it.

    Raises:
        DataError: A file of the offline suite is damaged, or there is none.
        LusiferError: Nothing at all could be measured.
        MissingExtraError: mteb is not installed.
        UsageError: A language, task or suite is unknown, or the output folder holds another evaluation.
    """
    extras.need("eval", "mteb")
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    hears = hears or Hears()
    rows, absent = _rows(options)
    read = {} if options.data is None else digests(offline.files(options.data, _codes(options)))
    measured = subject.measured(model, name, options.devices, options.instructed, options.dtype)
    unit = options.suite in LOCAL
    plan = Plan(partial(workers.make, options.suite, options.data), measured.instructed, unit, deadline, absent)
    with _kept(output) as path:
        kept = Folder(path, hears.note)
        kept.claim(_owner(options, rows, measured, read))
        encoder = measured.encoder(path / VECTORS, unit)
        if len(options.devices) > 1:
            loaded = workers.Model(measured.place, measured.name, measured.identity, options.devices, options.dtype)
            entries = workers.run(rows, plan, loaded, encoder, kept, hears.progress)
        else:
            entries = run(rows, plan, encoder, kept, hears.progress)
        if all(entry["missing"] for entry in entries):
            kept.give_up()
            raise LusiferError(f"nothing could be measured: {entries[0]['task']}: {entries[0]['missing']}")
        kept.tidy(entries)
        summary = _summary(options, measured, read, _with_intervals(entries, kept, options.seed))
        write(summary, path)
        _look_across(options, encoder, path, hears.note)
        if not any((entry["missing"] or "").startswith(RETRIED) for entry in entries):
            kept.drop_vectors()
    return summary


def _owner(options: Options, rows: Sequence[Row], measured: Measured, read: dict[str, str]) -> dict[str, Any]:
    """Whose an evaluation folder is, in words that a message can name."""
    return {
        "suite": options.suite,
        "model": measured.identity,
        "languages": sorted({row.language for row in rows}),
        "tasks": sorted({row.task for row in rows}),
        "instructions": measured.instructed,
        "data": read,
        "rows": fingerprint(rows, measured.instructed),
    }


def _look_across(options: Options, encoder: Encoder, path: Path, note: Callable[[str], None]) -> None:
    """Measure the gap between languages where there is parallel text; where that fails, scores are still scores."""
    if (texts := _parallel(options)) is None:
        return
    few = max(language_gap.K + 1, DRAWN // len(texts))
    try:
        write_gap(language_gap.measure(encoder.vectors, texts), path)
    except LusiferError as error:
        note(f"the gap between languages: not measured: {error}")
        return
    write_islands({code: encoder.vectors(rows[:few]) for code, rows in texts.items()}, path)


def _summary(
    options: Options, measured: Measured, read: dict[str, str], entries: list[dict[str, Any]]
) -> dict[str, Any]:
    embedder = measured.embedder
    return {
        "format": 2,
        "suite": options.suite,
        "model": {
            "name": measured.name,
            "identity": measured.identity,
            "dimension": embedder.get_embedding_dimension(),
            "max_tokens": embedder.max_seq_length,
        },
        "settings": _settings(options, measured),
        "versions": {
            "lusifer": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "command": options.command,
        "data": read,
        "seconds": round(sum(entry["seconds"] or 0 for entry in entries), 1),
        "scores": entries,
    }


def check(options: Options) -> None:
    """Refuse what cannot be measured, before a model is loaded or trained.

    Raises:
        DataError: A file of the offline suite is damaged, or there is none.
        UsageError: A suite, language or task is unknown, or the offline suite has no folder.
    """
    if options.suite not in suites():
        raise UsageError(f"--suite {options.suite!r} is unknown: use one of {', '.join(suites())}")
    _rows(options)


def _codes(options: Options) -> list[str]:
    asked = options.languages or [row.code for row in languages.paper()]
    return list(dict.fromkeys(languages.language(code).code for code in asked))


def _rows(options: Options) -> tuple[list[Row], dict[tuple[str, str], str]]:
    """The rows of a suite, and those that its files do not allow."""
    codes = _codes(options)
    if options.suite not in LOCAL:
        known = benchmark.select(benchmark.suite(options.suite), codes, options.tasks)
        return known, {}
    if options.suite == "sample":
        rows, absent = offline.sample(codes), {}
        if not rows:
            raise UsageError("--languages: the sample compares languages with English: name another one")
    else:
        if options.data is None:
            raise UsageError("the offline suite reads files: name their folder with --data")
        offline.check(options.data, codes)
        rows = offline.offline(codes, options.data)
        reasons = {(row.task, row.language): offline.absent(row, options.data) for row in rows}
        absent = {key: reason for key, reason in reasons.items() if reason}
    return benchmark.select(rows, None, options.tasks), absent


def _parallel(options: Options) -> dict[str, Sequence[str]] | None:
    """The text on which the gap between languages is measured: SIB-200 where it is there, or the packaged sentences."""
    codes = [offline.ENGLISH, *(code for code in _codes(options) if code != offline.ENGLISH)]
    if options.suite not in LOCAL or len(codes) < 2:
        return None
    if options.suite == "sample" or options.data is None:
        known = parallel_text.sample().texts
        return {code: known[code] for code in codes if code in known}
    return offline.parallel(options.data, codes)


def _settings(options: Options, measured: Measured) -> dict[str, Any]:
    return {
        "seed": options.seed,
        "bootstrap": {"resamples": bootstrap.RESAMPLES, "interval": bootstrap.LEVEL},
        "instructions": measured.instructed,
        "unit_vectors": options.suite in LOCAL,
        "dtype": measured.dtype,
        "default_prompt": default_prompt(measured.embedder),
    }


def _with_intervals(entries: list[dict[str, Any]], folder: Folder, seed: int) -> list[dict[str, Any]]:
    made = {task: folder.examples(task) for task in {entry["task"] for entry in entries}}
    found = []
    for entry in entries:
        rows = made[entry["task"]].get(entry["language"])
        ends = None if rows is None else bootstrap.interval(bootstrap.Examples(**rows), seed)
        found.append(entry | ({"low": round(ends[0], 4), "high": round(ends[1], 4)} if ends else {}))
    return found


@contextmanager
def _kept(output: Path | None) -> Any:
    """The output folder, held by this process, or one that is gone afterwards."""
    if output is not None:
        made = not output.exists()
        output.mkdir(parents=True, exist_ok=True)
        refusal = f"{output}: another process evaluates into it: wait for it, or choose another --output"
        try:
            with locked(output / ".lock", refusal, remove=True):
                yield output
        finally:
            if made and output.is_dir() and not any(output.iterdir()):
                output.rmdir()
        return
    with tempfile.TemporaryDirectory(prefix="lusifer-evaluation-") as path:
        yield Path(path)
