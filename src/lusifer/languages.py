"""The languages that the project measures: code, name, script and, for the 14 of the paper, resource level."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources

from lusifer.errors import UsageError

LEVELS: tuple[str, ...] = ("high", "medium", "low", "extremely_low")


@dataclass(frozen=True)
class Language:
    """One language: `code` is ISO 639-1, `code3` ISO 639-3 (as mteb names it), `script` ISO 15924.

    `level` is the resource level in the grouping of the LUSIFER paper, one of `LEVELS`; None outside its 14 languages.
    """

    code: str
    name: str
    code3: str
    script: str
    level: str | None = None


def table() -> dict[str, Language]:
    """Read the languages by code, those of the paper first and in its order, from `languages.toml`."""
    text = resources.files("lusifer").joinpath("languages.toml").read_text(encoding="utf-8")
    return {code: Language(code=code, **row) for code, row in tomllib.loads(text).items()}


def paper() -> list[Language]:
    """Give the 14 languages of the paper, in the order of its table 1."""
    return [language for language in table().values() if language.level is not None]


def language(code: str) -> Language:
    """Look a language up by ISO 639-1 or ISO 639-3, in any case.

    Raises:
        UsageError: The table has no such language; the message lists the codes that it has.
    """
    rows = table()
    for row in rows.values():
        if code.strip().lower() in (row.code, row.code3):
            return row
    raise UsageError(f"language {code!r} is unknown: use one of {', '.join(rows)}")
