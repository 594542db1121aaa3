"""The record of an evaluation, `summary.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lusifer.folders import write_file

SUMMARY = "summary.json"


def write(summary: dict[str, Any], output: Path) -> Path:
    """Write `summary.json` into a folder; what else is there stays."""
    output.mkdir(parents=True, exist_ok=True)
    with write_file(output / SUMMARY) as temporary:
        temporary.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return output / SUMMARY


def digests(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of every file, by name."""
    return {file.name: _digest(file) for file in files}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
