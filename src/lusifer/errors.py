"""The exceptions that Lusifer raises, each with the exit status of the command line.

Every message is one line. It names the file, line or key, and how to fix it. The command line prints it unchanged.
Status 1 means that the work failed, status 2 that the call was wrong. `Probe`, the result of a check of `lusifer
doctor`, is here too: a folder can be checked without torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class LusiferError(Exception):
    """The work failed; the message names the file, line or key, and the fix.

    The message is made one line, also where it quotes a file or the error of another library.
    """

    status: int = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Join the lines of a text by spaces, and escape lone surrogates, which UTF-8 cannot encode."""
    line = " ".join(filter(None, (line.strip() for line in text.splitlines())))
    return line.encode(errors="backslashreplace").decode()


def visible(text: str) -> str:
    r"""Escape the characters of a text that would control a terminal, as in `\u001b`.

    These are the control characters except for line feeds and tabs, and the marks that change the direction of text.
    The joiners (U+200C, U+200D) stay: Persian and the Indic scripts need them.
    """
    return _STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class UsageError(LusiferError):
    """The call was wrong: an argument, a recipe or a combination that cannot work."""

    status: int = 2


class RecipeError(UsageError):
    """A recipe cannot be read: the message names the file and the key."""


class DataError(LusiferError):
    """A row of data is invalid: the message names the file and the line."""


class TextError(DataError):
    """A text cannot be embedded: empty, not a string, or with characters that no tokenizer accepts."""


class ModelFolderError(LusiferError):
    """A model folder is incomplete or damaged: the message names the file."""


class MissingExtraError(LusiferError):
    """An optional package is not installed: the message has the `pip install` command."""


@dataclass(frozen=True)
class Probe:
    """The result of a check: its name, whether it passed, and a detail with the number that decided."""

    name: str
    ok: bool
    detail: str
    error: Exception | None = None
    """The error that made it fail, for a traceback."""
