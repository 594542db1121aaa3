"""Loading a model until it can embed: the finished folder beside bases and adapters put together at every start.

Every way reads each file once, its tokenizer's included.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import peers
from medium import adapted
from transformers import AutoTokenizer

from lusifer import load


def ways() -> tuple[str, ...]:
    """Ours first."""
    return ("ours", "bases and adapters, merged", "authors")


def prepare(folder: Path, way: str) -> tuple[Callable[[], object], dict[str, float]]:
    """A function that loads."""
    if way == "ours":
        return lambda: load(folder / "model", device="cpu"), {}
    if way == "authors":  # LM head included, adapters left beside the weights
        return lambda: (AutoTokenizer.from_pretrained(folder / "encoder"), peers.Published(folder, adapted)), {}
    return lambda: peers.chain(folder, adapted, merged=True), {}
