"""Read a file or a dataset on the Hub as a `datasets.Dataset` of checked rows; the table of published datasets."""

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
from lusifer.io.files import A_PIPE
from lusifer.io.rows import SUFFIXES, BadRows

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLE = "sample:"
_HUB_ID = re.compile(r"(hf://datasets/)?[\w.-]+/[\w.-]+(@\S+)?")
_LOOK = 1000  # the most rows, or bad rows, that are read to find the kind of a file
_BUFFER = 10_000  # rows of a stream that are shuffled together
_ROLES = {
    "reconstruct": "reconstruct",
    "passage_and_query": "passage <-> query",
    "query_to_passage": "query -> passage",
}
_LISTS: Mapping[str, Lists] = {".csv": "spelled", ".jsonl": "refused"}  # the rest, Parquet, has lists of its own


@dataclass(frozen=True)
class SourceSpec:
    """Where rows come from.

    path: A file, a pattern or `sample:NAME`.
    hub: The id of a dataset on the Hub, in place of `path`; `config`, `split` and `revision` select from it.
    limit: How many rows are sampled with `seed` if there are more; None reads all.
    fields: Our column -> the column of the file.
    skip_bad: How many invalid rows may be skipped.
    streaming: Whether a dataset on the Hub is read without storing it.
    rename: What messages advise in front of "COLUMN=NAME"; None is a recipe's `fields`.
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
    """Return a short name for logs: the Hub id, or the name of the file without folder and suffixes."""
    if hub:
        return hub
    file = Path((path or "").removeprefix(SAMPLE))
    ending = row_files.ending(file)
    return file.name[: -len(ending)] if ending in SUFFIXES else file.name


@cache
def published() -> Mapping[str, dict[str, Any]]:
    """Read the table of published datasets: Hub id -> facts (described in `sources.toml`)."""
    return tomllib.loads(resources.files("lusifer.data").joinpath("sources.toml").read_text(encoding="utf-8"))


def published_page(english_only: bool = False) -> str:
    """Return the table of published datasets in Markdown; `english_only` leaves out the others and lists them."""
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
    """List the files of a path, a pattern or `sample:NAME`, sorted by name.

    Brackets in the name of an existing folder are no pattern.

    Raises:
        UsageError: There is no file, or one with an unknown ending.
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
            raise UsageError(f"{file}: unknown ending: use one of {', '.join(SUFFIXES)}")
    return found


def _pattern(path: str) -> str:
    """The path, with brackets escaped in the names of existing folders."""
    parts = Path(path).parts
    there = [Path(*parts[:end]).exists() for end in range(1, len(parts) + 1)]
    return str(Path(*(part.replace("[", "[[]") if is_there else part for part, is_there in zip(parts, there))))


def _missing(path: str) -> str:
    """The message for a path without a file."""
    if path.startswith(SAMPLE):
        there = resources.files("lusifer.data").joinpath("sample").iterdir()
        names = sorted(file.name.removesuffix(".jsonl") for file in there if file.name.endswith(".jsonl"))
        samples = ", ".join(SAMPLE + name for name in names)
        return f"{path}: no such sample in the package: use one of {samples}"
    if Path(path).is_dir():
        return f"{path}: is a folder: name its files, such as '{path.rstrip('/')}/*.jsonl'"
    if Path(path).exists():
        return f"{path}: {A_PIPE}: save its rows as a file ({', '.join(SUFFIXES)})"
    if glob.has_magic(path):
        return f"{path}: no such file: nothing matches the pattern: correct it"
    if _HUB_ID.fullmatch(path) and row_files.ending(Path(path)) not in SUFFIXES:
        return f"{path}: no such file: correct the path; for a dataset on the Hub use {{hub: OWNER/NAME}} in a recipe"
    return f"{path}: no such file: correct the path (in a recipe, data_root may name the folder that it is in)"


