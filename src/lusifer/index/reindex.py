"""Embed the texts of an index anew, by another model or in other passages; a call that was stopped goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lusifer import chunks
from lusifer.calibration import asking
from lusifer.embedder import folder as model_folder
from lusifer.embedder import golden
from lusifer.errors import LusiferError, UsageError
from lusifer.index.index import Index
from lusifer.index.models import IndexModel, describe, known, with_offsets
from lusifer.index.passages import joined
from lusifer.index.table import NAME, PassageTable
from lusifer.index.writing import Added, put
from lusifer.io.files import replace_folder
from lusifer.serving import dtypes
from lusifer.serving.encode import token_counts

if TYPE_CHECKING:
    from lusifer.calibration.statistics import LanguageStatistics
    from lusifer.index.models import Embedder

NO_OFFSETS = "none"
"""What is given as offsets to take those of an index away."""
UNFINISHED, REPLACED = "reindex", "replaced"
"""The table beside that of the index in which the new one grows, and the old one while it is removed."""
SAID = {
    "query": "what stands before a question",
    "document": "what stands before a document",
    "dtype": "number format",
    "tokens": "tokens of a passage",
    "offsets": "language offsets",
    "language_field": "field of the language",
}
"""What an index keeps besides the name of its model, in words."""


def reindex(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str] | Embedder,
    *,
    embedder: Embedder | None = None,
    device: str | None = None,
    progress: Callable[[int], None] | None = None,
    say: Callable[[str], None] | None = None,
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
        say: Called before anything is embedded, where more than the model changes, with one line on what.
        **settings: As for `models.describe`; `offsets` may be "none". If they are left out, `overlap` is that of the
            index, and for the model that made the index so are the prompts, `dtype` and the offsets; of
            another one `dtype` "auto" takes what suits the processor.

    Raises:
        UsageError: There is no index, it has no texts, somebody else writes to it, or the model is not there.
        ModelFolderError: The model does not give the golden vectors that its folder has.
    """
    folder = Path(path).expanduser()
    old = Index.open(folder)
    with old.locked():
        source = PassageTable(folder)
        source.verify()  # another text would get a vector of its own
        if source.lacks_text:
            raise UsageError(f"{path}: has documents without a text, from which no vector can be made: index the texts")
        embedder = _suited(old.model, model, embedder, device, settings, say)
        made, loaded, offsets = _described(folder, old.model, model, embedder, device, settings)
        if say is not None and (line := _change(old.model, made)):
            say(line)
        if isinstance(model, (str, os.PathLike)):
            golden.demand(loaded, model)
        if offsets is not None:
            asking.keep(folder, offsets)
        begun = _begun(folder, made)
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
        _swap(folder)
        asking.forget(folder, made.offsets)
    return report


def _suited(
    before: IndexModel,
    model: str | os.PathLike[str] | Embedder,
    embedder: Embedder | None,
    device: str | None,
    settings: dict[str, Any],
    say: Callable[[str], None] | None,
) -> Embedder | None:
    """Another model than that of the index, where "auto" is asked for: its format goes into `settings` instead."""
    if settings.get("dtype") != dtypes.AUTO:
        return embedder
    del settings["dtype"]
    named = isinstance(model, (str, os.PathLike)) and embedder is None
    if not named or known(model).identity == before.identity:
        return embedder
    made, choice = dtypes.load(model, device, lambda dtype: model_folder.load(model, device=device, dtype=dtype))
    settings["dtype"] = choice.dtype
    if say is not None and choice.line:
        say(choice.line)
    return made


def _begun(folder: Path, made: IndexModel) -> bool:
    """Whether an earlier call has begun the same work; what is left of others is removed."""
    if _place(folder, REPLACED).exists():
        shutil.rmtree(_place(folder, REPLACED))
    if not _place(folder, UNFINISHED).exists():
        return False
    try:
        if PassageTable(folder, UNFINISHED).about == made.to_dict():
            return True
    except LusiferError:  # a kill left a part of it, from which nothing can be had
        pass
    _remove(folder)
    return False


def _swap(folder: Path) -> None:
    """Put the new table in the place of the old one, which is removed."""
    replace_folder(_place(folder, UNFINISHED), _place(folder, NAME))
    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove the table beside that of the index, under another name: what a kill leaves is no work half done."""
    os.rename(_place(folder, UNFINISHED), _place(folder, REPLACED))
    shutil.rmtree(_place(folder, REPLACED))


def _described(
    folder: Path,
    before: IndexModel,
    model: str | os.PathLike[str] | Embedder,
    embedder: Embedder | None,
    device: str | None,
    settings: dict[str, Any],
) -> tuple[IndexModel, Embedder, LanguageStatistics | None]:
    """What the index will know of its model, that model, and the statistics of its offsets."""
    settings = {"overlap": before.overlap} | settings
    offsets, field = settings.pop("offsets", None), settings.pop("language_field", None)
    same = known(model).identity == before.identity
    if same:
        settings = {"dtype": before.dtype} | settings
        if offsets is None and before.offsets is not None:
            offsets, field = asking.kept(folder, before.offsets), field or before.language_field
    made, _, loaded = describe(model, embedder, device, **settings)
    if same and settings.get("task") is None and settings.get("prompt") is None:
        made = replace(made, query=before.query, document=before.document)
        count = partial(token_counts, loaded, prompt=made.document)
        chunks.split("", count, made.tokens, made.overlap)  # refuses what leaves no room, as `describe` does
    taken = None if offsets is None or offsets == NO_OFFSETS else asking.taken(offsets)
    return with_offsets(made, taken, field), loaded, taken and taken[0]


def _change(before: IndexModel, made: IndexModel) -> str:
    """One line on what changes besides the model; empty where nothing does."""
    return "; ".join(
        f"{words}: {_shown(name, getattr(before, name))} -> {_shown(name, getattr(made, name))}"
        for name, words in SAID.items()
        if (getattr(before, name) or None) != (getattr(made, name) or None)
    )


def _shown(name: str, value: str | int | None) -> str:
    if value is None and name in ("offsets", "language_field"):
        return "none"
    return "the model's own" if value is None else "nothing" if value == "" else repr(value)


def _place(folder: Path, name: str) -> Path:
    return folder / f"{name}.lance"
