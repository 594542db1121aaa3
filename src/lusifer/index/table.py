"""The table of an index on disk: passages with vectors in LanceDB, with atomic commits.

Keyword search uses the word boundaries of ICU, without English stemming and stop words. Filters are applied before the
search. Old files are removed after an hour, when no reader has them open anymore.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from lusifer import extras
from lusifer.calibration.statistics import unit
from lusifer.errors import UsageError
from lusifer.index.disk import commits
from lusifer.index.disk.commits import NAME, committed_whole, is_table
from lusifer.index.disk.damage import FIELDS, about, filtered, told
from lusifer.index.disk.filters import condition, one_of
from lusifer.index.documents import RESERVED
from lusifer.index.ranks import Snapshot
from lusifer.io.files import full_disk_named

META = b"lusifer"
"""The key in the table's metadata for the record of the model, as JSON."""
COLUMNS = dict.fromkeys(RESERVED, "int32") | {"id": "string", "text": "string", "digest": "string"}
COLUMNS["vector"] = "fixed_size_list<item: float>"
"""Column -> type, the same in all versions until now."""
EXACT_UP_TO = 1_000_000
"""Up to so many passages all vectors are compared in memory; with more, candidates come from an approximate index."""
PROBES, REFINED = 100, 30
"""The cells that an approximate search reads, and how many candidates per hit are compared exactly.

Measured with 1.1 million vectors in clusters, LanceDB's query alone: 99.9 % of the ten nearest in 21 ms; by its own 20
cells, and 10 candidates, 73.4 % in 17 ms (`benchmarks/results/index-large.md`).
"""
SETTLED = 10**9
"""Nanoseconds after which two commits have different times in the file system: a check later than that after the last
commit has seen it. Asking LanceDB each time would double the time of a search."""
KEPT = timedelta(hours=1)
"""How long files of an older version stay, for readers that have it open."""
NEVER = timedelta(days=365_000)
FILTERS_KEPT = 8
"""How many filters have their rows in memory, 8 bytes per row, until the next commit."""
_CALL = re.compile(r"\b(?!(?:in|and|or|not|cast)\b)\w+\s*\(|\bcurrent_", re.IGNORECASE)
"""A function in a filter; its rows are not stored, because the result of `now()` changes."""
MANY_FRAGMENTS = 32
"""After so many commits their files are joined."""
MANY_VERSIONS = 256
"""After so many unneeded versions they are removed; they have the deleted documents."""
MANY_UNINDEXED = 10_000
"""After so many new rows the full-text index is extended; until then they are searched one by one."""


