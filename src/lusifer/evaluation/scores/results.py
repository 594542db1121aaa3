"""Read what `lusifer evaluate` wrote: a summary, and the examples that each score was computed from.

DIR/summary.json          an entry for each language and task, with a score or the reason why there is none
DIR/examples/TASK.json    language -> kind, ids, values, gold; what is not there has no interval
DIR/details/TASK.json     language -> what a task of ours has to say beside its score; most have nothing
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lusifer.errors import DataError
from lusifer.evaluation.scores import bootstrap
from lusifer.evaluation.scores.bootstrap import Examples, Key

FORMAT = 2
SUMMARY, EXAMPLES, DETAILS = "summary.json", "examples", "details"
AGAIN = "evaluate again"
Parsed = TypeVar("Parsed")
TOLERANCE = 0.05
"""Percent points between a score and its examples that rounding may make."""


@dataclass(frozen=True)
class IndexEmbedder:
    """Another embedder, whose the documents are."""

    name: str
    identity: str


@dataclass(frozen=True)
class Model:
    """What was measured; `identity` is a hash of weights and prompts, None where they were not on disk.

    With `against` only the queries were the model's: such scores have that embedder in `name` and are never those of
    the model alone.
    """

    name: str
    identity: str | None = None
    dimension: int | None = None
    max_tokens: int | None = None
    against: IndexEmbedder | None = None

    @property
    def known_as(self) -> str | None:
        """The identity, and with it that of another embedder whose the documents are."""
        return f"{self.identity} against {self.against.identity}" if self.identity and self.against else self.identity


@dataclass(frozen=True)
class Seen:
    """How many of a task's texts the model met in training."""

    seen: int
    of: int


@dataclass(frozen=True)
class Entry:
    """One language and task; `score` in percent is None if and only if `missing` gives the reason.

    `low` and `high` are the 95 % interval of the score, or None; `n` counts examples, queries or pairs.
    """

    language: str
    task: str
    title: str
    type: str
    metric: str
    split: str
    subsets: tuple[str, ...]
    cross_lingual: bool
    score: float | None
    missing: str | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seconds: float | None = None
    prompt: Mapping[str, str | None] | None = None
    seen: Seen | None = None

    @property
    def key(self) -> Key:
        """Language and task."""
        return self.language, self.task


