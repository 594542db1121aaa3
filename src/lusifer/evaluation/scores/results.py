"""Read an evaluation folder of `lusifer evaluate`: the summary, and the examples behind each score.

DIR/summary.json          an entry for each language and task, with a score or the reason why it is missing
DIR/examples/TASK.json    language -> kind, ids, values, gold; a score without examples has no interval
DIR/details/TASK.json     language -> more results of the task; only some tasks of Lusifer write them
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
"""A score may differ from the score of its examples by this many percentage points, because of rounding."""


@dataclass(frozen=True)
class IndexEmbedder:
    """Another embedder, which made the vectors of the documents."""

    name: str
    identity: str


@dataclass(frozen=True)
class Model:
    """The model that was evaluated.

    Attributes:
        name: Name of the model; with `against` it also names that embedder.
        identity: Hash of weights and prompts; None if they were not on disk.
        dimension: Dimension of the vectors.
        max_tokens: Maximum length of a text in tokens.
        against: The embedder of the documents if it is another one. The model then only encoded the queries, and the
            scores are never averaged with scores of the model alone.
    """

    name: str
    identity: str | None = None
    dimension: int | None = None
    max_tokens: int | None = None
    against: IndexEmbedder | None = None

    @property
    def known_as(self) -> str | None:
        """The identity of the model, and of the embedder of the documents if it is another one."""
        return f"{self.identity} against {self.against.identity}" if self.identity and self.against else self.identity


@dataclass(frozen=True)
class Seen:
    """How many of a task's texts (`of`) were in the training data of the model (`seen`)."""

    seen: int
    of: int


@dataclass(frozen=True)
class Entry:
    """One language and task of an evaluation.

    Attributes:
        language: The code of the language.
        task: Name of the task.
        title: Description of the task for tables.
        type: mteb's type of task.
        metric: The metric, by its name in mteb.
        split: The split that was tested.
        subsets: The subsets over which the score is averaged.
        cross_lingual: Whether two languages or more take part.
        score: The score in percent; None if and only if `missing` gives a reason.
        missing: Why there is no score.
        low: Lower end of the 95 % interval; None without an interval.
        high: Upper end of that interval.
        n: Number of examples, queries or pairs.
        seconds: Duration.
        prompt: Role -> prompt.
        seen: Test texts in the training data; None if unknown.
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
    """The content of `summary.json`; unknown keys are ignored."""

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
    """The content of one evaluation folder.

    Attributes:
        folder: The folder.
        examples: Language and task -> the examples of the score.
        details: Language and task -> more results of the task.
    """

    folder: Path | None = None
    examples: Mapping[Key, Examples] = field(default_factory=dict)
    details: Mapping[Key, Mapping[str, Any]] = field(default_factory=dict)

    def part(self, cross_lingual: bool) -> Results:
        """Give the results with only the cross-lingual or only the monolingual entries."""
        return replace(self, scores=tuple(entry for entry in self.scores if entry.cross_lingual == cross_lingual))


def read(folder: Path) -> Results:
    """Read one evaluation folder, and check that the examples give the scores.

    Raises:
        DataError: A file is missing, damaged or of another format, or the files do not belong together.
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
    """Give each model a distinct name: models with the same name get the name of the evaluation folder too."""
    plain = [result.model.name for result in results]
    longer = [
        f"{name} ({result.folder.name})" if plain.count(name) > 1 and result.folder else name
        for name, result in zip(plain, results, strict=True)
    ]
    return [
        f"{name} {longer[: i + 1].count(name)}" if longer.count(name) > 1 else name for i, name in enumerate(longer)
    ]


def difference(one: Entry, other: Entry) -> str | None:
    """Say why two entries with the same task name are not comparable; None if they are."""
    for what in ("metric", "split", "subsets", "cross_lingual"):
        mine, theirs = getattr(one, what), getattr(other, what)
        if mine != theirs:
            words = [", ".join(value) if isinstance(value, tuple) else str(value) for value in (mine, theirs)]
            return f"{what.replace('_', '-')} {words[0]} against {words[1]}"
    return None


@dataclass(frozen=True)
class _Row:
    """The examples of one language, as the file has them."""

    __pydantic_config__ = Summary.__pydantic_config__
    kind: str
    ids: tuple[str, ...]
    values: tuple[float, ...]
    gold: tuple[float, ...] | None = None
    texts: str | None = None


def parse(kind: type[Parsed], file: Path) -> Parsed:
    """Read a JSON file and check its form.

    Args:
        kind: The type to parse to.
        file: The file.

    Raises:
        DataError: The file is missing or has another form; the message names the key.
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
    """Check what the types do not express."""
    found: set[Key] = set()
    for entry in entries:
        problem = None
        if (entry.score is None) != bool(entry.missing):
            problem = "expected either a score or the reason why it is missing"
        elif (entry.low is None) != (entry.high is None) or (entry.low or 0) > (entry.high or 0):
            problem = f"{entry.low} to {entry.high} is no interval"
        elif entry.score is None and entry.low is not None:
            problem = "an interval without a score"
        elif not re.fullmatch(r"\w[^/\\\0]*", entry.task):
            problem = "the name of the task cannot be the name of a file"
        elif entry.score is not None and not entry.subsets:
            problem = "a score without subsets"
        elif entry.key in found:
            problem = "duplicate score"
        if problem:
            raise DataError(f"{file}: {entry.task} in {entry.language}: {problem}; {AGAIN}")
        found.add(entry.key)


def _examples(file: Path, task: str, entries: Mapping[Key, Entry]) -> dict[Key, Examples]:
    """Read the examples of one task, none if there is no file; they must give the score in the summary."""
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
    """Read the details of one task, none if there is no file; the reader of their kind checks the rest."""
    found = parse(dict[str, dict[str, Any]], file) if file.is_file() else {}
    for language, row in found.items():
        entry = entries.get((language, task))
        if entry is None or entry.score is None:
            raise DataError(f"{file}: {language}: {SUMMARY} has no score for these details; {AGAIN}")
        if not isinstance(row.get("kind"), str):
            raise DataError(f"{file}: {language}: kind: the kind of the details is missing; {AGAIN}")
    return {(language, task): row for language, row in found.items()}


def examples_of(row: Mapping[str, Any], score: float) -> Examples:
    """Make the examples of a score and check that they give it.

    Args:
        row: kind, ids, values, gold and texts.
        score: The score in percent.

    Raises:
        DataError: The examples are damaged, or they do not give the score.
    """
    examples = Examples(**row)
    value = bootstrap.score(examples)
    if abs(value - score) > TOLERANCE:
        raise DataError(f"the examples give {value:.2f}, {SUMMARY} has {score:.2f}: they are from two evaluations")
    return examples
