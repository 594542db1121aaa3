"""Which texts are in a language that a model has no score for, in a script that it has none for, or romanised.

Small models give vectors of such texts like of any others, and they may be worth nothing. Scripts are told by Unicode.
Languages are told by py3langid, and only by how sure it is that a text is in none of the model's: a text in Latin
letters that it can place nowhere is mostly romanised. `docs/how-to/languages.md` says how often it is wrong.
"""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from lusifer import extras
from lusifer.errors import DataError, UsageError, one_line
from lusifer.io import hub, names
from lusifer.languages import language

FEWEST_LETTERS = 30
"""Of fewer letters no language can be told."""
READ_LETTERS = 400
"""Of a longer text the beginning is enough."""
LEAST_MASS = 0.2
"""A text is in none of the model's languages where they have less than this of the identifier's probability."""
SURE = 0.7
"""What the identifier must give one language for its name to be said."""
MIXED = 0.2
"""The least share of the letters that each of two scripts has in a mixed text."""
WORTH_IT = 100
"""Texts from which on the identifier is read where nobody asked for it."""
ALL_OF, THEN_ONE_IN = 10_000, 100
"""Of a long input every text is looked at up to here, and then one of so many."""
RARE = 0.02
"""Findings by the identifier in no larger share of the texts are its errors, and not said."""
FEW = 10
"""Among more texts a single finding by the identifier is not said either."""
_SCRIPTS = {
    "Jpan": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"), "Kore": ("HANGUL",), "Hang": ("HANGUL",),
    "Hans": ("CJK",),
    "Hant": ("CJK",), "Hani": ("CJK",), "Latn": ("LATIN", "FULLWIDTH"), "Cyrl": ("CYRILLIC",), "Arab": ("ARABIC",),
    "Deva": ("DEVANAGARI",), "Beng": ("BENGALI",), "Telu": ("TELUGU",), "Taml": ("TAMIL",), "Grek": ("GREEK",),
    "Hebr": ("HEBREW",), "Thai": ("THAI",), "Geor": ("GEORGIAN",), "Armn": ("ARMENIAN",), "Ethi": ("ETHIOPIC",),
    "Guru": ("GURMUKHI",), "Gujr": ("GUJARATI",), "Knda": ("KANNADA",), "Mlym": ("MALAYALAM",), "Orya": ("ORIYA",),
    "Sinh": ("SINHALA",), "Mymr": ("MYANMAR",), "Khmr": ("KHMER",), "Laoo": ("LAO",), "Tibt": ("TIBETAN",),
    "Tfng": ("TIFINAGH",), "Nkoo": ("NKO",), "Olck": ("OL",),
}  # fmt: skip
"""ISO 15924 -> how the Unicode names of its letters begin."""
MOST_RESULTS, MOST_CODES = 100_000, 1_000
"""Of a card no more is read: by aliases a short one may have more of both than any time."""
_MARKS = ("<!-- scores:begin -->", "<!-- scores:end -->")
_Kind = TypeVar("_Kind", list, dict, str)
_CODE = re.compile(r"^\|[^|]*\(([a-z]{2,3}(?:_[A-Z][a-z]{3})?)\)", re.MULTILINE)


