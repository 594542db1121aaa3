"""The language guard: find texts in languages or scripts for which a model has no score, and romanized texts.

A model gives a vector for any text, but the vectors of such texts may be useless. Scripts are known from Unicode.
Languages are identified by py3langid, and only by its confidence that a text is in none of the model's languages. A
Latin text that fits no language is usually romanized. Error rates are in `docs/how-to/languages.md`.
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
"""The language of a text with fewer letters is not identified."""
READ_LETTERS = 400
"""How many letters of a text are read."""
LEAST_MASS = 0.2
"""If the model's languages have less than this probability together, a text is in none of them."""
SURE = 0.7
"""The probability that the identifier must give a language before its name is reported."""
MIXED = 0.2
"""The smallest share of letters of each of the two scripts in a mixed text."""
WORTH_IT = 100
"""With `identify=None`, the number of texts from which on the identifier is loaded."""
ALL_OF, THEN_ONE_IN = 10_000, 100
"""The first so many texts of an input are all checked, and after that one of so many."""
RARE = 0.02
"""Findings by the identifier in at most this share of the texts count as its errors, and are not reported."""
FEW = 10
"""Among more texts than this a single finding by the identifier is not reported either."""
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
"""ISO 15924 -> the first words of the Unicode names of its letters."""
MOST_RESULTS, MOST_CODES = 100_000, 1_000
"""The most results and codes that are read of a card: with YAML aliases a short card could have endless ones."""
_MARKS = ("<!-- scores:begin -->", "<!-- scores:end -->")
_Kind = TypeVar("_Kind", list, dict, str)
_CODE = re.compile(r"^\|[^|]*\(([a-z]{2,3}(?:_[A-Z][a-z]{3})?)\)", re.MULTILINE)

_ENGLISH = frozenset("what where how when who why which with from this you".split())
"""Frequent English words that are rare in other languages in Latin letters."""
_SHARED = frozenset("the does are and that of".split())
"""Frequent English words that are also words of other languages; two of them count as English."""


@dataclass
class LanguageGuard:
    """Counts texts in languages or scripts without a score; `see` takes the texts one by one.

    Args:
        codes: The languages that the model has scores for, as codes of `languages.language`.
        identify: Whether languages are identified by py3langid. None: if it is installed and the input has at least
            `WORTH_IT` texts, because loading it takes a second or two.
        seen: The number of texts.
        looked: The number of texts that were checked.
        found: Kind of finding, as `find` returns it -> names, counted.
        first: The place of the first finding.
    """

    codes: Collection[str]
    identify: bool | None = True
    seen: int = 0
    looked: int = 0
    found: dict[str, Counter[str]] = field(default_factory=dict)
    first: str = ""
    _held: list[tuple[str, str]] = field(default_factory=list)

    def see(self, text: str, place: str = "") -> None:
        """Take the next text of an input; after many texts only one in a hundred is checked.

        Args:
            text: The text.
            place: Where it comes from, such as "texts.txt line 3".
        """
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
        """Check one text.

        Returns:
            ("script", "Thai") or ("language", "Czech") for a script or language without a score; ("unclear", "") for
            Latin text in no language that the identifier knows, such as romanized text; ("mixed", "") for text in two
            scripts. None if nothing was found.
        """
        letters = [_script(char) for char in text[:READ_LETTERS] if char.isalpha()]
        if not letters:
            return None
        counts = Counter("EASTERN" if name in _EASTERN else name for name in letters)
        (main, most), *others = counts.most_common(2)
        known = _scripts_of(frozenset(self.codes))
        if known and main != "OTHER" and 2 * sum(name in known for name in letters) < len(letters):
            if _KANA & set(letters):  # with kana in the text, Chinese characters are Japanese too
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
        """Return one sentence about the findings; None if there are none beyond the error rate of the identifier."""
        if self.identify is None:
            self._settle(False)
        sure, guessed = (sum(sum(self.found.get(kind, {}).values()) for kind in kinds) for kinds in _KINDS)
        if not sure and (guessed <= RARE * self.looked or (guessed == 1 and self.looked > FEW)):
            return None
        words = [f"{name} {count:,}" for kind in ("script", "language") for name, count in self._most(kind)]
        parts = [f"{', '.join(words)} without a score on its card"] if words else []
        for kind, what in (("unclear", "romanized or in an unknown language"), ("mixed", "in two scripts")):
            if self.found.get(kind):
                parts.append(f"{sum(self.found[kind].values()):,} {what}")
        first = f"; the first is {self.first}" if self.first else ""
        if self.seen == 1:
            named = " and ".join(name for kind in ("script", "language") for name, _ in self._most(kind))
            named = named.replace("not known", "an unknown language")
            why = f"it has no score for {named}" if words else f"the text is {parts[0].removeprefix('1 ')}"
            return f"{model} may give a bad vector: {why}{first}"
        which = f"{self.looked:,} text" + ("" if self.looked == 1 else "s")
        which += f" checked (of {self.seen:,})" if self.looked < self.seen else ""
        return f"of {which} {sure + guessed:,} may get bad vectors from {model}: {'; '.join(parts)}{first}"

    def _most(self, kind: str) -> list[tuple[str, int]]:
        return self.found.get(kind, Counter()).most_common(5)


