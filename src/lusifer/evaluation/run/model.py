"""The model that is scored: where it lies, what identifies it, whether it knows instructions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sentence_transformers import SentenceTransformer

from lusifer.embedder import folder as model_folder
from lusifer.embedder.exported import ExportedModel
from lusifer.errors import ModelFolderError, UsageError
from lusifer.evaluation.run.encoder import Encoder, model_meta
from lusifer.io import seen
from lusifer.io.jsonfile import read_json
from lusifer.model.lusifer import LusiferModel


@dataclass(frozen=True)
class ModelSource:
    """What a process needs to load the model.

    Attributes:
        folder: Its folder or name; None for one that is only in memory.
        name: What it is called in tables.
        identity: The hash by which its scores are kept.
        instructed: Whether queries get the instruction of their task.
        device: Where to load it; None takes the best one.
        dtype: Number format to load it in; None takes that of its folder.
    """

    folder: str | None
    name: str
    identity: str
    instructed: bool
    device: str | None = None
    dtype: str | None = None

    def load(self) -> ScoredModel:
        """Load it."""
        return ScoredModel(model_folder.load(self.folder or self.name, device=self.device, dtype=self.dtype), self)


@dataclass(frozen=True)
class ScoredModel:
    """The model that is scored, and where it comes from."""

    embedder: SentenceTransformer
    source: ModelSource

    @property
    def dtype(self) -> str:
        """Number format of the weights, the first of them where there are several."""
        if isinstance(getattr(self.embedder[0], "model", None), ExportedModel):
            return "int8"
        first = next(self.embedder.parameters(), None)
        return "not known" if first is None else str(first.dtype).removeprefix("torch.")

    def encoder(self, cache: Path, unit: bool) -> Encoder:
        """As mteb calls it; `cache` and `unit` as for `Encoder`. The texts of its training run are looked up."""
        folder = self.source.folder
        trained_on = seen.of_model(Path(folder)) if folder is not None and Path(folder).is_dir() else None
        meta = model_meta(self.source.name, self.source.identity)
        return Encoder(self.embedder, meta, cache, instructed=self.source.instructed, unit=unit, seen=trained_on)


def load_model(
    model: str | os.PathLike[str] | SentenceTransformer,
    name: str | None,
    device: str | None = None,
    instructed: bool | None = None,
    dtype: str | None = None,
) -> ScoredModel:
    """Load a model, or take the embedder itself.

    Args:
        model: A folder or hub name, or the embedder itself.
        name: What to call it in tables; None takes the folder's name.
        device: Where to load it; None takes the best one.
        instructed: Whether queries get the instruction of their task; None: if it is one of ours with any prompt.
        dtype: Number format to load it in; None takes that of the folder.

    Raises:
        ModelFolderError: No such folder, or a file of it is missing or damaged.
        UsageError: A number format for a model that is loaded already.
    """
    in_memory = isinstance(model, SentenceTransformer)
    if dtype is not None and in_memory:
        raise UsageError(f"dtype {dtype}: this model is loaded already: give its folder, or leave dtype out")
    embedder = model if in_memory else model_folder.load(model, device=device, dtype=dtype)
    identity, folder = _identity(model, embedder)
    if dtype not in (None, _saved_dtype(folder)):  # other vectors than in the folder's own format: not to be mixed
        identity = f"{identity}-{dtype}"
    called = name or ("in memory" if in_memory else Path(os.fspath(model)).name)
    if instructed is None:
        instructed = _ours(embedder) and any(embedder.prompts.values())
    return ScoredModel(embedder, ModelSource(folder, called, identity, instructed, device, dtype))


def _ours(embedder: SentenceTransformer) -> bool:
    """Whether a model was trained here: another one's prompts are its own, and our instructions are none of them."""
    return isinstance(getattr(embedder[0], "model", None), (LusiferModel, ExportedModel))


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
    config = read_json(file, "save the model again", ModelFolderError, dict)
    return config.get("dtype") or config.get("torch_dtype")
