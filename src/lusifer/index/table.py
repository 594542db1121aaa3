"""The table of an index on disk: passages with their vectors, kept by LanceDB, which commits all of a write or nothing.

The settings here are what others learned: full text by ICU's words, without English stemming and stop words; filters
always before a search; removed files only after an hour, when no reader has them open any more.
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
"""The key in the table's metadata under which the index keeps what it knows of its model, as JSON."""
COLUMNS = dict.fromkeys(RESERVED, "int32") | {"id": "string", "text": "string", "digest": "string"}
COLUMNS["vector"] = "fixed_size_list<item: float>"
"""Columns of every table -> their types; those of all versions until now."""
EXACT_UP_TO = 1_000_000
"""Passages up to which all vectors are compared, in memory; above, an approximate index names the candidates."""
PROBES, REFINED = 100, 30
"""Of an approximate search: cells that are looked into, and how many candidates a hit are compared exactly.

Measured with 1.1 million vectors in clusters, LanceDB's query alone: 99.9 % of the ten nearest in 21 ms; by its own 20
cells, and 10 candidates, 73.4 % in 17 ms (`benchmarks/results/index-large.md`).
"""
SETTLED = 10**9
"""Nanoseconds after which two commits have two times: a look that came later than that after the last commit saw it,
and sees the next one. Asking LanceDB each time would double that of a search."""
KEPT = timedelta(hours=1)
"""How long files of an older version stay, for readers that have it open."""
NEVER = timedelta(days=365_000)
FILTERS_KEPT = 8
"""Filters whose rows are kept in memory, 8 bytes a row, until something is committed."""
_CALL = re.compile(r"\b(?!(?:in|and|or|not|cast)\b)\w+\s*\(|\bcurrent_", re.IGNORECASE)
"""A function in a filter: `now()` lets other rows through each time."""
MANY_FRAGMENTS = 32
"""Commits before their files are joined."""
MANY_VERSIONS = 256
"""Versions that nobody needs any more before they are removed: what was deleted lies in them."""
MANY_UNINDEXED = 10_000
"""Rows before the full-text index takes them in; until then they are searched one by one."""