@dataclass(frozen=True, eq=False)
class Summary:
    """What `summary.json` holds; keys that it does not know are left aside."""

    __pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False)
    suite: str
    model: Model
    scores: tuple[Entry, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Results(Summary):
    """One evaluation folder."""

    folder: Path | None = None
    examples: Mapping[Key, Examples] = field(default_factory=dict)
    details: Mapping[Key, Mapping[str, Any]] = field(default_factory=dict)

    def part(self, cross_lingual: bool) -> Results:
        """The cross-lingual entries alone, or the monolingual ones: the two are never in one mean."""
        return replace(self, scores=tuple(entry for entry in self.scores if entry.cross_lingual == cross_lingual))


def read(folder: Path) -> Results:
    """Read one evaluation folder, and check that the examples are those of the scores.

    Raises:
        DataError: A file is missing, damaged, of another format, or the files do not belong together; the message
            names the file and what to do.
    """
    file = folder / SUMMARY
    found = parse(dict[str, Any], file).get("format")
    if found != FORMAT:
        advice = "update lusifer" if isinstance(found, int) and found > FORMAT else f"name another folder or {AGAIN}"
        raise DataError(f"{file}: format {found!r}, not {FORMAT}: {advice}")
    summary = parse(Summary, file)
    _check_entries(file, summary.scores)
    entries = {entry.key: entry for entry in summary.scores}
    examples: dict[Key, Examples] = {}
    details: dict[Key, Mapping[str, Any]] = {}
    for task in dict.fromkeys(entry.task for entry in summary.scores):
        examples |= _examples(folder / EXAMPLES / f"{task}.json", task, entries)
        details |= _details(folder / DETAILS / f"{task}.json", task, entries)
    return Results(**vars(summary), folder=folder, examples=examples, details=details)


def names(results: Sequence[Results]) -> list[str]:
    """A name for each model that no other has: where the same stands twice, with the folder of the evaluation."""
    plain = [result.model.name for result in results]
    longer = [
        f"{name} ({result.folder.name})" if plain.count(name) > 1 and result.folder else name
        for name, result in zip(plain, results, strict=True)
    ]
    return [
        f"{name} {longer[: i + 1].count(name)}" if longer.count(name) > 1 else name for i, name in enumerate(longer)
    ]


def difference(one: Entry, other: Entry) -> str | None:
    """Why two entries are not of the same task, although its name is the same; None if they are."""
    for what in ("metric", "split", "subsets", "cross_lingual"):
        mine, theirs = getattr(one, what), getattr(other, what)
        if mine != theirs:
            words = [", ".join(value) if isinstance(value, tuple) else str(value) for value in (mine, theirs)]
            return f"{what.replace('_', '-')} {words[0]} against {words[1]}"
    return None


@dataclass(frozen=True)
class _Row:
    """The examples of one language as they are in the file."""

    __pydantic_config__ = Summary.__pydantic_config__
    kind: str
    ids: tuple[str, ...]
    values: tuple[float, ...]
    gold: tuple[float, ...] | None = None
    texts: str | None = None


def parse(kind: type[Parsed], file: Path) -> Parsed:
    """Read a file as JSON of this form.

    Raises:
        DataError: There is none, or it is of another form; the message names the key.
    """
    try:
        return TypeAdapter(kind).validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{file}: no such file: an evaluation folder is what `lusifer evaluate` writes") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        raise DataError(f"{file}: {place or 'damaged'}: {first['msg']}; {AGAIN}") from None


def _check_entries(file: Path, entries: Sequence[Entry]) -> None:
    """What the types do not say."""
    found: set[Key] = set()
    for entry in entries:
        problem = None
        if (entry.score is None) != bool(entry.missing):
            problem = "a score or the reason why it is missing, and not both, must stand there"
        elif (entry.low is None) != (entry.high is None) or (entry.low or 0) > (entry.high or 0):
            problem = f"no interval: from {entry.low} to {entry.high}"
        elif entry.score is None and entry.low is not None:
            problem = "an interval without a score"
        elif not re.fullmatch(r"\w[^/\\\0]*", entry.task):
            problem = "the task's name cannot be that of a file"
        elif entry.score is not None and not entry.subsets:
            problem = "a score over no subset"
        elif entry.key in found:
            problem = "stands there twice"
        if problem:
            raise DataError(f"{file}: {entry.task} in {entry.language}: {problem}; {AGAIN}")
        found.add(entry.key)


def _examples(file: Path, task: str, entries: Mapping[Key, Entry]) -> dict[Key, Examples]:
    """The examples of one task, none if there is no file; each must give the score that the summary has."""
    if not file.is_file():
        return {}
    found = {}
    for language, row in parse(dict[str, _Row], file).items():
        entry = entries.get((language, task))
        if entry is None or entry.score is None:
            raise DataError(f"{file}: {language}: {SUMMARY} has no score for these examples; {AGAIN}")
        try:
            found[entry.key] = examples_of(vars(row), entry.score)
        except DataError as error:
            raise DataError(f"{file}: {language}: {error}; {AGAIN}") from None
    return found


def _details(file: Path, task: str, entries: Mapping[Key, Entry]) -> dict[Key, Mapping[str, Any]]:
    """The details of one task, none if there is no file; what else is in them checks who reads them, by their kind."""
    found = parse(dict[str, dict[str, Any]], file) if file.is_file() else {}
    for language, row in found.items():
        entry = entries.get((language, task))
        if entry is None or entry.score is None:
            raise DataError(f"{file}: {language}: {SUMMARY} has no score for these details; {AGAIN}")
        if not isinstance(row.get("kind"), str):
            raise DataError(f"{file}: {language}: kind: a text that says what the details are of is not there; {AGAIN}")
    return {(language, task): row for language, row in found.items()}


def examples_of(row: Mapping[str, Any], score: float) -> Examples:
    """Make the examples of a score from kind, ids, values, gold and texts.

    Raises:
        DataError: They are damaged, or do not give the score.
    """
    examples = Examples(**row)
    value = bootstrap.score(examples)
    if abs(value - score) > TOLERANCE:
        raise DataError(f"the examples give {value:.2f}, {SUMMARY} says {score:.2f}: they are of two evaluations")
    return examples
