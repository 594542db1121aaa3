"""What comes along with the library: recipes, and models (`mini` is the folder `models/lusifer-mini`)."""

from __future__ import annotations

import os
from pathlib import Path

PREFIX = "lusifer-"


def names() -> list[str]:
    """The short names of the models that are here."""
    return sorted(folder.name.removeprefix(PREFIX) for root in roots("models") for folder in root.glob(f"{PREFIX}*"))


def find(name: str | os.PathLike[str]) -> Path | None:
    """The folder of a model that comes along, by its short name or its full one; None where there is no such model.

    Args:
        name: `mini`, `lusifer-mini`, or anything else that a user may call a model.
    """
    short = os.fspath(name).removeprefix(PREFIX)
    folders = (root / f"{PREFIX}{short}" for root in roots("models"))
    return next((folder for folder in folders if short in names() and folder.is_dir()), None)


def roots(kind: str) -> list[Path]:
    """Folders where `recipes` or `models` lie: in the wheel inside the package, in a checkout at its root."""
    package = Path(__file__).resolve().parents[1]
    return [package / kind, package.parents[1] / kind]