def load(spec: SourceSpec, kind: str, bad: BadRows | None = None) -> Dataset:
    """Read all rows of a source.

    Args:
        spec: Where they come from.
        kind: "passages" (columns text, source), "labelled" (text, label, source) or "pairs" (query, positive, negative,
            instruction, task, label, cluster, source).
        bad: Records skipped rows; None skips as many as the source allows, without a record.

    Returns:
        The checked rows in the order of the source, on disk.

    Raises:
        UsageError: There is no such file or dataset.
        DataError: A row is invalid, and the message names file, line and column; or there is no row.
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
        raise DataError(f"{spec.hub or spec.path}: no rows: correct the path or the file")
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
    """Yield the checked rows of one file.

    Args:
        file: The file.
        kind: "pairs", "passages" or "labelled".
        fields: Our column -> the column of the file.
        bad: Records bad rows; None: the first bad row is raised.
        labels: Whether a row without a label is a bad row.
        rename: As in `SourceSpec`.

    Raises:
        DataError: There are more bad rows than `bad` allows, or the file cannot be read to its end.
    """
    lists = _LISTS.get(row_files.ending(file).removesuffix(".gz"), "texts")
    columns = [(fields or {}).get(column, column) for column in schema.COLUMNS[kind]]

    def check(row: Any, where: str) -> Row:
        checked = schema.check(kind, row, where, fields, lists, rename)
        if labels and checked["label"] is None:
            raise DataError(f"{where}: column label: is empty: fill it, or leave --labels out")
        return checked

    return row_files.read(file, check, bad, columns)


@dataclass(frozen=True)
class OpenedFiles:
    """Files with rows of one kind.

    kind: "pairs", "passages" or "labelled".
    rows: The checked rows; can be read once.
    bad: Lists the skipped rows, when `rows` has been read.
    fields: Our column -> the column of the files.
    ignored: Columns of the first file that this kind does not have.
    """

    kind: str
    files: list[Path]
    rows: Iterator[Row]
    bad: BadRows
    fields: Mapping[str, str]
    ignored: list[str]


def open_files(paths: Iterable[str], skip_bad: int, fields: Mapping[str, str], labels: bool = False) -> OpenedFiles:
    """Open files of rows; the first file decides the kind of rows.

    Args:
        paths: Files, patterns or `sample:NAME`.
        skip_bad: How many bad rows may be skipped.
        fields: Our column -> the column of the files.
        labels: Whether a pair without a label is a bad row.

    Raises:
        UsageError: A file is missing or has an unknown ending.
        DataError: The first row cannot be read, its columns fit no kind, or it has both names of a column in `fields`.
    """
    found, bad = [file for path in paths for file in files(path)], BadRows(skip_bad)
    of = _kind(found[0], fields)
    known = {fields.get(column, column) for column in schema.COLUMNS[of]}
    first = next(iter(row_files.read(found[0], lambda row, _: row, BadRows(_LOOK), columns=())), {})
    for ours, theirs in fields.items():
        if ours not in fields.values() and {ours, theirs} <= set(first):
            words = f"has both columns of --field {ours}={theirs}: rename or remove one of the two"
            raise DataError(f"{found[0]}: {words}")
    ignored = [str(column) for column in first if column not in known] if isinstance(first, Mapping) else []
    need_label = labels and of != "passages"
    rows = (row for file in found for row in read_file(file, of, fields, bad, need_label, "--field "))
    return OpenedFiles(of, found, rows, bad, fields, ignored)


def _kind(file: Path, fields: Mapping[str, str]) -> str:
    """The kind of rows of a file, by its first ones."""
    back = {theirs: ours for ours, theirs in fields.items()}

    def of(row: Any, where: str) -> str:
        renamed = {back.get(key, key): None for key in row} if isinstance(row, Mapping) else row
        return schema.kind_of(row_files.CsvRow(renamed) if isinstance(row, row_files.CsvRow) else renamed, where)

    first = list(islice(row_files.read(file, of, BadRows(_LOOK), columns=()), _LOOK))
    if not first:
        next(iter(row_files.read(file, of, columns=())), None)  # raises the error of the first row
        raise DataError(f"{file}: no rows: correct the path or the file")
    # If some of the first rows have a label, the others lack it, and are refused when they are read.
    return "labelled" if "labelled" in first else first[0]


def fields(pairs: Iterable[str]) -> dict[str, str]:
    """Parse "ours=theirs" arguments into a map: our column -> the column of the files.

    Raises:
        UsageError: An argument has another form, our column is unknown, or a column is named twice.
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
    """Yield the checked rows of a dataset on the Hub; unless it is streamed, only sampled rows are read."""
    for number, row in _hub_stream(spec, kind) if spec.streaming else _hub_drawn(spec, kind):
        where = f"{spec.hub} {'streamed ' if spec.streaming else ''}row {number}"
        try:
            checked = schema.check(kind, row, where, spec.fields, rename=spec.rename)
        except DataError as error:
            bad.take(error)
        else:
            yield checked


