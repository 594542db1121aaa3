"""From a file or a hub id to a `datasets.Dataset` of checked rows."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import random
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lusifer import hub
from lusifer.data.schema import Row, check_pair, check_passage
from lusifer.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
SAMPLE = "sample:"
_CHUNK = 10_000  # rows turned into columns at once


@dataclass(frozen=True)
class SourceSpec:
    """Where rows come from: `path` (a file, a pattern, `sample:NAME`) or `hub` (a data set id).

    `limit` rows are drawn with `seed` when there are more; `fields` maps our columns to the file's.
    """

    path: str | None = None
    hub: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    limit: int | None = None
    seed: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A short name for logs."""
        return short_name(self.path, self.hub)


def short_name(path: str | None, hub: str | None) -> str:
    """A short name for logs: the hub id, or the file without folder and suffixes."""
    if hub:
        return hub
    name = Path((path or "").removeprefix(SAMPLE)).name
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


@cache
def published() -> Mapping[str, dict[str, Any]]:
    """Read the table of published sets, hub id -> facts (`sources.toml` says which)."""
    return tomllib.loads(resources.files("lusifer.data").joinpath("sources.toml").read_text(encoding="utf-8"))


def files(path: str) -> list[Path]:
    """Give the files that a path, a pattern or `sample:NAME` stands for, sorted by name.

    Raises:
        UsageError: There is none, or its kind cannot be read.
    """
    if path.startswith(SAMPLE):
        path = str(resources.files("lusifer.data").joinpath("sample", path.removeprefix(SAMPLE) + ".jsonl"))
    found = [Path(path)] if Path(path).is_file() else sorted(map(Path, glob.glob(path, recursive=True)))
    found = [file for file in found if file.is_file()]
    if not found:
        raise UsageError(f"{path}: no such file: correct the path, or set data_root to the folder it is in")
    for file in found:
        if not file.name.endswith(SUFFIXES):
            raise UsageError(f"{file}: cannot be read as data: use one of {', '.join(SUFFIXES)}")
    return found


def load(spec: SourceSpec, kind: str) -> Dataset:
    """Read all rows of a source.

    Args:
        spec: Where they come from.
        kind: "passages" (columns text, source) or "pairs" (query, positive, negative, instruction, task, label,
            cluster, source).

    Returns:
        The checked rows in the order of the source; of `limit` drawn rows the order is kept.

    Raises:
        UsageError: No such file.
        DataError: A row is not what it should be; the message names file, line and column. No row at all.
    """
    if spec.hub is not None:
        return _table(_from_hub(spec, kind), kind, spec)
    rows = (row for file in files(spec.path or "") for row in read_file(file, kind, spec.fields))
    return _table(rows, kind, spec, draw=True)


def read_file(file: Path, kind: str, fields: Mapping[str, str] | None = None) -> Iterator[Row]:
    """Yield the checked rows of one file; `kind`, `fields` and errors as for `load` and `check_pair`."""
    check = check_pair if kind == "pairs" else check_passage
    for where, row in _raw_rows(file):
        yield check(row, where, fields)


