"""From a file or a hub id to a `datasets.Dataset` of checked rows, and the table of published training sets."""

from __future__ import annotations

import glob
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lusifer.data import schema, tables
from lusifer.data.schema import Lists, Row
from lusifer.data.tables import draw
from lusifer.errors import DataError, UsageError
from lusifer.io import hub, markdown
from lusifer.io import rows as row_files
from lusifer.io.rows import SUFFIXES, BadRows

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLE = "sample:"
_HUB_ID = re.compile(r"(hf://datasets/)?[\w.-]+/[\w.-]+(@\S+)?")
_LOOK = 1000  # bad rows in front of the one that tells the kind of a file
_BUFFER = 10_000  # rows of a stream that are mixed at once
_ROLES = {
    "reconstruct": "reconstruct",
    "passage_and_query": "passage <-> query",
    "query_to_passage": "query -> passage",
}
_LISTS: Mapping[str, Lists] = {".csv": "spelled", ".jsonl": "refused"}  # Parquet has lists, and tools that write them


@dataclass(frozen=True)
class SourceSpec:
    """Where rows come from: `path` (a file, a pattern, `sample:NAME`) or `hub` (a data set id).

    `limit` rows are drawn with `seed` when there are more; `fields` maps our columns to the file's; up to `skip_bad`
    rows that are not what they should be are left out; `streaming` reads a hub set without keeping it; `rename` is what
    messages advise before "COLUMN=NAME".
    """

    path: str | None = None
    hub: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    limit: int | None = None
    seed: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)
    skip_bad: int = 0
    streaming: bool = False
    rename: str | None = None


def short_name(path: str | None, hub: str | None) -> str:
    """A short name for logs: the hub id, or the file without folder and suffixes."""
    if hub:
        return hub
    file = Path((path or "").removeprefix(SAMPLE))
    ending = row_files.ending(file)
    return file.name[: -len(ending)] if ending in SUFFIXES else file.name


@cache
def published() -> Mapping[str, dict[str, Any]]:
    """Read the table of published sets, hub id -> facts (`sources.toml` says which)."""
    return tomllib.loads(resources.files("lusifer.data").joinpath("sources.toml").read_text(encoding="utf-8"))


def published_page(english_only: bool = False) -> str:
    """Give the table of published sets in Markdown; `english_only` leaves out the others and names them."""
    sets, left_out = published(), []
    if english_only:
        left_out = [name for name, facts in sets.items() if facts.get("language", "en") != "en"]
        sets = {name: facts for name, facts in sets.items() if name not in left_out}
    counts = {words: sum(role in facts["roles"] for facts in sets.values()) for role, words in _ROLES.items()}
    template = markdown.environment("lusifer.data", cell=markdown.cell, in_words=_ROLES.get).get_template("sets.md")
    return template.render(
        sets=sets,
        roles=", ".join(f"{count} {words}" for words, count in counts.items()),
        negatives=[facts.get("in_batch_negatives") for facts in sets.values()],
        left_out=left_out,
    )


def files(path: str) -> list[Path]:
    """Give the files that a path, a pattern or `sample:NAME` stands for, sorted by name.

    Brackets are no pattern in the name of a folder that is there.

    Raises:
        UsageError: There is none, or its kind cannot be read.
    """
    given = path
    if path.startswith(SAMPLE):
        path = str(resources.files("lusifer.data").joinpath("sample", path.removeprefix(SAMPLE) + ".jsonl"))
    found = [Path(path)] if Path(path).is_file() else sorted(map(Path, glob.glob(_pattern(path), recursive=True)))
    found = [file for file in found if file.is_file()]
    if not found:
        raise UsageError(_missing(given))
    for file in found:
        if row_files.ending(file) not in SUFFIXES:
            raise UsageError(f"{file}: cannot be read as data: use one of {', '.join(SUFFIXES)}")
    return found


def _pattern(path: str) -> str:
    """The path, with brackets in the names of folders that are there made plain."""
    parts = Path(path).parts
    there = [Path(*parts[:end]).exists() for end in range(1, len(parts) + 1)]
    return str(Path(*(part.replace("[", "[[]") if is_there else part for part, is_there in zip(parts, there))))


def _missing(path: str) -> str:
    """Why a path stands for no file."""
    if path.startswith(SAMPLE):
        there = resources.files("lusifer.data").joinpath("sample").iterdir()
        names = sorted(file.name.removesuffix(".jsonl") for file in there if file.name.endswith(".jsonl"))
        samples = ", ".join(SAMPLE + name for name in names)
        return f"{path}: no such sample in the package: use one of {samples}"
    if Path(path).is_dir():
        return f"{path}: is a folder: name its files, as in '{path.rstrip('/')}/*.jsonl'"
    if glob.has_magic(path):
        return f"{path}: no such file: nothing matches the pattern: correct it"
    if _HUB_ID.fullmatch(path) and row_files.ending(Path(path)) not in SUFFIXES:
        return f"{path}: no such file: correct the path; a data set of the hub is read in a recipe, {{hub: OWNER/NAME}}"
    return f"{path}: no such file: correct the path (in a recipe, data_root may name the folder that it is in)"


