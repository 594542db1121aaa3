"""Score a model on a suite: a model in, an evaluation folder out."""

from __future__ import annotations

import os
import platform
import shutil
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

from lusifer import __version__, extras, languages, parallel, seen
from lusifer.embedder import folder as model_folder
from lusifer.embedder import gap
from lusifer.errors import LusiferError, ModelFolderError, UsageError
from lusifer.evaluation import benchmark, offline, statistics, workers
from lusifer.evaluation.encoder import Encoder, default_prompt, model_meta
from lusifer.evaluation.measured import VECTORS, Folder
from lusifer.evaluation.rows import Row, fingerprint
from lusifer.evaluation.runner import Done, Plan, run
from lusifer.evaluation.summary import DRAWN, digests, write, write_gap, write_islands

LOCAL = ("offline", "sample")  # suites that read no hub
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
        instructed: Whether queries get the instruction of their task; None: if the model's folder has any prompt, since
            a model that never saw one has no use for it.
        minutes: Rows that are not begun by then are left for the next run.
        devices: Where to load the model, a process each if there are several; empty takes the best one here.
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
    measured = _measured(model, options, name)
    unit = options.suite in LOCAL
    plan = Plan(partial(workers.make, options.suite, options.data), measured.instructed, unit, deadline, absent)
    with _kept(output) as path:
        kept = Folder(path, hears.note)
        owner = {"suite": options.suite, "model": measured.identity, "rows": fingerprint(rows, measured.instructed)}
        kept.claim({**owner, "data": read})
        encoder = measured.encoder(path / VECTORS, unit)
        if len(options.devices) > 1:
            loaded = workers.Model(measured.place, measured.name, measured.identity, options.devices)
            entries = workers.run(rows, plan, loaded, encoder, kept, hears.progress)
        else:
            entries = run(rows, plan, encoder, kept, hears.progress)
        if all(entry["missing"] for entry in entries):
            raise LusiferError(f"nothing could be measured: {entries[0]['task']}: {entries[0]['missing']}")
        if (texts := _parallel(options)) is not None:
            write_gap(gap.measure(encoder.vectors, texts), path)
            few = max(gap.K + 1, DRAWN // len(texts))
            write_islands({code: encoder.vectors(rows[:few]) for code, rows in texts.items()}, path)
        summary = _summary(options, measured, read, [_interval(entry, kept, options.seed) for entry in entries])
        write(summary, path)
        if not any(entry["missing"] for entry in entries):
            shutil.rmtree(path / VECTORS, ignore_errors=True)  # what they were kept for is done
    return summary


@dataclass(frozen=True)
class _Measured:
    """The model that is scored; `place` is its folder or name, None for one that is only in memory."""

    embedder: SentenceTransformer
    name: str
    identity: str
    place: str | None
    instructed: bool

    def encoder(self, cache: Path, unit: bool) -> Encoder:
        """As mteb calls it."""
        meta = model_meta(self.name, self.identity)
        return Encoder(self.embedder, meta, cache, instructed=self.instructed, unit=unit, seen=_seen(self.place))


def _measured(model: str | os.PathLike[str] | SentenceTransformer, options: Options, name: str | None) -> _Measured:
    embedder = model if isinstance(model, SentenceTransformer) else _load(model, options.devices)
    identity, place = _identity(model, embedder)
    named = name or (Path(os.fspath(model)).name if not isinstance(model, SentenceTransformer) else "in memory")
    instructed = any(embedder.prompts.values()) if options.instructed is None else options.instructed
    return _Measured(embedder, named, identity, place, instructed)


def _summary(
    options: Options, measured: _Measured, read: dict[str, str], entries: list[dict[str, Any]]
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
        "settings": _settings(options, embedder, measured.instructed),
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
    else:
        if options.data is None:
            raise UsageError("the offline suite reads files: name their folder with --data")
        offline.check(options.data, codes)
        rows = offline.offline(codes, options.data)
        reasons = {(row.task, row.language): offline.absent(row, options.data) for row in rows}
        absent = {key: reason for key, reason in reasons.items() if reason}
    return benchmark.select(rows, None, options.tasks), absent


def _load(model: str | os.PathLike[str], devices: Sequence[str]) -> SentenceTransformer:
    return model_folder.load(model, device=devices[0] if devices else None)


def _identity(
    model: str | os.PathLike[str] | SentenceTransformer, embedder: SentenceTransformer
) -> tuple[str, str | None]:
    """The hash by which scores are kept, and where the model lies, if anywhere."""
    if isinstance(model, SentenceTransformer):
        return model_folder.identity_in_memory(embedder), None
    path = Path(os.fspath(model)).expanduser()
    if not path.is_dir():
        try:
            path = model_folder.fetch(os.fspath(model))  # a hub name: its files are in the cache by now
        except ModelFolderError:
            return model_folder.identity_in_memory(embedder), os.fspath(model)
    return model_folder.identity(path), str(path)


def _seen(place: str | None) -> seen.SeenTexts | None:
    """The texts that a model was trained on, where it lies in its run's folder."""
    return seen.of_model(Path(place)) if place is not None and Path(place).is_dir() else None


def _parallel(options: Options) -> dict[str, Sequence[str]] | None:
    """The text on which the gap between languages is measured: SIB-200 where it is there, or the packaged sentences."""
    codes = [offline.ENGLISH, *(code for code in _codes(options) if code != offline.ENGLISH)]
    if options.suite not in LOCAL or len(codes) < 2:
        return None
    if options.suite == "sample" or options.data is None:
        known = parallel.sample().texts
        return {code: known[code] for code in codes if code in known}
    return offline.parallel(options.data, codes)


def _settings(options: Options, embedder: SentenceTransformer, instructed: bool) -> dict[str, Any]:
    return {
        "seed": options.seed,
        "bootstrap": {"resamples": statistics.RESAMPLES, "interval": statistics.LEVEL},
        "instructions": instructed,
        "unit_vectors": options.suite in LOCAL,
        "default_prompt": default_prompt(embedder),
    }


def _interval(entry: dict[str, Any], folder: Folder, seed: int) -> dict[str, Any]:
    made = folder.examples(entry["task"]).get(entry["language"])
    if entry["missing"] or made is None:
        return entry
    ends = statistics.interval(statistics.Examples(**made), seed)
    return entry | dict(zip(("low", "high"), (round(end, 4) for end in ends or ()), strict=False))


@contextmanager
def _kept(output: Path | None) -> Any:
    """The output folder, or one that is gone afterwards."""
    if output is not None:
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="lusifer-evaluation-") as path:
        yield Path(path)