def _raw_rows(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield (where, row) from a file of any kind we read."""
    if file.name.endswith(".parquet"):
        yield from _parquet(file)
        return
    try:
        with gzip.open(file, "rb") if file.name.endswith(".gz") else file.open("rb") as stream:
            yield from (_jsonl if file.name.removesuffix(".gz").endswith(".jsonl") else _csv)(file, stream)
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        raise DataError(f"{file}: cannot be read to its end ({error}): copy or download it again") from error


def _jsonl(file: Path, stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(stream, start=1):
        where = f"{file} line {number}"
        if not line.strip():
            continue
        try:
            yield where, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 (byte {error.start}): save the file as UTF-8") from None
        except json.JSONDecodeError as error:
            problem = f"not JSON ({error.msg}, column {error.colno})"
            raise DataError(f"{where}: {problem}: one object a line is expected") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
            raise DataError(f"{where}: JSON that cannot be read ({error}): one plain object a line") from None


def _csv(file: Path, stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    reader = csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), strict=True)
    try:
        for row in reader:
            where = f"{file} line {reader.line_num}"
            if None in row or None in row.values():
                raise DataError(f"{where}: expected {len(reader.fieldnames or ())} columns as in the first line")
            yield where, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} after line {reader.line_num}: not a CSV file in UTF-8 ({error})") from None


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=_CHUNK):
            for row in batch.to_pylist():
                number += 1
                yield f"{file} row {number}", row
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file} after row {number}: not a readable Parquet file ({error})") from error


def _from_hub(spec: SourceSpec, kind: str) -> Iterator[Row]:
    """Yield checked rows of a hub data set; only drawn rows are read."""
    rows = _hub_rows(spec)
    chosen = _draw(len(rows), spec)
    check = check_pair if kind == "pairs" else check_passage
    for number in chosen if chosen is not None else range(len(rows)):
        yield check(rows[number], f"{spec.hub} row {number + 1}", spec.fields)


def _hub_rows(spec: SourceSpec) -> Dataset:
    """The rows of a hub data set at its revision.

    Raises:
        UsageError: The hub does not give it, or the cache holds another revision.
    """
    import datasets

    what = f"data set {spec.hub}"
    try:
        with hub.asking(what, UsageError):
            wanted = hub.commit(spec.hub or "", spec.revision, "dataset")
            # Spelled out, since the bare id would mean a folder of that name where there is one.
            rows = datasets.load_dataset(f"hf://datasets/{spec.hub}", spec.config, split=spec.split, revision=wanted)
    except datasets.exceptions.DatasetsError as error:
        raise UsageError(f"{what}: {hub.why(error.__cause__ or error)}") from error
    # Without the hub the library takes what it cached last, whatever revision is asked for. Each commit has a folder.
    held = next((Path(file["filename"]).parent for file in rows.cache_files), None)
    if held is None or held.name == wanted:
        return rows
    if not (held.parent / wanted).is_dir():
        raise UsageError(
            f"{what}: the cache of this machine holds revision {held.name}, not {wanted} ({spec.revision or 'main'}), "
            "and the hub cannot be asked: run once with the hub"
        )
    cache = import_module("datasets.packaged_modules.cache.cache").Cache
    named = {"config_name": held.parts[-3], "version": held.parts[-2], "hash": wanted}
    return cache(repo_id=spec.hub, dataset_name=(spec.hub or "").split("/")[-1], **named).as_dataset(split=spec.split)


def _draw(count: int, spec: SourceSpec) -> list[int] | None:
    """The numbers of the rows to keep, ascending; None keeps all."""
    if spec.limit is None or count <= spec.limit:
        return None
    return sorted(random.Random(spec.seed).sample(range(count), spec.limit))


def _table(rows: Iterator[Row], kind: str, spec: SourceSpec, draw: bool = False) -> Dataset:
    """Rows as columns, a chunk at a time: rows as Python objects take several times the memory."""
    import pyarrow as pa
    from datasets import Dataset

    schema = _schema(kind)
    batches: list[pa.RecordBatch] = []
    while chunk := list(islice(rows, _CHUNK)):
        batches.append(pa.RecordBatch.from_pylist(chunk, schema=schema))
    table = pa.Table.from_batches(batches, schema=schema)
    if not len(table):
        raise DataError(f"{spec.name}: no row in it: correct the path or the file")
    chosen = _draw(len(table), spec) if draw else None
    return Dataset(table if chosen is None else table.take(chosen))


def _schema(kind: str) -> pa.Schema:
    """Column types of both kinds of rows."""
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    passages = {"text": text, "source": text}
    pairs = {"query": text, "positive": texts, "negative": texts, "instruction": text, "task": text, "label": text}
    return pa.schema(passages if kind == "passages" else pairs | {"cluster": pa.int64(), "source": text})