class PassageTable:
    """A Lance table of passages. Whoever writes holds the lock of the index.

    Args:
        folder: The folder of the index.
        name: Of the table in it.

    Raises:
        MissingExtraError: LanceDB is not installed.
        UsageError: There is no such table, or it is no index of ours.
        LusiferError: It is damaged. A byte that is another one than was written is seen here in a small table
            (`commits.AT_ONCE`), in others by `verify`; of these files that were cut, and first and last rows, are seen.
    """

    def __init__(self, folder: Path, name: str = NAME) -> None:
        refuse_none(folder, name)
        self.folder, self.name = folder, name
        self._place = folder / f"{name}.lance"
        self._looked, self._seen = time.time_ns(), self._stamp()
        whole = commits.look(self._place)
        self._table = self._opened()
        self.about = self._said(self._table)
        if not self.about:
            words = "a Lance table that `lusifer index` did not make: take its vectors into an index (--vectors)"
            raise UsageError(f"{self._place}: {words}")
        self._note()
        if not whole:
            self._glance()

    @told
    def _glance(self) -> None:
        """Read the first and the last row of each of its parts, whose number is the upper half of that of a row."""
        rows = self._table.search().select(["chunk"]).with_row_id(True).to_arrow()["_rowid"].to_numpy()
        first = np.unique(rows >> np.uint64(32), return_index=True)[1]
        last = np.append(first[1:], len(rows)) - 1
        self.take({*rows[first].tolist(), *rows[last].tolist()} if len(rows) else (), True)

    @told
    def _opened(self) -> Any:
        return _connect(self.folder).open_table(self.name)

    def verify(self, parts: Sequence[str] = commits.ROWS) -> commits.Checked:
        """Compare files with their checksums, by default those of texts and vectors.

        Raises:
            LusiferError: One has other bytes than were written.
        """
        return commits.check(self._place, parts)

    def _said(self, table: Any) -> dict[str, Any]:
        return about(self.folder, table.schema, META, COLUMNS)

    def _note(self) -> None:
        """Keep what a search needs of the version that is open; LanceDB would be asked for it each time."""
        self._snapshot: Snapshot | None = None  # before the new one is read: two would take twice the memory
        self._version, self.rows = self._table.version, len(self)
        self._columns = [one.name for one in self._table.schema if one.name != "vector"]
        self._allowed: dict[str, np.ndarray] = {}

    def _stamp(self) -> tuple[int, int]:
        """Which table is there, and when something was last committed to it."""
        try:
            return self._place.stat().st_ino, (self._place / "_versions").stat().st_mtime_ns
        except FileNotFoundError:
            raise UsageError(f"{self.folder}: the index is not there any more: put it back, or make it anew") from None

    @classmethod
    def create(cls, folder: Path, about: Mapping[str, Any], dimensions: int, name: str = NAME) -> PassageTable:
        """Make an empty table, `about` in its metadata."""
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
        made._index(0)  # while it is empty: from the first commit on, rows are found by their words
        return made

    @told
    def __len__(self) -> int:
        return self._table.count_rows()

    @property
    @told
    def lacks_text(self) -> bool:
        """Whether it has vectors without a text."""
        return self._table.count_rows("text IS NULL") > 0

    @property
    def fields(self) -> dict[str, str]:
        """The fields of documents -> their kinds: text, int, float or bool."""
        return {one.name: FIELDS[str(one.type)] for one in self._table.schema if one.name not in RESERVED}

    @property
    def approximate(self) -> bool:
        """Whether there are too many vectors to compare them all."""
        return self.rows > EXACT_UP_TO

    @property
    def replaced(self) -> bool:
        """Whether `reindex` put another table in its place since the last look; its files are removed then."""
        return self._stamp()[0] != self._seen[0]

    @told
    def refresh(self) -> None:
        """See what others committed.

        Raises:
            UsageError: `reindex` put vectors of another model there; each later call says so again.
        """
        looked, seen = time.time_ns(), self._stamp()
        if seen == self._seen and self._looked - seen[1] > SETTLED:
            return
        table = self._table
        if seen == self._seen:
            table.checkout_latest()
        else:  # it may be another one: a file system gives the number of a folder that is gone to the next
            table = self._opened()
        if seen != self._seen or table.version != self._version:
            self.require(self._said(table))
            self._table = table
            self._note()
        self._looked, self._seen = looked, seen  # last: what is refused is met again at the next call

    def require(self, about: Mapping[str, Any]) -> None:
        """Refuse a table of another model, or with other passages, in the place of this one.

        Raises:
            UsageError: It says other things of its model.
        """
        if about != self.about:
            raise UsageError(f"{self.folder}: was embedded anew meanwhile, by {about.get('name')}: open it again")

    @told
    def add_fields(self, kinds: Mapping[str, str]) -> None:
        """Add columns for fields that the table does not have, empty in the rows that are there."""
        import pyarrow as pa

        types = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
        new = [pa.field(name, types[kind]) for name, kind in kinds.items() if name not in self.fields]
        if new:
            with committed_whole(self._place):
                self._table.add_columns(new)
            self._note()

    @told
    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """Of those documents of `ids` that are there: id -> digest."""
        found = self._table.search().where(one_of(ids)).select(["id", "digest"]).to_arrow()
        return dict(zip(found["id"].to_pylist(), found["digest"].to_pylist(), strict=True))

    @told
    def all_ids(self) -> set[str]:
        """The ids of all documents."""
        found = self._table.search().where("chunk = 0").select(["id"]).to_arrow()
        return set(found["id"].to_pylist())

    @told
    def write(self, rows: Mapping[str, Sequence[Any]], vectors: np.ndarray, replaced: Sequence[str] = ()) -> None:
        """Add passages, and take those of the documents in `replaced` out, in one commit.

        Args:
            rows: Column -> values, without the vectors.
            vectors: (n, d).
            replaced: Ids.
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
        """Take documents out, in one commit."""
        with committed_whole(self._place):
            self._table.delete(one_of(ids))

    @told
    def tidy(self, force: bool = False) -> None:
        """Take new rows into the indexes, join small files and remove old ones, where it is worth it."""
        self._index(len(self))
        new = max((one.num_unindexed_rows or 0 for one in self._table.list_indices()), default=0)
        files = self._table.stats()["fragment_stats"]["num_fragments"]
        if force or files > MANY_FRAGMENTS or new > MANY_UNINDEXED or self._old_versions() > MANY_VERSIONS:
            self.verify()  # what is joined is written anew, and gets new checksums
            # Nobody else writes: what no version has is of a writer that was killed.
            for age in (NEVER, KEPT):  # nothing old is removed before what is new is known to be whole
                with committed_whole(self._place):
                    self._table.optimize(cleanup_older_than=age, delete_unverified=True)

    def _old_versions(self) -> int:
        """How many versions a cleaning would remove, but for the last."""
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
        """The rows that a filter lets through; those of the last few filters are kept."""
        rows = self._allowed.pop(where, None)
        if rows is None:
            with filtered(where, self.fields):
                found = self._table.search().where(condition(where)).select(["chunk"]).with_row_id(True).to_arrow()
            rows = found["_rowid"].to_numpy()
        if not _CALL.search(where):
            if len(self._allowed) == FILTERS_KEPT:
                del self._allowed[next(iter(self._allowed))]
            self._allowed[where] = rows  # the last one again
        return rows

    @told
    def by_words(self, query: str, where: str | None, limit: int) -> list[tuple[str, int]]:
        """The passages with words of a query, best first: (id, row)."""
        from lancedb.query import MatchQuery

        if not any("text" in one.columns for one in self._table.list_indices()):
            return []
        asked = self._table.search(MatchQuery(query, "text"), query_type="fts")
        return self._found(asked, where, limit, "_score")

    @told
    def by_vector(self, vector: np.ndarray, where: str | None, limit: int) -> list[tuple[str, int]]:
        """The passages nearest to a vector by the approximate index, best first: (id, row)."""
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
        """The columns of rows by their number; vectors, if wanted, as arrays."""
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
        """The vectors of the version that is open, read once."""
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
        """The vectors as they lie in the table, a block at a time: ids of their documents, and (n, d)."""
        batches = iter(self._table.search().select(["id", "vector"]).to_batches())
        while (batch := self._next(batches)) is not None:
            numbers = batch["vector"].flatten().to_numpy(zero_copy_only=False)
            yield batch["id"].to_pylist(), numbers.reshape(len(batch), -1)

    def passages(self) -> Iterator[dict[str, Any]]:
        """Every row without its vector, as it lies in the table."""
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
