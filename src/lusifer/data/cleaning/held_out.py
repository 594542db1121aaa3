"""The texts of evaluation files, whatever their fields: training data may not hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lusifer.errors import UsageError
from lusifer.io import rows
from lusifer.io.jsonfile import read_json
from lusifer.io.seen import text_key

_KINDS = (*rows.SUFFIXES, ".json")
LETTERS = 12  # a shorter text of an evaluation file is a label or a name, which may occur anywhere


@dataclass
class HeldOut:
    """Texts of evaluation files, each once; the number of texts of each file, and of strings that are too short."""

    texts: list[str] = field(default_factory=list)
    files: dict[Path, int] = field(default_factory=dict)
    short: int = 0


def evaluation_texts(paths: Iterable[Path]) -> HeldOut:
    """Give the texts of evaluation files: every string of at least twelve letters and digits, in any field.

    Args:
        paths: Files (.jsonl, .csv, both also .gz, .parquet, .json), or folders of them.

    Raises:
        UsageError: No such file, or none in the folder that can be read.
        DataError: A file is damaged.
    """
    found: dict[str, None] = {}
    short: set[str] = set()
    held = HeldOut()
    for file in dict.fromkeys(file for path in paths for file in _files(path)):
        texts = dict.fromkeys(_texts(file))
        long = [text for text in texts if len(text_key(text)) >= LETTERS]
        short |= texts.keys() - set(long)
        held.files[file] = len(long)
        found |= dict.fromkeys(long)
    held.texts, held.short = list(found), len(short)
    return held


def _files(path: Path) -> list[Path]:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    files = [file for file in files if file.name.endswith(_KINDS) and file.is_file()]
    if not files:
        raise UsageError(f"{path}: no evaluation file there: give a file of {', '.join(_KINDS)}, or a folder of them")
    return files


def _texts(file: Path) -> Iterator[str]:
    if file.suffix == ".json":
        yield from _strings(read_json(file, "copy it again"))
        return
    for row in rows.read(file, lambda row, _: row):
        yield from _strings(row)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)
