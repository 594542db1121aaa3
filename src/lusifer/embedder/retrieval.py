"""Models of retrieval, for mining training data: any embedder of sentence-transformers, and cross-encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from lusifer.embedder import folder
from lusifer.errors import ModelFolderError, UsageError
from lusifer.io import names


def load_retriever(name_or_path: str, *, device: str | None = None, dtype: str | None = None) -> SentenceTransformer:
    """Load an embedder of any kind, named as for `lusifer.load`: one of ours, checked, or any of sentence-transformers.

    Raises:
        ModelFolderError: It is a folder of ours that is not complete, or of no embedder.
    """
    path = names.model(name_or_path)
    if isinstance(path, str) or not (path / "modules.json").is_file() or (path / "config.json").is_file():
        return folder.load(path, device=device, dtype=dtype)
    # Without a transformer at its top: static embeddings, or modules in folders of their own.
    try:
        made = SentenceTransformer(str(path), device=device, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise ModelFolderError(f"{path}: sentence-transformers cannot load it: {str(error).splitlines()[0]}") from error
    return made if dtype is None else made.to(getattr(torch, dtype))


def load_cross_encoder(
    name_or_path: str, *, device: str | None = None, batch_size: int = 32
) -> Callable[[Sequence[tuple[str, str]]], np.ndarray]:
    """Load a cross-encoder of sentence-transformers, from a folder or the hub.

    Returns:
        Pairs -> (n,) float32, higher for a text that answers the query.

    Raises:
        UsageError: It cannot be loaded, or gives more than one score for a pair.
    """
    try:
        model = CrossEncoder(name_or_path, device=device, local_files_only=Path(name_or_path).is_dir())
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{name_or_path}: is no cross-encoder that can be loaded ({first})") from error
    if model.num_labels != 1:
        raise UsageError(f"{name_or_path}: gives {model.num_labels} scores a pair: take a cross-encoder with one")

    def scores(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        return np.asarray(model.predict(list(pairs), batch_size=batch_size, show_progress_bar=False), np.float32)

    return scores
