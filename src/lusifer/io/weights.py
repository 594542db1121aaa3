"""Tensors in safetensors files: which files of a folder hold them, and whether they are those that a model has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lusifer.errors import ModelFolderError
from lusifer.io.files import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def files(folder: Path, advice: str) -> list[Path]:
    """The files that hold a model folder's weights: those that the index names, without an index `WEIGHTS`.

    Raises:
        ModelFolderError: The index is damaged; the message ends with `advice`.
    """
    if not (folder / INDEX).exists():
        return [folder / WEIGHTS]
    index = read_json(folder / INDEX, advice, ModelFolderError)
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise ModelFolderError(f"{folder / INDEX}: damaged, no weight_map; {advice}")
    return [folder / name for name in sorted(set(named.values()))]


@contextmanager
def opened(file: Path, advice: str) -> Iterator[Any]:
    """Open a safetensors file for torch, as `safetensors.safe_open` does.

    Raises:
        ModelFolderError: It is missing, truncated or no safetensors file; the message ends with `advice`.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise ModelFolderError(f"{file}: missing; {advice}")
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except SafetensorError as error:
        raise ModelFolderError(f"{file}: truncated or damaged ({error}); {advice}") from error


def misfit(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """How tensors differ from the wanted ones, both as name -> shape: "2 missing (a, b); 1 unknown (c)"; "" if not."""
    problems = {
        "missing": wanted.keys() - found.keys(),
        "unknown": found.keys() - wanted.keys(),
        "of another shape": {name for name in wanted.keys() & found.keys() if wanted[name] != found[name]},
    }
    parts = {what: sorted(tensors) for what, tensors in problems.items() if tensors}
    return "; ".join(f"{len(tensors)} {what} ({', '.join(tensors[:3])})" for what, tensors in parts.items())
