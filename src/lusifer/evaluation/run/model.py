"""The model that is scored: where it lies, what identifies it, whether it knows instructions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentence_transformers import SentenceTransformer

from lusifer.embedder import folder as model_folder
from lusifer.embedder.exported import ExportedModel
from lusifer.errors import ModelFolderError, UsageError
from lusifer.evaluation.run.encoder import Encoder, model_meta
from lusifer.io import seen
from lusifer.model.lusifer import LusiferModel


@dataclass(frozen=True)
class Measured:
    """The model that is scored; `place` is its folder or name, None for one that is only in memory."""

    embedder: SentenceTransformer
    name: str
    identity: str
    place: str | None
    instructed: bool

    @property
    def dtype(self) -> str:
        """Number format of the weights, the first of them where there are several."""
        if isinstance(getattr(self.embedder[0], "model", None), ExportedModel):
            return "int8"
        first = next(self.embedder.parameters(), None)
        return "not known" if first is None else str(first.dtype).removeprefix("torch.")

    def encoder(self, cache: Path, unit: bool) -> Encoder:
        """As mteb calls it."""
        meta = model_meta(self.name, self.identity)
        return Encoder(self.embedder, meta, cache, instructed=self.instructed, unit=unit, seen=_seen(self.place))


def measured(
    model: str | os.PathLike[str] | SentenceTransformer,
    name: str | None,
    devices: Sequence[str] = (),
    instructed: bool | None = None,
    dtype: str | None = None,
) -> Measured:
    """Load a model, or take the embedder itself.

    Args:
        model: A folder or hub name, or the embedder itself.
        name: What to call it in tables; None takes the folder's name.
        devices: Where to load it, the first one here; empty takes the best one.
        instructed: Whether queries get the instruction of their task; None: if it is one of ours with any prompt.
        dtype: Number format to load it in; None takes that of the folder.

    Raises:
        ModelFolderError: No such folder, or a file of it is missing or damaged.
        UsageError: A number format for a model that is loaded already.
    """
    if dtype is not None and isinstance(model, SentenceTransformer):
        raise UsageError(f"dtype {dtype}: this model is loaded already: give its folder, or leave dtype out")
    embedder = model if isinstance(model, SentenceTransformer) else _load(model, devices, dtype)
    identity, place = _identity(model, embedder)
    if dtype not in (None, _saved_dtype(place)):  # other vectors, not to be mixed with those of the folder's own format
        identity = f"{identity}-{dtype}"
    named = name or (Path(os.fspath(model)).name if not isinstance(model, SentenceTransformer) else "in memory")
    told = _ours(embedder) and any(embedder.prompts.values())
    instructed = told if instructed is None else instructed
    return Measured(embedder, named, identity, place, instructed)


def _ours(embedder: SentenceTransformer) -> bool:
    """Whether a model was trained here: another one's prompts are its own, and our instructions are none of them."""
    return isinstance(getattr(embedder[0], "model", None), (LusiferModel, ExportedModel))


def _load(model: str | os.PathLike[str], devices: Sequence[str], dtype: str | None) -> SentenceTransformer:
    return model_folder.load(model, device=devices[0] if devices else None, dtype=dtype)


def _identity(
    model: str | os.PathLike[str] | SentenceTransformer, embedder: SentenceTransformer
) -> tuple[str, str | None]:
    """The hash by which scores are kept, and where the model lies, if anywhere."""
    if isinstance(model, SentenceTransformer):
        return model_folder.identity_in_memory(embedder), None
    path = Path(os.fspath(model)).expanduser()
    if not path.is_dir():
        try:
            path = model_folder.fetch(os.fspath(model))  # a hub name: its files are in the cache by now
        except ModelFolderError:
            return model_folder.identity_in_memory(embedder), os.fspath(model)
    return model_folder.identity(path), str(path)


def _saved_dtype(place: str | None) -> str | None:
    """Number format that a folder's configuration names, and in which it is loaded where none is asked for."""
    file = None if place is None else Path(place) / "config.json"
    if file is None or not file.is_file():
        return None
    told = json.loads(file.read_text(encoding="utf-8"))
    return told.get("dtype") or told.get("torch_dtype")


def _seen(place: str | None) -> seen.SeenTexts | None:
    """The texts that a model was trained on, where it lies in its run's folder."""
    return seen.of_model(Path(place)) if place is not None and Path(place).is_dir() else None
