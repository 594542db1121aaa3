"""What can go wrong, as exception classes with an exit status.

Every message is one clear line that names the file, line or key and how to mend it: the command line prints it as it
is. Status 1 means that the work failed, status 2 that the call was wrong.
"""

from __future__ import annotations

import re

_STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class LusiferError(Exception):
    """The work failed. The message names the file, line or key and the mend.

    It is one line, whatever stands in it of a file's content or of another library's words.
    """

    status: int = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Join the lines of a text by spaces, and spell lone surrogates out, which no file and no answer can hold."""
    line = " ".join(filter(None, (line.strip() for line in text.splitlines())))
    return line.encode(errors="backslashreplace").decode()


def visible(text: str) -> str:
    """Spell out as JSON does what would steer a terminal.

    That is control characters but for line ends and tabs, and marks that turn the direction of what follows them. The
    joiners (U+200C, U+200D) stay: words of Persian and of Indic scripts hold them.
    """
    return _STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class UsageError(LusiferError):
    """The call was wrong: an argument, a recipe or a combination that cannot work."""

    status: int = 2


class RecipeError(UsageError):
    """A recipe cannot be read: the message names the file and the key."""


class DataError(LusiferError):
    """A row of data is not what it should be: the message names the file and the line."""


class TextError(DataError):
    """A text cannot be embedded: empty, not a string, or with characters that no tokenizer accepts."""


class ModelFolderError(LusiferError):
    """A model folder is incomplete or damaged: the message names the file."""


class MissingExtraError(LusiferError):
    """An optional package is not installed: the message carries the install line."""
