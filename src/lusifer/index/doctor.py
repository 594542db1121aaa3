"""Check an index on disk: its files, documents and vectors, and whether its model is available."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from lusifer.errors import LusiferError, MissingExtraError, Probe
from lusifer.index.disk import commits
from lusifer.index.models import IndexModel, maker
from lusifer.index.passages import joined
from lusifer.index.table import PassageTable, is_table
from lusifer.io.files import expand_user


def examine(path: str | os.PathLike[str]) -> list[Probe]:
    """Read an index completely, and look for its model, which is not loaded.

    Args:
        path: The folder of the index.

    Returns:
        The checks in order; only the first if the index cannot be opened.

    Raises:
        UsageError: There is no index.
        MissingExtraError: LanceDB is not installed.
    """
    folder = expand_user(path)
    opens = "it can be opened"
    try:
        table = PassageTable(folder)
        made_by = IndexModel.from_dict(table.about, folder)
    except LusiferError as error:
        if not is_table(folder) or isinstance(error, MissingExtraError):
            raise
        return [Probe(opens, False, str(error), error)]
    kept = ", ".join(table.fields) or "none"
    return [
        Probe(opens, True, f"{len(table):,} passages, vectors of {made_by.dimensions} numbers, fields: {kept}"),
        _files(table),
        _documents(table),
        _vectors(table),
        _model(made_by, table.folder),
    ]


def _files(table: PassageTable) -> Probe:
    name = "its files have the bytes that were written"
    try:
        found = table.verify(commits.ROWS + commits.INDICES)
    except LusiferError as error:
        return Probe(name, False, str(error), error)
    rest = f", {found.unknown} have no checksum until the next change" if found.unknown else ""
    return Probe(name, True, f"{found.whole} files{rest}")


def _documents(table: PassageTable) -> Probe:
    name = "its documents are whole"
    try:
        return Probe(name, True, f"{sum(1 for _ in joined(table.passages())):,} documents")
    except LusiferError as error:
        return Probe(name, False, str(error), error)


def _vectors(table: PassageTable) -> Probe:
    """Find vectors that are 0 or not finite: no question can find them."""
    name, bad, first = "its vectors are numbers", 0, None
    try:
        for ids, vectors in table.vectors():
            wrong = ~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1)
            bad += int(wrong.sum())
            if first is None and wrong.any():
                first = ids[int(wrong.argmax())]
    except LusiferError as error:
        return Probe(name, False, str(error), error)
    how = "index the document again with `lusifer index`, or delete it"
    return Probe(name, not bad, f"{bad:,} are not, the first of document {first}: {how}" if bad else "all of them")


def _model(made_by: IndexModel, folder: Path) -> Probe:
    name = f"its model is here: {made_by.name}"
    try:
        here = maker(made_by, folder).identity
    except LusiferError as error:
        return Probe(name, False, str(error), error)
    if here == made_by.identity:
        return Probe(name, True, f"identity {here}")
    how = "restore the model that made the index, or run `lusifer reindex` with this one"
    return Probe(name, False, f"identity {here}, but the index was made by {made_by.identity}: {how}")