def _needed(rows: Any, kind: str, fields: Mapping[str, str]) -> Any:
    """The dataset with only the columns of a kind; with all columns if a required one is missing, for the message."""
    there = rows.column_names or []
    if not {fields.get(column, column) for column in schema.REQUIRED[kind]} <= set(there):
        return rows
    asked = {fields.get(column, column) for column in schema.COLUMNS[kind]}
    return rows.select_columns([column for column in there if column in asked])


def _hub_drawn(spec: SourceSpec, kind: str) -> Iterator[tuple[int, Row]]:
    """Yield (number from 1, row) of a dataset in the cache; with `limit` only the sampled rows."""
    rows = _needed(_hub_rows(spec), kind, spec.fields)
    chosen = draw(len(rows), spec.limit, spec.seed)
    for number in chosen if chosen is not None else range(len(rows)):
        yield number + 1, rows[number]


@contextmanager
def _asking(spec: SourceSpec) -> Iterator[dict[str, Any]]:
    """Yield the arguments of `load_dataset`; errors in the block are raised as a UsageError of one line."""
    import datasets

    what = f"dataset {spec.hub}"
    try:
        with hub.asking(what, UsageError):
            commit = hub.commit(spec.hub or "", spec.revision, "dataset")
            # With the prefix, because the bare id would mean a local folder of that name.
            path = f"hf://datasets/{spec.hub}"
            yield {"path": path, "name": spec.config, "split": spec.split, "revision": commit}
    except datasets.exceptions.DatasetsError as error:
        raise UsageError(f"{what}: {hub.why(error.__cause__ or error)}") from error


def _hub_stream(spec: SourceSpec, kind: str) -> Iterator[tuple[int, Row]]:
    """Yield (number from 1, row) of a dataset as it is downloaded; with `limit` shuffled in a buffer and cut off."""
    import datasets

    with _asking(spec) as wanted:
        rows = _needed(datasets.load_dataset(**wanted, streaming=True), kind, spec.fields)
        if spec.limit is not None:
            rows = rows.shuffle(seed=spec.seed, buffer_size=_BUFFER).take(spec.limit)
        yield from enumerate(rows, start=1)


def _hub_rows(spec: SourceSpec) -> Dataset:
    """The rows of a dataset on the Hub at its revision; UsageError if the cache has only another revision."""
    import datasets

    with _asking(spec) as wanted:
        rows = datasets.load_dataset(**wanted)
    # If the Hub cannot be reached, the library takes the latest cached revision, not the requested one. In the cache
    # each commit has a folder of its own.
    commit = wanted["revision"]
    cached = next((Path(file["filename"]).parent for file in rows.cache_files), None)
    if cached is None or cached.name == commit:
        return rows
    names = (f"*-{spec.split}.arrow", f"*-{spec.split}-?????-of-?????.arrow")
    shards = sorted(file for name in names for file in (cached.parent / commit).glob(name))
    if not shards:
        raise UsageError(
            f"dataset {spec.hub}: the cache of this machine has revision {cached.name}, not {commit} "
            f"({spec.revision or 'main'}), and the Hub cannot be reached: run once with access to the Hub"
        )
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in shards])