@dataclass
class LanguageGuard:
    """Counts texts by what is wrong with their language; `see` takes them one by one.

    Args:
        codes: The languages that the model has scores for, as `languages.language` gives their codes.
        identify: Whether py3langid is asked; None asks it where it is installed, from so many texts on that the second
            or two to read it do not count.
    """

    codes: Collection[str]
    identify: bool | None = True
    seen: int = 0
    looked: int = 0
    found: dict[str, Counter[str]] = field(default_factory=dict)
    first: str = ""
    _held: list[tuple[str, str]] = field(default_factory=list)

    def see(self, text: str, place: str = "") -> None:
        """Take the next text of an input, and look at it unless so many were that one in a hundred will do."""
        self.seen += 1
        if self.seen > ALL_OF and self.seen % THEN_ONE_IN:
            return
        if self.identify is None:
            self._held.append((text[: 2 * READ_LETTERS], place))
            if len(self._held) == WORTH_IT:
                self._settle(extras.tells_languages())
        else:
            self._look(text, place)

    def _settle(self, identify: bool) -> None:
        self.identify = identify
        for text, place in self._held:
            self._look(text, place)
        self._held.clear()

    def _look(self, text: str, place: str) -> None:
        self.looked += 1
        finding = self.find(text)
        if finding is not None:
            self.first = self.first or place
            self.found.setdefault(finding[0], Counter())[finding[1]] += 1

    def find(self, text: str) -> tuple[str, str] | None:
        """What is wrong with a text: ("script", "Thai"), ("language", "Czech"), ("unclear", "") or ("mixed", "").

        "unclear" is Latin text that looks like no language that the identifier knows, as romanised text does; "mixed"
        is text in two scripts. None where nothing is wrong, or nothing can be told.
        """
        letters = [_script(char) for char in text[:READ_LETTERS] if char.isalpha()]
        if not letters:
            return None
        counts = Counter("EASTERN" if name in _EASTERN else name for name in letters)
        (main, most), *others = counts.most_common(2)
        known = _scripts_of(frozenset(self.codes))
        if known and main != "OTHER" and 2 * sum(name in known for name in letters) < len(letters):
            if _KANA & set(letters):  # beside them Chinese characters are Japanese too
                return "script", "Japanese"
            name = next(name for name in letters if name not in known)
            return "script", "Chinese characters" if name == "CJK" else name.title()
        if others and len(letters) >= FEWEST_LETTERS and others[0][1] >= MIXED * len(letters):
            return "mixed", ""
        if not self.identify or len(letters) < FEWEST_LETTERS:
            return None
        ranked = identifier().rank(text[: 2 * READ_LETTERS])
        if sum(chance for code, chance in ranked if _known(code) in self.codes) >= LEAST_MASS:
            return None
        code, chance = ranked[0]
        if chance >= SURE and code not in ("zxx", "und"):
            return "language", language(code).name
        return ("unclear", "") if main == "LATIN" else ("language", "not known")

    def line(self, model: str) -> str | None:
        """One sentence about what was found; None where it is nothing, or no more than the identifier's errors."""
        if self.identify is None:
            self._settle(False)
        sure, guessed = (sum(sum(self.found.get(kind, {}).values()) for kind in kinds) for kinds in _KINDS)
        if not sure and (guessed <= RARE * self.looked or (guessed == 1 and self.looked > FEW)):
            return None
        words = [f"{name} {count:,}" for kind in ("script", "language") for name, count in self._most(kind)]
        parts = [f"{', '.join(words)} without a score on its card"] if words else []
        for kind, what in (("unclear", "romanised or in no language that can be told"), ("mixed", "in two scripts")):
            if self.found.get(kind):
                parts.append(f"{sum(self.found[kind].values()):,} {what}")
        first = f"; the first is {self.first}" if self.first else ""
        if self.seen == 1:
            named = " and ".join(name for kind in ("script", "language") for name, _ in self._most(kind))
            named = named.replace("not known", "a language that cannot be told")
            why = f"it was never scored on {named}" if words else f"the text is {parts[0].removeprefix('1 ')}"
            return f"{model} may give a bad vector: {why}{first}"
        which = f"{self.looked:,} text" + ("" if self.looked == 1 else "s")
        which += f" looked at (of {self.seen:,})" if self.looked < self.seen else ""
        return f"of {which} {sure + guessed:,} may get bad vectors from {model}: {'; '.join(parts)}{first}"

    def _most(self, kind: str) -> list[tuple[str, int]]:
        return self.found.get(kind, Counter()).most_common(5)


_KINDS = (("script", "mixed"), ("language", "unclear"))
"""What Unicode tells, and what the identifier guesses."""
_KANA = frozenset({"HIRAGANA", "KATAKANA"})
_KANA = frozenset({"HIRAGANA", "KATAKANA"})
"""Letters of Japanese alone."""
_EASTERN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL"})
"""What stands together in Japanese and Korean."""


def for_model(
    model: str | os.PathLike[str], identify: bool | None = None, note: Callable[[str], object] | None = None
) -> LanguageGuard | None:
    """A guard for a model by the languages on its card; None where the card names none.

    `identify` is whether py3langid must be there (True), may be (None) or is left out (False); `note` is told of a card
    that cannot be read.

    Raises:
        MissingExtraError: It must be there, and is not.
    """
    codes = scored_languages(model, note)
    if not codes:
        return None
    if identify:
        extras.need("languages", extras.IDENTIFIER)
    return LanguageGuard(codes, identify)


