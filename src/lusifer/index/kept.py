"""Import vectors that were made before into an index, so that no document is embedded again.

A file of vectors does not name the embedder that made it. The user names it, and some texts, if there are any, are
embedded again and compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lusifer import extras
from lusifer.calibration.statistics import unit
from lusifer.errors import DataError, UsageError
from lusifer.index.documents import Source, TextDocument, document
from lusifer.io.files import expand_user, refuse_no_file, refuse_pointer
from lusifer.prompts import check_text
from lusifer.serving import encode

if TYPE_CHECKING:
    from lusifer.index.models import Embedder

SAME = 0.98
"""The least median cosine, over some texts, of given vectors and new ones, if the same embedder made both."""
ROWS_AT_ONCE = 4096
_WHOLE = ("not a readable FAISS index", "copy it again, or give .npy")


class KeptVectors:
    """A file of vectors, with their documents.

    Args:
        path: `.npy` (n, d), `.faiss`, `.parquet`, or a table of LanceDB (`NAME.lance`).
        rows: The documents in the order of the vectors, for `.npy` and `.faiss`; the other formats have them inside.
        ids: Instead of `rows`, a file of ids: `.txt`, one per line, or `.npy`. Without both, rows are numbered from 0.
        field: In Parquet and Lance, the column of the text; None is "text". A row may have no text.
        id: In Parquet and Lance, the column of the id; None is "id".
        vector: In Parquet and Lance, the column of the vector; None takes the only one that fits.

    Raises:
        UsageError: There is no such file, its ending is unknown, or an argument is for another kind of file.
    """

    def __init__(
        self,
        path: str,
        rows: Source | None = None,
        ids: str | None = None,
        field: str | None = None,
        id: str | None = None,
        vector: str | None = None,
    ) -> None:
        self.path, self.name = expand_user(path), str(path)
        self._rows, self._ids, self._field, self._id, self._vector = rows, ids, field or "text", id, vector
        self._numbers: Sequence[int] | None = None
        self._tabular = self.path.suffix in (".parquet", ".lance")
        if self.path.suffix not in (".npy", ".faiss", ".parquet", ".lance"):
            raise UsageError(f"--vectors {path}: unknown ending: use .npy, .faiss, .parquet, or a table NAME.lance")
        if self.path.suffix != ".lance":
            refuse_no_file(path, raises=UsageError, option="--vectors")
        elif not self.path.is_dir():
            raise UsageError(f"--vectors {path}: no such table: correct the name")
        if self._tabular and (rows is not None or ids is not None):
            raise UsageError(f"--vectors {path}: its rows have ids and texts: leave --input and --ids out")
        if not self._tabular and vector is not None:
            raise UsageError(f"--vector-field {vector}: {path} has no fields: leave it out")
        if rows is not None and ids is not None:
            raise UsageError("--ids: the documents of --input have ids: leave one of the two out")

    def documents(self) -> Iterator[TextDocument]:
        """Yield the documents with their vectors, in order.

        Raises:
            DataError: The file is damaged, or the numbers of vectors and documents differ.
        """
        if self._tabular:
            yield from self._of_table()
            return
        count, part = self._numpy() if self.path.suffix == ".npy" else self._faiss()
        end = 0
        for end, each in enumerate(self._named(count), start=1):
            if end > count:
                break
            if (end - 1) % ROWS_AT_ONCE == 0:
                block = part(end - 1, min(count, end - 1 + ROWS_AT_ONCE))
            yield replace(each, vector=_finite(block[(end - 1) % ROWS_AT_ONCE], each.place))
        if end != count:
            other = self._rows.name if self._rows else self._ids
            words = f"{count:,} vectors, but {other} has {'more' if end > count else f'{end:,}'} rows"
            raise DataError(f"{self.name}: {words}: give files of the same rows")

    def _named(self, count: int) -> Iterator[TextDocument]:
        """The documents of the vectors; without `rows` they have only ids."""
        if self._rows is not None:
            yield from self._rows.documents()
            return
        for number, id in enumerate(self._plain_ids() if self._ids else self._numbers or range(count)):
            where = f"{self._ids or self.name} {'line' if self._ids else 'row'} {number + bool(self._ids)}"
            yield TextDocument(check_text(str(id), where), None, {}, where)

    def _plain_ids(self) -> Sequence[Any]:
        file = expand_user(self._ids)
        refuse_no_file(file, raises=UsageError, option="--ids")
        if file.suffix == ".npy":
            return _loaded(file).tolist()
        try:
            lines = file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: not UTF-8 (byte {error.start}): save the file as UTF-8") from None
        return lines if lines[-1] else lines[:-1]

    def _numpy(self) -> tuple[int, Callable[[int, int], np.ndarray]]:
        array = _loaded(self.path)
        if array.ndim != 2 or array.dtype.kind != "f":
            words = f"an array of {array.ndim} dimensions of {array.dtype}: give rows of float32 or float16"
            raise DataError(f"{self.name}: {words}")
        return len(array), lambda start, end: np.asarray(array[start:end], dtype=np.float32)

    def _faiss(self) -> tuple[int, Callable[[int, int], np.ndarray]]:
        faiss = extras.need("data", "faiss")
        try:
            index = self._held = faiss.read_index(str(self.path))  # keep a reference: it owns the inner index
            if isinstance(index, faiss.IndexIDMap):
                self._numbers = faiss.vector_to_array(index.id_map).tolist()
                index = faiss.downcast_index(index.index)
            if isinstance(index, faiss.IndexIVF):
                index.make_direct_map()
            index.reconstruct_n(0, min(1, index.ntotal))
        except RuntimeError as error:
            raise DataError(f"{self.name}: {_WHOLE[0]} ({str(error).splitlines()[0][-120:]}): {_WHOLE[1]}") from error
        return index.ntotal, lambda start, end: index.reconstruct_n(start, end - start)

    def _of_table(self) -> Iterator[TextDocument]:
        """Rows of Parquet or Lance: id, text, fields; the `metadata` of LangChain and LlamaIndex become fields."""
        schema, batches = self._parquet() if self.path.suffix == ".parquet" else self._lance()
        vector = self._vector or _only_vector(schema, self.name)
        if vector not in schema.names:
            there = ", ".join(schema.names)
            raise UsageError(f"--vector-field {vector}: no such column in {self.name}: use one of {there}")
        number = 0
        for batch in batches():
            column = batch.column(batch.schema.get_field_index(vector))
            numbers = column.flatten().to_numpy(zero_copy_only=False)
            if column.null_count or (len(batch) and len(numbers) % len(batch)):
                words = "rows without a vector, or with vectors of different sizes"
                raise DataError(f"{self.name} after row {number}: {words}: correct or remove them")
            vectors = numbers.reshape(len(batch), -1).astype(np.float32)
            for row, own in zip(batch.drop_columns([vector]).to_pylist(), vectors, strict=True):
                number += 1
                yield replace(self._row(row, f"{self.name} row {number}", number), vector=_finite(own, f"row {number}"))

    def _row(self, row: dict[str, Any], where: str, number: int) -> TextDocument:
        nested = row.pop("metadata", None)
        nested = nested if isinstance(nested, dict) else {}
        # Names with an underscore are internal ones of LlamaIndex.
        row = {name: value for name, value in nested.items() if not name.startswith("_")} | row
        bare = row.get(self._field) is None
        made = document(
            row | ({self._field: "none"} if bare else {}), where, self._field, self._id or "id", str(number)
        )
        return replace(made, text=None) if bare else made

    def _parquet(self) -> tuple[Any, Callable[[], Iterator[Any]]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        refuse_pointer(self.path)
        try:
            file = pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.name}: not a readable Parquet file ({error}): copy it again") from error
        return file.schema_arrow, lambda: file.iter_batches(ROWS_AT_ONCE)

    def _lance(self) -> tuple[Any, Callable[[], Iterator[Any]]]:
        lancedb = extras.need("index", "lancedb")
        try:
            table = lancedb.connect(str(self.path.parent)).open_table(self.path.stem)
        except (ValueError, RuntimeError, OSError) as error:
            words = f"not a table of LanceDB ({str(error).splitlines()[0]})"
            raise DataError(f"{self.name}: {words}: name a table (NAME.lance)") from error
        return table.schema, lambda: iter(table.search().to_batches())


def _loaded(file: Path) -> np.ndarray:
    refuse_pointer(file)
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{file}: not a readable array ({str(error).splitlines()[0]}): write it again") from error


def _only_vector(schema: Any, name: str) -> str:
    """The only column of lists of numbers."""
    import pyarrow.types as kinds

    found = [
        one.name
        for one in schema
        if (kinds.is_list(one.type) or kinds.is_large_list(one.type) or kinds.is_fixed_size_list(one.type))
        and kinds.is_floating(one.type.value_type)
    ]
    if len(found) != 1:
        words = f"{len(found)} columns can be the vector ({', '.join(found) or 'none'}): name it with --vector-field"
        raise UsageError(f"{name}: {words}")
    return found[0]


def _finite(vector: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(vector).all():
        raise DataError(f"{where}: its vector is not finite (NaN): remove the row, or embed it again")
    return vector


def check(embedder: Embedder, name: str, prompt: str | None, sample: Sequence[TextDocument]) -> float | None:
    """Embed some texts again, and compare the results with the given vectors.

    Args:
        embedder: The model that the user named.
        name: Its name, for messages.
        prompt: The prefix of documents.
        sample: Documents with vectors.

    Returns:
        The median of the cosines; None if no document has a text.

    Raises:
        DataError: The vectors are from another embedder.
    """
    texts = [each for each in sample if each.text is not None]
    if not texts:
        return None
    report = encode.EmbedReport(limit=embedder.max_seq_length)
    made = encode.embed_rows(embedder, [(each.place, each.text) for each in texts], report, prompt=prompt)
    size = len(texts[0].vector)
    if size != made.shape[1]:
        words = f"a vector of {size} dimensions, but those of {name} have {made.shape[1]}"
        raise DataError(f"{texts[0].place}: {words}: name the model that made the vectors")
    cosines = (unit(made) * unit(np.stack([each.vector for each in texts]))).sum(axis=1)
    median = statistics.median(map(float, cosines))
    if median < SAME:
        worst = int(np.argmin(cosines))
        raise DataError(
            f"{texts[worst].place}: {name} gives this text another vector (cosine {cosines[worst]:.2f}; median of "
            f"{len(texts)} texts {median:.2f}): name the embedder that made the vectors, and its prompt"
        )
    return median