def load(spec: SourceSpec, kind: str, bad: BadRows | None = None) -> Dataset:
    """Read all rows of a source.

    Args:
        spec: Where they come from.
        kind: "passages" (columns text, source), "labelled" (text, label, source) or "pairs" (query, positive, negative,
            instruction, task, label, cluster, source).
        bad: Where skipped rows are listed; by default as many as the source allows, listed nowhere.

    Returns:
        The checked rows in the order of the source; of `limit` drawn rows the order is kept. They lie on disk.

    Raises:
        UsageError: No such file.
        DataError: A row is not what it should be; the message names file, line and column. No row at all.
    """
    bad = bad if bad is not None else BadRows(spec.skip_bad)
    if spec.hub is not None:
        rows = _from_hub(spec, kind, bad)
    else:
        rows = (
            row
            for file in files(spec.path or "")
            for row in read_file(file, kind, spec.fields, bad, rename=spec.rename)
        )
    table = tables.collect(rows, kind)
    if not len(table):
        raise DataError(f"{spec.hub or spec.path}: no row in it: correct the path or the file")
    if spec.hub is not None:
        return table
    chosen = draw(len(table), spec.limit, spec.seed)
    return table if chosen is None else tables.take(table, chosen, kind)


def read_file(
    file: Path,
    kind: str,
    fields: Mapping[str, str] | None = None,
    bad: BadRows | None = None,
    labels: bool = False,
    rename: str | None = None,
) -> Iterator[Row]:
    """Yield the checked rows of one file; arguments and errors as for `load` and `open_files`."""
    lists = _LISTS.get(row_files.ending(file).removesuffix(".gz"), "texts")
    columns = [(fields or {}).get(column, column) for column in schema.COLUMNS[kind]]

    def check(row: Any, where: str) -> Row:
        checked = schema.check(kind, row, where, fields, lists, rename)
        if labels and checked["label"] is None:
            raise DataError(f"{where}: column label: nothing in it: fill it, or leave --labels out")
        return checked

    return row_files.read(file, check, bad, columns)


@dataclass(frozen=True)
class OpenedFiles:
    """Files of rows of one kind: `rows` can be read once, and `bad` then lists the rows that were left out.

    `fields` maps our columns to the files'; `ignored` are columns of the first file that this kind does not have.
    """

    kind: str
    files: list[Path]
    rows: Iterator[Row]
    bad: BadRows
    fields: Mapping[str, str]
    ignored: list[str]


def open_files(paths: Iterable[str], skip_bad: int, fields: Mapping[str, str], labels: bool = False) -> OpenedFiles:
    """Open files of rows, whose kind is that of the first file.

    `paths` may be patterns and `sample:NAME`; `skip_bad` rows may be left out, and with `labels` a pair without a label
    is a bad row.

    Raises:
        UsageError: A file is missing or cannot be read as data.
        DataError: The first row cannot be read, has columns of no kind, or one beside another that is to be read as it.
    """
    found, bad = [file for path in paths for file in files(path)], BadRows(skip_bad)
    of = _kind(found[0], fields)
    known = {fields.get(column, column) for column in schema.COLUMNS[of]}
    first = next(iter(row_files.read(found[0], lambda row, _: row, BadRows(_LOOK), columns=())), {})
    for ours, theirs in fields.items():
        if ours not in fields.values() and {ours, theirs} <= set(first):
            words = (
                f"--field {ours}={theirs}, and the rows have a column {ours} as well: rename or remove one of the two"
            )
            raise DataError(f"{found[0]}: {words}")
    ignored = [str(column) for column in first if column not in known] if isinstance(first, Mapping) else []
    need_label = labels and of != "passages"
    rows = (row for file in found for row in read_file(file, of, fields, bad, need_label, "--field "))
    return OpenedFiles(of, found, rows, bad, fields, ignored)


def _kind(file: Path, fields: Mapping[str, str]) -> str:
    """The kind of rows of a file, by its first ones."""
    back = {theirs: ours for ours, theirs in fields.items()}

    def of(row: Any, where: str) -> str:
        return schema.kind_of({back.get(key, key): None for key in row} if isinstance(row, Mapping) else row, where)

    first = list(islice(row_files.read(file, of, BadRows(_LOOK), columns=()), _LOOK))
    if not first:
        next(iter(row_files.read(file, of, columns=())), None)  # says what is wrong with the first row
        raise DataError(f"{file}: no row in it: correct the path or the file")
    # If some of the first rows have a label, it is missing in the others, and they are refused when they are read.
    return "labelled" if "labelled" in first else first[0]


