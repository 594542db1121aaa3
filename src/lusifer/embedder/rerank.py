"""A cross-encoder as a function of (query, text) pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lusifer.errors import UsageError


def cross_scores(
    name_or_path: str, *, device: str | None = None, batch_size: int = 32
) -> Callable[[Sequence[tuple[str, str]]], np.ndarray]:
    """Load a cross-encoder of sentence-transformers.

    Args:
        name_or_path: A folder, or a name on the hub.
        device: "cpu", "cuda", ...; None takes the best one.
        batch_size: Pairs at once.

    Returns:
        Pairs -> (n,) float32, higher for a text that answers the query.

    Raises:
        UsageError: It cannot be loaded, or gives more than one score a pair.
    """
    from sentence_transformers import CrossEncoder

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
