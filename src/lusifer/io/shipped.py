"""Models that come along with the library: `mini` is the folder `models/lusifer-mini`."""

from __future__ import annotations

import os
from pathlib import Path

PREFIX = "lusifer-"


def names() -> list[str]:
    """The short names of the models that are here."""
    return sorted(folder.name.removeprefix(PREFIX) for root in _roots() for folder in root.glob(f"{PREFIX}*"))


def find(name: str | os.PathLike[str]) -> Path | None:
    """The folder of a model that comes along, by its short name or its full one; None where there is no such model.

    Args:
        name: `mini`, `lusifer-mini`, or anything else that a user may call a model.
    """
    short = os.fspath(name).removeprefix(PREFIX)
    folders = (root / f"{PREFIX}{short}" for root in _roots())
    return next((folder for folder in folders if short in names() and folder.is_dir()), None)


def _roots() -> list[Path]:
    """In the wheel models lie inside the package, in a checkout at its root."""
    here = Path(__file__).resolve()
    return [here.parent / "models", here.parents[2] / "models"]
