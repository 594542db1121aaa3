"""Look languages up by any of their codes, in the project's table `languages.toml` and in the library langcodes.

The table has the name and script of each language. For the 14 languages of the paper it has the resource level. For the
205 of SIB-200 it has the facts of published lists: a resource class, and whether XLM-R was trained on the language.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from lusifer.errors import UsageError

LEVELS: tuple[str, ...] = ("high", "medium", "low", "extremely_low")
_NO_LANGUAGE = {"und", "mul", "mis", "zxx"}  # undetermined, several, without a code, no linguistic content
_SAME = {"no": "nb"}  # Norwegian without further detail is Bokmål, as in CLDR
_OWN = {"tw": "twi", "twi": "twi"}  # CLDR counts Twi as Akan


@dataclass(frozen=True)
class Language:
    """One language.

    code: ISO 639-1, or three letters where there is no code of two. A language in another than its usual script has
        the script behind the code (ace_Arab).
    name: In English.
    code3: ISO 639-3, as mteb names the language.
    script: ISO 15924.
    level: The resource level in the grouping of the LUSIFER paper, one of `LEVELS`; None outside its 14 languages.
    """

    code: str
    name: str
    code3: str
    script: str
    level: str | None = None


def table() -> dict[str, Language]:
    """Return code -> language from `languages.toml`, the languages of the paper first and in its order."""
    return _rows()[0]


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(resources.files("lusifer").joinpath("languages.toml").read_text(encoding="utf-8"))


@cache
def _rows() -> tuple[dict[str, Language], dict[str, Language]]:
    """The table, and other languages whose name or script is wrong in CLDR."""
    known = {code: row for code, row in _file().items() if code not in ("others", "facts")}
    measured, named = (
        {code: Language(code=code, **row) for code, row in rows.items()} for rows in (known, _file()["others"])
    )
    return measured, named


@cache
def resource_classes() -> dict[str, int]:
    """Return the resource class of each language of SIB-200, by code: 5 for the most resources.

    The classes are those of Joshi et al. 2020 (arXiv 2004.09095). Languages that their list does not name have 0.
    """
    found = _file()["facts"]["resources"]
    return {code: int(number) for number, codes in found.items() for code in codes}


def seen_by_xlmr(code: str) -> bool | None:
    """Whether XLM-R was trained on a language of SIB-200, by its authors' list; None for other languages."""
    return code in _file()["facts"]["seen_by_xlmr"] if code in resource_classes() else None


def paper() -> list[Language]:
    """Return the 14 languages of the paper, in the order of its table 1."""
    return [language for language in table().values() if language.level is not None]


@cache
def language(code: str) -> Language:
    """Look a language up by any of its codes: en, EN, eng, en_US, eng-Latn; iw for he, zho-Hans for zh, nob for nb.

    A territory does not change the language; another script does. A language that is not in the table has its name
    from langcodes.

    Raises:
        UsageError: No language has this code; the message suggests the nearest one.
    """
    import langcodes

    plain = code.strip().replace("_", "-")
    try:
        if not langcodes.tag_is_valid(plain):
            raise LookupError(plain)
        tag = langcodes.Language.get(langcodes.standardize_tag(plain, macro=True))
        given = langcodes.Language.get(plain, normalize=False)
        # langcodes reads Dari (prs) as the Persian of Afghanistan; here it is a language of its own.
        its = given if tag.territory and not given.territory else tag
        spoken = _OWN.get(given.language) or _SAME.get(its.language, its.language)
        if spoken is None or spoken in _NO_LANGUAGE or "qaa" <= spoken <= "qtz" and len(spoken) == 3:
            raise LookupError(plain)
        usual = langcodes.Language.make(spoken)
        code3 = usual.to_alpha3()
    except (LookupError, ValueError):  # langcodes' own errors are of these kinds
        raise UsageError(f"language {code!r} is unknown: {_nearest(code)}") from None
    script, own = tag.maximize().script, usual.maximize().script
    row = table().get(spoken) or _rows()[1].get(spoken)
    if row is not None and script in (row.script, own):
        return row
    if script == own:
        return Language(spoken, usual.display_name(), code3, str(script))
    name = langcodes.Language.make(spoken, script=script).display_name()
    if row is not None:
        name = name.replace(usual.display_name(), row.name)
    return Language(f"{spoken}_{script}", name, code3, str(script))


def among(code: str, there: Collection[str]) -> str:
    """Find a language in a set of codes: its code, or the one in another script if the set has only that one.

    Args:
        code: Any code of the language.
        there: The codes of the set.

    Returns:
        The code as the set has it; a language that the set lacks has its usual code.

    Raises:
        UsageError: No language has this code.
    """
    found = language(code).code
    same = {known for known in there if known.split("_")[0] == found.split("_")[0]}
    return same.pop() if found not in same and len(same) == 1 else found


def _nearest(code: str) -> str:
    """The end of a message: the nearest language by code or name, if there is one, and examples of codes."""
    import langcodes

    usual = "codes are as in en, pt-BR or zho-Hans"
    try:
        if code.isascii() and len(code.strip()) < 4:  # too short for a name: langcodes knows languages called A or En
            raise LookupError(code)
        found = language(str(langcodes.find(code.strip())))
    except (LookupError, UnicodeEncodeError, UsageError):  # langcodes cannot look a lone surrogate up
        names = {name.lower(): row for row in table().values() for name in (row.name, row.code3, row.code)}
        words = (code.strip().lower(), *code.lower().replace("_", "-").split("-")[:1])
        near = [name for word in words for name in difflib.get_close_matches(word, names, 1, 0.7)]
        if not near:
            return usual
        found = names[near[0]]
    return f"did you mean {found.code} ({found.name})? C{usual[1:]}"
