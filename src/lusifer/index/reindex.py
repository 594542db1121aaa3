"""Embed the texts of an index again, with another model or other passages; an interrupted call can continue."""

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
from lusifer.io.files import expand_user, replace_folder
from lusifer.serving import dtypes
from lusifer.serving.encode import token_counts

if TYPE_CHECKING:
    from lusifer.calibration.statistics import LanguageStatistics
    from lusifer.index.models import Embedder

NO_OFFSETS = "none"
"""The value of `offsets` that removes those of an index."""
UNFINISHED, REPLACED = "reindex", "replaced"
"""The names of the unfinished new table, and of the old table while it is removed."""
SAID = {
    "query": "prompt of questions",
    "document": "prompt of documents",
    "dtype": "dtype",
    "tokens": "tokens of a passage",
    "offsets": "language offsets",
    "language_field": "field of the language",
}
"""Setting of an index -> its name in messages."""


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
    """Embed all documents of an index again, from its texts, replace the vectors, and return the counts.

    The index can be searched as before until the new one is complete. A call that was killed continues after its last
    commit, if it is repeated with the same model and settings.

    Args:
        path: The folder of the index.
        model: As for `Index.create`.
        embedder: The model of that name, if it is already loaded.
        device: The device of the model.
        progress: Called with the number of documents done.
        say: Called with one line before anything is embedded, if more than the model changes.
        **settings: As for `models.describe`; `offsets` may be "none". Without a value `overlap` is that of the index,
            and for the model that made the index also the prompts, `dtype` and the offsets. With another model `dtype`
            "auto" is the one that suits the processor.

    Raises:
        UsageError: There is no index, it has no texts, another process writes to it, or there is no such model.
        ModelFolderError: The golden vectors of the model differ.
    """
    folder = expand_user(path)
    old = Index.open(folder)
    with old.locked():
        source = PassageTable(folder)
        source.verify()  # a damaged text would be embedded without an error
        if source.lacks_text:
            raise UsageError(f"{path}: has documents without a text, which cannot be embedded: index the texts")
        embedder, checked = _suited(folder, old.model, model, embedder, device, settings, say)
        made, loaded, offsets = _described(folder, old.model, model, embedder, device, settings)
        if say is not None and (line := _change(old.model, made)):
            say(line)
        if isinstance(model, (str, os.PathLike)) and not checked:
            golden.demand(loaded, model)
        if offsets is not None:
            asking.keep(folder, offsets)
        begun = _begun(folder, made)
        if not begun:
            PassageTable.create(folder, made.to_dict(), made.dimensions, UNFINISHED)
        table = PassageTable(folder, UNFINISHED)
        documents = joined(source.passages())
        report = put(table, made, lambda: loaded, documents, True, source.fields, "split", progress)
        # Documents that were deleted from the index after an earlier call had embedded them.
        gone = sorted(table.all_ids() - source.all_ids()) if begun else []
        if gone:
            table.delete(gone)
        table.tidy(force=True)
        _swap(folder)
        asking.forget(folder, made.offsets)
    return report


def _suited(
    folder: Path,
    before: IndexModel,
    model: str | os.PathLike[str] | Embedder,
    embedder: Embedder | None,
    device: str | None,
    settings: dict[str, Any],
    say: Callable[[str], None] | None,
) -> tuple[Embedder | None, bool]:
    """Another model than that of the index, where "auto" is asked for: its format goes into `settings` instead.

    Also whether its golden vectors were compared.
    """
    if settings.get("dtype") != dtypes.AUTO:
        return embedder, False
    del settings["dtype"]
    named = isinstance(model, (str, os.PathLike)) and embedder is None
    if not named or known(model).identity == before.identity:
        return embedder, False
    if (format_begun := _format_begun(folder, known(model).identity)) is not None:
        settings["dtype"] = format_begun[0]
        return embedder, False
    made, choice = dtypes.load(model, device, lambda dtype: model_folder.load(model, device=device, dtype=dtype))
    settings["dtype"] = choice.dtype
    if say is not None and choice.line:
        say(choice.line)
    return made, choice.checked


def _format_begun(folder: Path, identity: str) -> tuple[str | None] | None:
    """The format in which an interrupted call began to embed with a model, on whatever processor; None if none did."""
    if not _place(folder, UNFINISHED).exists():
        return None
    try:
        about = PassageTable(folder, UNFINISHED).about
    except LusiferError:  # killed before the table could be read
        return None
    return (about.get("dtype"),) if about.get("identity") == identity else None


def _begun(folder: Path, made: IndexModel) -> bool:
    """Whether an earlier call has begun the same work; the rest of other work is removed."""
    if _place(folder, REPLACED).exists():
        shutil.rmtree(_place(folder, REPLACED))
    if not _place(folder, UNFINISHED).exists():
        return False
    try:
        if PassageTable(folder, UNFINISHED).about == made.to_dict():
            return True
    except LusiferError:  # the call was killed before the table could be read
        pass
    _remove(folder)
    return False


def _swap(folder: Path) -> None:
    """Replace the old table by the new one, and remove the old one."""
    replace_folder(_place(folder, UNFINISHED), _place(folder, NAME))
    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove the unfinished table; it is renamed first, so that a killed call leaves nothing to continue."""
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
    """The record of the new model, the model, and the statistics of its offsets."""
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
        chunks.split("", count, made.tokens, made.overlap)  # refuses prompts without room for a text, like `describe`
    taken = None if offsets is None or offsets == NO_OFFSETS else asking.taken(offsets)
    return with_offsets(made, taken, field), loaded, taken and taken[0]


def _change(before: IndexModel, made: IndexModel) -> str:
    """One line on the settings that change in addition to the model; empty if none does."""
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