_KINDS = (("script", "mixed"), ("language", "unclear"))
"""Kinds of findings that Unicode makes certain, and kinds that the identifier guesses."""
_KANA = frozenset({"HIRAGANA", "KATAKANA"})
"""Scripts of Japanese only."""
_EASTERN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL"})
"""Scripts that are mixed in Japanese and Korean texts."""


def for_model(
    model: str | os.PathLike[str], identify: bool | None = None, note: Callable[[str], object] | None = None
) -> LanguageGuard | None:
    """Make a guard for a model, with the languages on its card.

    Args:
        model: A folder or name.
        identify: Whether py3langid is required (True), used if it is installed (None) or not used (False).
        note: Called with a message if the card cannot be read.

    Returns:
        The guard; None if the card names no language.

    Raises:
        MissingExtraError: py3langid is required and not installed.
    """
    codes = scored_languages(model, note)
    if not codes:
        return None
    if identify:
        extras.need("languages", extras.IDENTIFIER)
    return LanguageGuard(codes, identify)


def scored_languages(model: str | os.PathLike[str], note: Callable[[str], object] | None = None) -> set[str]:
    """Read the languages for which a model's card has scores.

    They are those of `model-index` and of the tables between the marks of scores. A card without scores by language
    gives the languages of `language` in its front matter.

    Args:
        model: A folder or name.
        note: Called with a message if the front matter is no YAML.

    Returns:
        Codes, as `languages.language` returns them.
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
            note(f"{card}: its languages cannot be read, the front matter is no YAML ({error}): correct it")
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
    """A value of a card if it has the expected type, else an empty value of that type."""
    return value if isinstance(value, kind) else kind()


def _languages(said: Iterable[Any]) -> set[str]:
    codes = dict.fromkeys(code for code in said if isinstance(code, str))
    return {code for code in map(_known, islice(codes, MOST_CODES)) if code}


def told(text: str, codes: Collection[str]) -> str | None:
    """Identify the language of a text among given languages, by py3langid.

    Args:
        text: The text; only the beginning of a long one is read.
        codes: The languages, as codes of `languages.language`.

    Returns:
        The most probable of the languages. None if all of them together have a probability below `LEAST_MASS`, so that
        the text is in another language, or if the best has less than half of their probability. Single words often
        give None.

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


def is_english(text: str) -> bool:
    """Whether a text is clearly English: by py3langid, or, if that is not installed, by frequent English words."""
    if extras.tells_languages():
        return told(text, ("en",)) is not None
    words = set(re.findall("[a-z]+", text.lower()))
    return text.isascii() and (not _ENGLISH.isdisjoint(words) or len(_SHARED & words) > 1)


def refuse(guard: LanguageGuard, model: str) -> None:
    """Refuse an input with findings beyond the error rate of the identifier.

    Args:
        guard: The guard, after it has seen all texts.
        model: The name of the model, for the message.

    Raises:
        DataError: There are such texts; the message is that of `line`.
    """
    if line := guard.line(model):
        raise DataError(f"{line}: leave these texts out, or use --unscored warn")


def _front(text: str) -> dict[str, Any]:
    """The front matter of a card; every value is a text, a list or a mapping.

    Values stay texts, so that impossible dates are no error.

    Raises:
        ValueError: It is no YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about duplicate anchors
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
    """A code as `languages.language` returns it; None if it is no language."""
    try:
        return language(str(code)).code
    except UsageError:
        return None


@cache
def _scripts_of(codes: frozenset[str]) -> frozenset[str]:
    """The first words of the names of these languages' letters; empty if a script is not listed."""
    scripts = {language(code).script for code in codes}
    if not scripts <= set(_SCRIPTS):
        return frozenset()
    return frozenset(name for script in scripts for name in _SCRIPTS[script])


@lru_cache(maxsize=2**16)
def _script(char: str) -> str:
    """The first word of a letter's Unicode name, which is the script for nearly all letters."""
    return unicodedata.name(char, "OTHER").split()[0]


@cache
def identifier() -> Any:
    """Load py3langid's identifier, once; it takes a second or two.

    Raises:
        MissingExtraError: It is not installed.
    """
    langid = extras.need("languages", f"{extras.IDENTIFIER}.langid")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
