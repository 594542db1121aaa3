"""The record of an evaluation, `summary.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from lusifer.errors import DataError
from lusifer.evaluation.scores.averages import order_of
from lusifer.io.atomic import write_file
from lusifer.language_gap import Against, Gap, Within

SUMMARY, GAP, ISLANDS = "summary.json", "gap.json", "islands.safetensors"
DRAWN = 200  # texts of all languages together in a picture of the vectors, as in the paper's figure 6


def write(summary: dict[str, Any], output: Path) -> Path:
    """Write `summary.json` into a folder; what else is there stays."""
    output.mkdir(parents=True, exist_ok=True)
    with write_file(output / SUMMARY) as temporary:
        temporary.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return output / SUMMARY


def write_gap(gap: Gap, output: Path) -> Path:
    """Write `gap.json`: how far apart the model keeps the languages, as `lusifer.embedder.gap` measures it."""
    with write_file(output / GAP) as temporary:
        temporary.write_text(json.dumps(asdict(gap), indent=1) + "\n", encoding="utf-8")
    return output / GAP


def read_gap(output: Path) -> Gap | None:
    """Read `gap.json` of an evaluation folder; None where the suite measures none.

    Raises:
        DataError: The file is damaged.
    """
    file = output / GAP
    if not file.is_file():
        return None
    try:
        made = json.loads(file.read_text(encoding="utf-8"))
        within = {code: Within(**row) for code, row in made["within"].items()}
        against = {code: Against(**row) for code, row in made["against"].items()}
        return Gap(made["sentences"], made["k"], within, against)
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: damaged ({error}): evaluate again") from error


def write_islands(vectors: Mapping[str, np.ndarray], output: Path) -> Path:
    """Write `islands.safetensors`: vectors (n, d) of the same texts by language, for a picture in a report."""
    tensors = {code: np.ascontiguousarray(rows, dtype=np.float16) for code, rows in vectors.items()}
    with write_file(output / ISLANDS) as temporary:
        temporary.write_bytes(save(tensors))
    return output / ISLANDS


def read_islands(output: Path) -> dict[str, np.ndarray] | None:
    """Read `islands.safetensors` of an evaluation folder, in the paper's order; None where there is none.

    Raises:
        DataError: The file is damaged.
    """
    file = output / ISLANDS
    if not file.is_file():
        return None
    try:
        found = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file}: damaged ({error}): evaluate again") from error
    return {code: found[code].astype(np.float32) for code in order_of(found)}


def digests(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of every file, by name."""
    return {file.name: _digest(file) for file in files}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