class PassageTable:
    """A Lance table of passages; a writer must hold the lock of the index.

    Args:
        folder: The folder of the index.
        name: The name of the table in it.

    Raises:
        MissingExtraError: LanceDB is not installed.
        UsageError: There is no such table, or `lusifer index` did not make it.
        LusiferError: It is damaged. A small table (`commits.AT_ONCE`) is checked completely; of a larger one truncated
            files and the first and last rows, and the rest by `verify`.
    """

    def __init__(self, folder: Path, name: str = NAME) -> None:
        refuse_none(folder, name)
        self.folder, self.name = folder, name
        self._place = folder / f"{name}.lance"
        self._looked, self._seen = time.time_ns(), self._stamp()
        self._words_checked, whole = False, commits.look(self._place)
        self._table = self._opened()
        self.about = self._said(self._table)
        if not self.about:
            words = "a Lance table that `lusifer index` did not make: import its vectors with --vectors"
            raise UsageError(f"{self._place}: {words}")
        self._note()
        if not whole:
            self._glance()

    @told
    def _glance(self) -> None:
        """Read the first and the last row of each of its parts, which are found without reading columns."""

        def numbers(places: Sequence[int]) -> list[int]:
            found = self._table.take_offsets(list(places)).select([]).with_row_id().to_arrow()
            return found["_rowid"].to_pylist()

        self.take(commits.ends(len(self), numbers), True)

    @told
    def _opened(self) -> Any:
        return _connect(self.folder).open_table(self.name)

    def verify(self, parts: Sequence[str] = commits.ROWS) -> commits.Checked:
        """Compare files with their checksums, by default those of texts and vectors.

        Raises:
            LusiferError: A file has changed.
        """
        return commits.check(self._place, parts)

    def _said(self, table: Any) -> dict[str, Any]:
        return about(self.folder, table.schema, META, COLUMNS)

    def _note(self) -> None:
        """Cache the facts of the open version that each search needs."""
        self._snapshot: Snapshot | None = None  # freed before the next one is read, to save memory
        self._version, self.rows = self._table.version, len(self)
        self._columns = [one.name for one in self._table.schema if one.name != "vector"]
        self._allowed: dict[str, np.ndarray] = {}

    def _stamp(self) -> tuple[int, int]:
        """The identity of the table's folder, and the time of its last commit."""
        try:
            return self._place.stat().st_ino, (self._place / "_versions").stat().st_mtime_ns
        except FileNotFoundError:
            raise UsageError(f"{self.folder}: the index is gone: restore it, or make it again") from None

    @classmethod
    def create(cls, folder: Path, about: Mapping[str, Any], dimensions: int, name: str = NAME) -> PassageTable:
        """Make an empty table for vectors of `dimensions`, with the record `about` in its metadata."""
        import pyarrow as pa

        text, whole = pa.string(), pa.int32()
        schema = pa.schema(
            [
                pa.field("id", text), pa.field("text", text), pa.field("vector", pa.list_(pa.float32(), dimensions)),
                pa.field("chunk", whole), pa.field("chunk_count", whole), pa.field("chunk_start", whole),
                pa.field("chunk_end", whole), pa.field("digest", text),
            ],
            metadata={META: json.dumps(about, ensure_ascii=False)},
        )  # fmt: skip
        connection = _connect(folder)
        with full_disk_named(folder):
            folder.mkdir(parents=True, exist_ok=True)
            connection.create_table(name, schema=schema)
        made = cls(folder, name)
        made._index(0)  # now, so that rows are found by keyword search from the first commit on
        return made

    @told
    def __len__(self) -> int:
        return self._table.count_rows()

    @property
    @told
    def lacks_text(self) -> bool:
        """Whether there are vectors without a text."""
        return self._table.count_rows("text IS NULL") > 0

    @property
    def fields(self) -> dict[str, str]:
        """Field of documents -> kind: text, int, float or bool."""
        return {one.name: FIELDS[str(one.type)] for one in self._table.schema if one.name not in RESERVED}

    @property
    def approximate(self) -> bool:
        """Whether there are too many vectors to compare them all."""
        return self.rows > EXACT_UP_TO

    @property
    def replaced(self) -> bool:
        """Whether `reindex` has replaced the table since the last check; its files are gone then."""
        return self._stamp()[0] != self._seen[0]

    @told
    def refresh(self) -> None:
        """Open the latest commit.

        Raises:
            UsageError: `reindex` has replaced the vectors by those of another model; later calls raise it again.
        """
        looked, seen = time.time_ns(), self._stamp()
        if seen == self._seen and self._looked - seen[1] > SETTLED:
            return
        table = self._table
        if seen == self._seen:
            table.checkout_latest()
        else:  # it may be another table: file systems reuse the inode of a removed folder
            table = self._opened()
        if seen != self._seen or table.version != self._version:
            self.require(self._said(table))
            self._table = table
            self._note()
        self._looked, self._seen = looked, seen  # at the end, so that the next call is refused as well

    def require(self, about: Mapping[str, Any]) -> None:
        """Refuse a table of another model or with other settings.

        Raises:
            UsageError: Its record of the model differs.
        """
        if about != self.about:
            raise UsageError(f"{self.folder}: was embedded again meanwhile, by {about.get('name')}: open it again")

    @told
    def add_fields(self, kinds: Mapping[str, str]) -> None:
        """Add columns for new fields (field -> kind); they are empty in existing rows."""
        import pyarrow as pa

        types = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
        new = [pa.field(name, types[kind]) for name, kind in kinds.items() if name not in self.fields]
        if new:
            with committed_whole(self._place):
                self._table.add_columns(new)
            self._note()

    @told
    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """Return id -> digest for the documents of `ids` that exist."""
        found = self._table.search().where(one_of(ids)).select(["id", "digest"]).to_arrow()
        return dict(zip(found["id"].to_pylist(), found["digest"].to_pylist(), strict=True))

    @told
    def all_ids(self) -> set[str]:
        """Return the ids of all documents."""
        found = self._table.search().where("chunk = 0").select(["id"]).to_arrow()
        return set(found["id"].to_pylist())

    @told
    def write(self, rows: Mapping[str, Sequence[Any]], vectors: np.ndarray, replaced: Sequence[str] = ()) -> None:
        """Add passages, and delete the old ones of replaced documents, in one commit.

        Args:
            rows: Column -> values, without the vectors.
            vectors: (n, d) float32.
            replaced: The ids of replaced documents.
        """
        import pyarrow as pa

        schema = self._table.schema
        numbers = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
        made = dict(rows) | {"vector": pa.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])}
        columns = [made.get(one.name, [None] * len(vectors)) for one in schema]
        table = pa.table(
            [pa.array(c, one.type) if isinstance(c, list) else c for c, one in zip(columns, schema)], schema
        )
        with committed_whole(self._place):
            if not replaced:
                self._table.add(table)
                return
            merge = self._table.merge_insert(["id", "chunk"]).when_matched_update_all().when_not_matched_insert_all()
            merge.when_not_matched_by_source_delete(one_of(replaced)).execute(table)

    @told
    def delete(self, ids: Sequence[str]) -> None:
        """Delete documents in one commit."""
        with committed_whole(self._place):
            self._table.delete(one_of(ids))

    @told
    def tidy(self, force: bool = False) -> None:
        """Index new rows, join small files and remove old ones, if it is worth it or with `force`."""
        self._index(len(self))
        new = max((one.num_unindexed_rows or 0 for one in self._table.list_indices()), default=0)
        files = self._table.stats()["fragment_stats"]["num_fragments"]
        if force or files > MANY_FRAGMENTS or new > MANY_UNINDEXED or self._old_versions() > MANY_VERSIONS:
            self.verify(commits.ROWS + commits.INDICES)  # joined files get new checksums, which would hide damage
            # Only this process writes, so files without a version are from a writer that was killed.
            for age in (NEVER, KEPT):  # old files are removed only after the new ones are known to be complete
                with committed_whole(self._place):
                    self._table.optimize(cleanup_older_than=age, delete_unverified=True)

    def _old_versions(self) -> int:
        """The number of versions that are old enough to be removed."""
        before = time.time() - KEPT.total_seconds()
        return sum(one.stat().st_mtime < before for one in (self._place / "_versions").glob("*.manifest"))

    def _index(self, rows: int) -> None:
        from lancedb.index import FTS, IvfPq

        there = {column for one in self._table.list_indices() for column in one.columns}
        with committed_whole(self._place):
            if "text" not in there:
                words = FTS(base_tokenizer="icu", stem=False, remove_stop_words=False, with_position=False)
                self._table.create_index("text", config=words)
            if "vector" not in there and rows > EXACT_UP_TO:
                self._table.create_index("vector", config=IvfPq(distance_type="cosine"))

    @told
    def allowed(self, where: str) -> np.ndarray:
        """Return the rows that pass a filter, (n,) uint64; those of the last few filters are cached."""
        rows = self._allowed.pop(where, None)
        if rows is None:
            with filtered(where, self.fields):
                found = self._table.search().where(condition(where)).select(["chunk"]).with_row_id(True).to_arrow()
            rows = found["_rowid"].to_numpy()
        if not _CALL.search(where):
            if len(self._allowed) == FILTERS_KEPT:
                del self._allowed[next(iter(self._allowed))]
            self._allowed[where] = rows  # at the end: the first one is dropped next
        return rows

    def check_words(self) -> None:
        """Check the files of the full-text index once, if the table is small: changed bytes could hide passages."""
        if not self._words_checked and commits.is_small(self._place):
            self.verify(commits.INDICES)
        self._words_checked = True

    @told
    def by_words(self, query: str, where: str | None, limit: int) -> list[tuple[str, int]]:
        """Search by keywords; return at most `limit` passages (id, row) that pass the filter, best first."""
        from lancedb.query import MatchQuery

        self.check_words()
        if not any("text" in one.columns for one in self._table.list_indices()):
            return []
        asked = self._table.search(MatchQuery(query, "text"), query_type="fts")
        return self._found(asked, where, limit, "_score")

    @told
    def by_vector(self, vector: np.ndarray, where: str | None, limit: int) -> list[tuple[str, int]]:
        """Search the approximate index by a vector; return at most `limit` passages (id, row), best first."""
        asked = self._table.search(vector, vector_column_name="vector").distance_type("cosine")
        asked = asked.nprobes(PROBES).refine_factor(REFINED)
        return self._found(asked, where, limit, "_distance")

    def _found(self, asked: Any, where: str | None, limit: int, score: str) -> list[tuple[str, int]]:
        with filtered(where, self.fields):
            asked = asked.where(condition(where), prefilter=True) if where else asked
            found = asked.select(["id", score]).limit(limit).with_row_id(True).to_arrow()
        return list(zip(found["id"].to_pylist(), found["_rowid"].to_pylist(), strict=True))

    @told
    def take(self, rows: Iterable[int], vectors: bool) -> dict[int, dict[str, Any]]:
        """Return row number -> its columns; with `vectors` also the vector as an array."""
        rows = list(rows)
        if not rows:
            return {}
        names = [*self._columns, "vector"] if vectors else self._columns
        found = self._table.take_row_ids(rows).select(names).with_row_id().to_arrow()
        others = (found.drop_columns(["vector"]) if vectors else found).to_pylist()
        if vectors:
            own = found["vector"].combine_chunks().flatten().to_numpy().reshape(len(found), -1)
            others = [row | {"vector": vector} for row, vector in zip(others, own, strict=True)]
        return {row.pop("_rowid"): row for row in others}

    @told
    def snapshot(self) -> Snapshot:
        """Return all vectors of the open version; they are read once."""
        import pyarrow as pa

        if self._snapshot is not None:
            return self._snapshot
        n = len(self)
        matrix = np.empty((n, self._table.schema.field("vector").type.list_size), dtype=np.float32)
        rows, ids, end = np.empty(n, dtype=np.uint64), [], 0
        for batch in self._table.search().select(["id", "vector"]).with_row_id(True).to_batches():
            part = slice(end, end + len(batch))
            vectors = batch["vector"].flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
            matrix[part] = unit(vectors, np.float32)
            rows[part], end = batch["_rowid"].to_numpy(), part.stop
            ids.append(batch["id"])
        coded = pa.chunked_array(ids, pa.string()).combine_chunks().dictionary_encode()
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        codes = coded.indices.to_numpy()
        self._snapshot = Snapshot(matrix, rows, codes, coded.dictionary)
        return self._snapshot

    def vectors(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yield all vectors in blocks: the ids of their documents, and (n, d) float32."""
        batches = iter(self._table.search().select(["id", "vector"]).to_batches())
        while (batch := self._next(batches)) is not None:
            numbers = batch["vector"].flatten().to_numpy(zero_copy_only=False)
            yield batch["id"].to_pylist(), numbers.reshape(len(batch), -1)

    def passages(self) -> Iterator[dict[str, Any]]:
        """Yield every row without its vector, in the order of the table."""
        batches = iter(self._table.search().select(self._columns).to_batches())
        while (batch := self._next(batches)) is not None:
            yield from batch.to_pylist()

    @told
    def _next(self, batches: Iterator[Any]) -> Any:
        return next(batches, None)


def refuse_none(folder: Path, name: str = NAME) -> None:
    """Refuse a folder that has no such table (UsageError)."""
    if not is_table(folder, name):
        raise UsageError(f"{folder}: no index there: make one with `lusifer index MODEL --input ... --output ...`")


def _connect(folder: Path) -> Any:
    return extras.need("index", "lancedb").connect(str(folder))
