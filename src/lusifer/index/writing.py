"""Write documents to the table of an index, many per commit; unchanged documents are not embedded again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lusifer.calibration.asking import DocumentOffsets, kept
from lusifer.errors import DataError
from lusifer.index import passages
from lusifer.index.documents import TextDocument, document, fitted, widen, windows
from lusifer.index.models import IndexModel
from lusifer.index.table import PassageTable
from lusifer.serving.encode import EmbedReport

if TYPE_CHECKING:
    from lusifer.index.models import Embedder

DOCUMENTS_AT_ONCE = 1024
"""The most documents of a commit: they are in memory, and are lost if the process is killed."""
CHARACTERS_AT_ONCE = 2**20
TIDY_EVERY = 64
"""After so many commits the table is checked for files to join."""


@dataclass
class Added:
    """The counts of documents that were added, replaced or unchanged.

    embedded: The counts of their passages.
    offsets: The offsets that were subtracted; counts the documents without a known language. None without offsets.
    """

    embedded: EmbedReport
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    offsets: DocumentOffsets | None = None

    @property
    def documents(self) -> int:
        """The number of all documents."""
        return self.added + self.replaced + self.unchanged


def put(
    table: PassageTable,
    model: IndexModel,
    load: Callable[[], Embedder],
    documents: Iterable[TextDocument | Mapping[str, Any]],
    may_replace: bool,
    fields: Mapping[str, str] | None,
    on_long: str,
    progress: Callable[[int], None] | None,
) -> Added:
    """Add documents to a table; the caller must hold the lock of the index.

    Args:
        table: The table.
        model: The index's record of its model.
        load: Returns that model; called if there is something to embed.
        documents: As for `Index.add`.
        may_replace: Whether a document with a known id is replaced; else it is refused.
        fields: Field -> kind, if the kinds are known beforehand.
        on_long: As for `Index.add`.
        progress: Called with the number of documents done.

    Returns:
        The counts.

    Raises:
        DataError: As for `Index.add`.
    """
    report = Added(EmbedReport())
    if model.offsets is not None:
        report.offsets = DocumentOffsets(kept(table.folder, model.offsets), model.language_field)
    made = (document(each, f"document {n}") for n, each in enumerate(documents, start=1))
    for number, window in enumerate(windows(made, DOCUMENTS_AT_ONCE, CHARACTERS_AT_ONCE), start=1):
        kinds = dict(fields or {})
        for each in window:
            widen(kinds, {name: value for name, value in each.fields.items() if name not in table.fields})
        kinds |= table.fields
        window = [replace(each, fields=fitted(each, kinds)) for each in window]
        _commit(table, model, load, window, kinds, may_replace, on_long, report)
        if progress is not None:
            progress(report.documents)
        if number % TIDY_EVERY == 0:
            table.tidy()
    table.tidy()
    return report


def _commit(
    table: PassageTable,
    model: IndexModel,
    load: Callable[[], Embedder],
    window: list[TextDocument],
    kinds: Mapping[str, str],
    may_replace: bool,
    on_long: str,
    report: Added,
) -> None:
    """Embed the new documents of a window, and commit them."""
    there = table.digests([each.id for each in window])
    met: set[str] = set()
    for each in window:
        if each.id in met or (each.id in there and not may_replace):
            again = f"the id {each.id!r} is already in the index (`update` replaces it)"
            words = f"duplicate id {each.id!r}" if each.id in met else again
            raise DataError(f"{each.place}: {words}: give each document its own")
        met.add(each.id)
    # With on_long="cut" a document that was truncated before is unchanged, and one that was split stays split.
    fresh = [
        each
        for each in window
        if (kept := there.get(each.id)) != each.digest and not (on_long == "cut" and kept == each.digest_if_cut)
    ]
    old = [each.id for each in fresh if each.id in there]
    if fresh:
        rows, vectors = passages.embedded(load, model, fresh, on_long, report.embedded, report.offsets)
        table.add_fields(kinds)
        table.write(rows, vectors, old)
    report.added += len(fresh) - len(old)
    report.replaced += len(old)
    report.unchanged += len(window) - len(fresh)
