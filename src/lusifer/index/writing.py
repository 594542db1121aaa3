"""Documents into the table of an index, some hundred a commit; what is there and unchanged is not embedded again."""

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
"""Documents of a commit: what a kill may cost, and what is held in memory."""
CHARACTERS_AT_ONCE = 2**20
TIDY_EVERY = 64
"""Commits between two looks at whether files should be joined."""


@dataclass
class Added:
    """What became of documents: how many were `added`, `replaced` or `unchanged`; `embedded` counts their passages.

    `offsets` are those taken out of the vectors, and count the documents whose language is not known there.
    """

    embedded: EmbedReport
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    offsets: DocumentOffsets | None = None

    @property
    def documents(self) -> int:
        """All of them."""
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
    """Add documents to a table; who calls holds the lock of its index.

    Args:
        table: The table.
        model: What the index knows of its model.
        load: Gives that model, and is called where there is something to embed.
        documents: As for `Index.add`.
        may_replace: Whether an id that is there is replaced, or refused.
        fields: The kinds of fields, where they are known beforehand.
        on_long: As for `Index.add`.
        progress: Called with the number of documents done.

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
    """Embed what is new in a window, and commit it."""
    there = table.digests([each.id for each in window])
    met: set[str] = set()
    for each in window:
        if each.id in met or (each.id in there and not may_replace):
            words = "is there twice" if each.id in met else "is in the index already (`update` replaces it)"
            raise DataError(f"{each.place}: the id {each.id!r} {words}: give each document its own")
        met.add(each.id)
    # Where texts are cut, one that was cut before is what it was, and one that was split stays so.
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