def scored_languages(model: str | os.PathLike[str], note: Callable[[str], object] | None = None) -> set[str]:
    """The languages that a model's card has scores for: by `model-index`, or the tables between its marks of scores.

    Where it has no scores by language, those that it names (`language` in its front matter). Of whatever else stands
    there nothing is read; where the front matter is no YAML, `note` is told so in a sentence.
    """
    found = names.model(model)
    if names.is_packed(found):
        return set()
    card = (found if isinstance(found, Path) else hub.fetch(found, ["README.md"])) / "README.md"
    if not card.is_file():
        return set()
    text = card.read_text(encoding="utf-8", errors="replace")
    try:
        about = _front(text)
    except ValueError as error:
        about = {}
        if note is not None:
            note(f"{card}: languages are not read, its front matter is no YAML ({error}): correct it")
    results = (
        one for entry in _as(about.get("model-index"), list) for one in _as(_as(entry, dict).get("results"), list)
    )
    configs = (_as(_as(one, dict).get("dataset"), dict).get("config") for one in islice(results, MOST_RESULTS))
    said = [
        code for config in dict.fromkeys(_as(each, str) for each in configs) for code in re.split(r"[^\w]+", config)
    ]
    blocks = (block.partition(_MARKS[1]) for block in text.split(_MARKS[0])[1:])
    said += [code for block, end, _ in blocks if end for code in _CODE.findall(block)]
    return _languages(said) or _languages(_as(about.get("language"), list) or [about.get("language")])


def _as(value: Any, kind: type[_Kind]) -> _Kind:
    """A value of a card if it is of the kind that belongs there, else an empty one of it."""
    return value if isinstance(value, kind) else kind()


def _languages(said: Iterable[Any]) -> set[str]:
    codes = dict.fromkeys(code for code in said if isinstance(code, str))
    return {code for code in map(_known, islice(codes, MOST_CODES)) if code}


def told(text: str, codes: Collection[str]) -> str | None:
    """The language of a text, if it is one of those that are asked about.

    It is the one with most of py3langid's probability among them: not where they have less than `LEAST_MASS` of it
    together, as of a text in another language, nor where it has less than half of that. Single words are often in none.

    Args:
        text: The text; of a long one the beginning is read.
        codes: Languages, as `languages.language` gives their codes.

    Raises:
        MissingExtraError: py3langid is not installed.
    """
    chances: Counter[str] = Counter()
    for code, chance in identifier().rank(text[: 2 * READ_LETTERS]):
        if (known := _known(code)) in codes:
            chances[known] += chance
    mass = sum(chances.values())
    if not chances or mass < LEAST_MASS or not any(char.isalpha() for char in text[:READ_LETTERS]):
        return None
    best, chance = chances.most_common(1)[0]
    return best if chance >= mass / 2 else None


def refuse(guard: LanguageGuard, model: str) -> None:
    """Refuse an input of which more texts were found than the identifier is wrong about.

    Raises:
        DataError: Says which.
    """
    if line := guard.line(model):
        raise DataError(f"{line}: leave them out, or take --unscored warn")


def _front(text: str) -> dict[str, Any]:
    """The front matter of a card, every value a text, a list or a mapping.

    So are aliases of aliases no more than their text, and dates that there are not no error.

    Raises:
        ValueError: It is no YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an anchor that stands twice
            said = YAML(typ="base").load(match[1]) if match else None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (YAMLError, TypeError) as error:  # TypeError: a key that is a list of lists
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 2}: " if mark is not None else ""
        raise ValueError(where + one_line(str(getattr(error, "problem", None) or error))) from None
    return _as(said, dict)


@cache
def _known(code: str) -> str | None:
    """A code as `languages.language` has it, None where it is of no language."""
    try:
        return language(str(code)).code
    except UsageError:
        return None


@cache
def _scripts_of(codes: frozenset[str]) -> frozenset[str]:
    """How the names of letters of these languages begin; empty where one is in a script that is not listed."""
    scripts = {language(code).script for code in codes}
    if not scripts <= set(_SCRIPTS):
        return frozenset()
    return frozenset(name for script in scripts for name in _SCRIPTS[script])


@lru_cache(maxsize=2**16)
def _script(char: str) -> str:
    """The first word of a letter's Unicode name, which is its script for nearly all letters."""
    return unicodedata.name(char, "OTHER").split()[0]


@cache
def identifier() -> Any:
    """py3langid, read once: it takes a second or two.

    Raises:
        MissingExtraError: It is not installed.
    """
    langid = extras.need("languages", f"{extras.IDENTIFIER}.langid")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
