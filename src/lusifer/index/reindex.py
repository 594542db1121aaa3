"""Embed the texts of an index anew, by another model or in other passages; a call that was stopped goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lusifer.errors import UsageError
from lusifer.index.index import Index
from lusifer.index.models import describe
from lusifer.index.passages import joined
from lusifer.index.table import NAME, PassageTable, is_table
from lusifer.index.writing import Added, put
from lusifer.io.files import replace_folder

if TYPE_CHECKING:
    from lusifer.index.models import Embedder

UNFINISHED = "reindex"
"""The table beside that of the index in which the new one grows."""


def reindex(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str] | Embedder,
    *,
    embedder: Embedder | None = None,
    device: str | None = None,
    progress: Callable[[int], None] | None = None,
    **settings: Any,
) -> Added:
    """Embed every document of an index by a model, from the texts in the index, and put the new vectors in their place.

    The index is searched as before until the new one is whole. A call that was killed goes on where it had committed,
    if it is made again with the same model and settings.

    Args:
        path: The folder of the index.
        model: As for `Index.create`, like `embedder` and `device`.
        embedder: The model of that name, if it is loaded already.
        device: Where to load it.
        progress: Called with the number of documents done.
        **settings: As for `models.describe`; `overlap` is that of the index if it is left out.

    Raises:
        UsageError: There is no index, it has no texts, somebody else writes to it, or the model is not there.
    """
    folder = Path(path).expanduser()
    old = Index.open(folder)
    with old.locked():
        source = PassageTable(folder)
        if source.lacks_text:
            raise UsageError(f"{path}: has documents without a text, from which no vector can be made: index the texts")
        made, _, loaded = describe(model, embedder, device, **{"overlap": old.model.overlap} | settings)
        if is_table(folder, UNFINISHED) and PassageTable(folder, UNFINISHED).about != made.to_dict():
            shutil.rmtree(_place(folder, UNFINISHED))
        begun = is_table(folder, UNFINISHED)
        if not begun:
            PassageTable.create(folder, made.to_dict(), made.dimensions, UNFINISHED)
        table = PassageTable(folder, UNFINISHED)
        documents = joined(source.passages())
        report = put(table, made, lambda: loaded, documents, True, source.fields, "split", progress)
        # Taken out of the index, after an earlier call had embedded them.
        gone = sorted(table.all_ids() - source.all_ids()) if begun else []
        if gone:
            table.delete(gone)
        table.tidy(force=True)
        replace_folder(_place(folder, UNFINISHED), _place(folder, NAME))
        shutil.rmtree(_place(folder, UNFINISHED))
    return report


def _place(folder: Path, name: str) -> Path:
    return folder / f"{name}.lance"