def fields(pairs: Iterable[str]) -> dict[str, str]:
    """Read "ours=theirs" words as the map of column names.

    Raises:
        UsageError: A word of another form, a column that no kind of rows has, or one that is named twice.
    """
    named: dict[str, str] = {}
    columns = {column for kind in schema.COLUMNS.values() for column in kind}
    for pair in pairs:
        ours, sign, theirs = pair.partition("=")
        if not sign or not theirs or ours not in columns:
            raise UsageError(f"--field {pair}: give OURS=THEIRS, where OURS is one of {', '.join(sorted(columns))}")
        if ours in named or theirs in named.values():
            twice = ours if ours in named else theirs
            raise UsageError(f"--field {pair}: column {twice} is named twice: name each column once")
        named[ours] = theirs
    return named


def _from_hub(spec: SourceSpec, kind: str, bad: BadRows) -> Iterator[Row]:
    """Yield checked rows of a hub data set; of one that is not streamed only drawn rows are read."""
    for number, row in _hub_stream(spec, kind) if spec.streaming else _hub_drawn(spec, kind):
        where = f"{spec.hub} {'streamed ' if spec.streaming else ''}row {number}"
        try:
            checked = schema.check(kind, row, where, spec.fields, rename=spec.rename)
        except DataError as error:
            bad.take(error)
        else:
            yield checked


def _needed(rows: Any, kind: str, fields: Mapping[str, str]) -> Any:
    """A data set with the columns alone that rows of a kind have; where one is missing all, so that it can be said."""
    there = rows.column_names or []
    if not {fields.get(column, column) for column in schema.REQUIRED[kind]} <= set(there):
        return rows
    asked = {fields.get(column, column) for column in schema.COLUMNS[kind]}
    return rows.select_columns([column for column in there if column in asked])


def _hub_drawn(spec: SourceSpec, kind: str) -> Iterator[tuple[int, Row]]:
    """Yield (number from 1, row) of a set in the cache, those that `limit` draws."""
    rows = _needed(_hub_rows(spec), kind, spec.fields)
    chosen = draw(len(rows), spec.limit, spec.seed)
    for number in chosen if chosen is not None else range(len(rows)):
        yield number + 1, rows[number]


@contextmanager
def _asking(spec: SourceSpec) -> Iterator[dict[str, Any]]:
    """Yield what `load_dataset` is to load; what goes wrong in the block is raised as a UsageError of one line."""
    import datasets

    what = f"data set {spec.hub}"
    try:
        with hub.asking(what, UsageError):
            commit = hub.commit(spec.hub or "", spec.revision, "dataset")
            # Spelled out, since the bare id would mean a folder of that name where there is one.
            path = f"hf://datasets/{spec.hub}"
            yield {"path": path, "name": spec.config, "split": spec.split, "revision": commit}
    except datasets.exceptions.DatasetsError as error:
        raise UsageError(f"{what}: {hub.why(error.__cause__ or error)}") from error


def _hub_stream(spec: SourceSpec, kind: str) -> Iterator[tuple[int, Row]]:
    """Yield (number from 1, row) of a set as it comes over the network; with `limit` mixed in a buffer and cut."""
    import datasets

    with _asking(spec) as wanted:
        rows = _needed(datasets.load_dataset(**wanted, streaming=True), kind, spec.fields)
        if spec.limit is not None:
            rows = rows.shuffle(seed=spec.seed, buffer_size=_BUFFER).take(spec.limit)
        yield from enumerate(rows, start=1)


def _hub_rows(spec: SourceSpec) -> Dataset:
    """The rows of a hub data set at its revision; UsageError if the cache holds another one alone."""
    import datasets

    with _asking(spec) as wanted:
        rows = datasets.load_dataset(**wanted)
    # Without the hub the library takes what it cached last, whatever revision is asked for. Each commit has a folder.
    commit = wanted["revision"]
    cached = next((Path(file["filename"]).parent for file in rows.cache_files), None)
    if cached is None or cached.name == commit:
        return rows
    names = (f"*-{spec.split}.arrow", f"*-{spec.split}-?????-of-?????.arrow")
    shards = sorted(file for name in names for file in (cached.parent / commit).glob(name))
    if not shards:
        raise UsageError(
            f"data set {spec.hub}: the cache of this machine holds revision {cached.name}, not {commit} "
            f"({spec.revision or 'main'}), and the hub cannot be asked: run once with the hub"
        )
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in shards])
