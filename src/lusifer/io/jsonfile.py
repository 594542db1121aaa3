"""JSON files and digests of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lusifer.errors import DataError, LusiferError
from lusifer.io.atomic import write_file

KINDS = {list: "list", dict: "object"}


def read_json(file: Path, advice: str, raises: type[LusiferError] = DataError, kind: type | None = None) -> Any:
    """Read a JSON file.

    Args:
        file: The file.
        advice: What to do if it cannot be read, the end of the message.
        raises: The error to raise.
        kind: `dict` or `list`, if the value must be one.

    Raises:
        LusiferError: Of the kind `raises`: the file is missing, damaged or holds another kind of value.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise raises(f"{file}: missing; {advice}") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or not JSON
        raise raises(f"{file}: damaged ({error}); {advice}") from error
    if kind is not None and not isinstance(value, kind):
        raise raises(f"{file}: damaged, not a JSON {KINDS[kind]}; {advice}")
    return value


def write_json(file: Path, value: Any) -> None:
    """Write a value as JSON, indented, the whole file or nothing."""
    with write_file(file) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
