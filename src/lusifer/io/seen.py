"""Which texts a training run has read, by the filters that its stages left in its folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lusifer.errors import UsageError
from lusifer.io.bloom import BloomFilter

SEEN = "seen.safetensors"
_PLACES = (f"checkpoints/*/{SEEN}", f"*/{SEEN}", SEEN)  # in a run folder, in its checkpoints, in a stage's folder


class SeenTexts:
    """The texts of several stages."""

    def __init__(self, filters: Iterable[BloomFilter]) -> None:
        """Take a filter for each stage."""
        self.filters = list(filters)

    def __contains__(self, text: str) -> bool:
        """Whether a stage has read the text, or chance says so (once in a thousand texts and stage)."""
        return any(text in each for each in self.filters)

    @property
    def texts(self) -> int:
        """Texts that were read, those of several stages counted again."""
        return sum(each.texts for each in self.filters)


def seen(run: Path) -> SeenTexts:
    """Read the texts that a training run has seen.

    Args:
        run: Its folder.

    Raises:
        UsageError: There is no such record in it.
        DataError: The record is damaged.
    """
    files = next((found for place in _PLACES if (found := sorted(run.glob(place)))), None)
    if not files:
        raise UsageError(f"{run}: no {SEEN} in it: name the folder of a training run (`lusifer train --output`)")
    return SeenTexts(map(BloomFilter.load, files))


def of_model(folder: Path) -> SeenTexts | None:
    """Read the texts that a model was trained on, where it still lies in the folder of its run; None elsewhere."""
    run = folder.resolve().parent
    return seen(run) if any(run.glob(_PLACES[0])) else None
