"""Perturbations: changes to the form of a text that leave its meaning as it is, in any script.

Each perturbation is a function of a text and the code of its language. Code-mixing also takes English words for some of
the words of the text (see `alignment.py`). The same text gets the same perturbation in every run. Typing errors and
invisible characters are placed between grapheme clusters, never inside one. A text that a perturbation cannot change is
returned unchanged; the suite counts such texts to find the languages to which a perturbation does not apply.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, ModuleType

import regex

from lusifer import extras
from lusifer.languages import language

TYPING_SHARE = 0.2
"""Share of the words that get a typing error; at least one word gets one."""
INVISIBLE_SHARE = 0.5
"""Share of the words that get an invisible character; at least one word gets one."""
INVISIBLE = "\u200b\u200d\u00ad\u200e\u200f"
"""Zero-width space and joiner, soft hyphen, left-to-right and right-to-left mark."""
EMOJI = ("🙂", "🎉", "👍🏽", "👩‍👩‍👧", "🇮🇳", "❤️", "🤷‍♀️", "😂")
NONE: Mapping[int, str] = MappingProxyType({})
PIECE = 4
"""Letters that count as one word in scripts without spaces between words."""
SHORTEST = 3
"""Letters of the shortest word that gets a typing error; an error in a shorter word often makes another word."""
_SPACELESS = regex.compile(r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Han}\p{Hiragana}\p{Katakana}]")
_WORD = regex.compile(r"[\p{L}\p{M}\u200c\u200d]*\p{L}[\p{L}\p{M}\u200c\u200d]*")
_CLUSTER = regex.compile(r"\X")
_NOT_LATIN = regex.compile(r"[^\p{Latin}]*[^\P{L}\p{Latin}][^\p{Latin}]*")
_STROKES = str.maketrans("đĐłŁøØħĦŧŦ", "dDlLoOhHtT")
_VOWEL_SIGNS = regex.compile(r"[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u0652\u0670]")
"""Hebrew and Arabic vowel signs, which most texts omit."""
_ZEROS = {
    "Arab": "٠", "Deva": "०", "Beng": "০", "Telu": "౦", "Taml": "௦", "Guru": "੦", "Gujr": "૦", "Knda": "೦",
    "Mlym": "൦", "Orya": "୦", "Thai": "๐", "Laoo": "໐", "Mymr": "၀", "Khmr": "០", "Tibt": "༠", "Olck": "᱐",
    "Nkoo": "߀", "Jpan": "０", "Hans": "０", "Hant": "０",
}  # fmt: skip
"""Script (ISO 15924) -> its digit 0; for Chinese and Japanese the full-width 0 of their keyboards."""
_CASED = ("Latn", "Cyrl", "Grek", "Armn")
_EASTERN_ARABIC = {"fa", "ur", "ps", "ckb", "sd", "ks", "ks_Arab", "ug", "prs", "azb"}


@dataclass(frozen=True)
class Perturbation:
    """A named perturbation.

    Attributes:
        name: End of the name of its task classes, such as "Capitals".
        title: Words that follow the noun in titles, such as "in capitals".
        apply: Function of a text, the code of its language and English words by position.
        mixed: Whether `apply` needs English words.
        romanises: Whether `apply` needs uroman.
    """

    name: str
    title: str
    apply: Callable[[str, str, Mapping[int, str]], str]
    mixed: bool = False
    romanises: bool = False

    def __call__(self, text: str, code: str, english: Mapping[int, str] = NONE) -> str:
        """Perturb a text.

        Args:
            text: The text.
            code: The code of its language.
            english: Position of a word in the text -> English words for it; only code-mixing reads it.

        Returns:
            The perturbed text, or the text unchanged where nothing but spaces would be left.
        """
        made = self.apply(text, code, english)
        return made if made.strip() else text


def clusters(text: str) -> list[str]:
    """Split a text into grapheme clusters."""
    return _CLUSTER.findall(text)


def spaced(text: str) -> bool:
    """Whether no part of a text is in a script without spaces between words."""
    return not _SPACELESS.search(text)


def words(text: str) -> list[tuple[int, int]]:
    """Give the start and end of each word of a text; in scripts without spaces, `PIECE` letters count as one word."""
    found = []
    for match in _WORD.finditer(text):
        if spaced(match[0]):
            found.append(match.span())
            continue
        start, letters = match.start(), clusters(match[0])
        for place in range(0, len(letters), PIECE):
            end = start + len("".join(letters[place : place + PIECE]))
            found.append((start, end))
            start = end
    return found


def romanised(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Romanize all text that is not in Latin script, with uroman (Hermjakob et al. 2018, ACL).

    Args:
        text: The text.
        code: The code of its language.
        english: Not used.

    Raises:
        MissingExtraError: uroman is not installed.
    """
    return _NOT_LATIN.sub(lambda match: _romanise(match[0], language(code).code3), text)


def code_mixed(text: str, code: str, english: Mapping[int, str]) -> str:
    """Replace half of the words by English ones and leave the word order: "Panthers डिफ़ेंस ने how many अंक दिए?".

    Words without known English words stay, so the share may be less than half.

    Args:
        text: The text.
        code: Not used.
        english: Position of a word in the text -> English words for it.
    """
    every = words(text)
    chosen = _chance("mixed", text).sample(sorted(english), min(len(english), (len(every) + 1) // 2))
    for number in sorted(chosen, reverse=True):
        start, end = every[number]
        text = f"{text[:start]}{english[number]}{text[end:]}"
    return text


def code_mixed_romanised(text: str, code: str, english: Mapping[int, str]) -> str:
    """Replace half of the words by English ones and romanize the others.

    Where romanization changes nothing, the text is returned unchanged, without English words.

    Args:
        text: The text.
        code: The code of its language.
        english: Position of a word in the text -> English words for it.

    Raises:
        MissingExtraError: uroman is not installed.
    """
    mixed = code_mixed(text, code, english)
    made = romanised(mixed, code)
    return text if made == mixed else made


def without_diacritics(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Remove accents of Latin and Greek letters, the dots of ё, and Arabic and Hebrew vowel signs.

    Marks that readers of other scripts need stay, such as the vowels of Devanagari and the tones of Thai.
    """
    return "".join(_bare(cluster) for cluster in clusters(text))


def capitals(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Write in capitals, in languages whose script has them; Turkish and Azerbaijani get their dotted capital I."""
    if language(code).script not in _CASED:
        return text  # otherwise a Korean text with one Latin name in it would count as changed
    if code in ("tr", "az"):
        text = text.replace("i", "İ")
    return text.upper()


def typing_errors(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Swap, drop or double a letter in `TYPING_SHARE` of the words."""
    chance, every = _chance("typing", text), words(text)
    long = [span for span in every if len(clusters(text[slice(*span)])) >= SHORTEST]
    chosen = chance.sample(long, min(len(long), max(1, round(TYPING_SHARE * len(every)))))
    for start, end in sorted(chosen, reverse=True):
        text = text[:start] + _mistyped(clusters(text[start:end]), chance) + text[end:]
    return text


def decomposed(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Bring to Unicode form NFD, which some systems store: accents and parts of Korean syllables become characters."""
    return unicodedata.normalize("NFD", text)


def with_invisible(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Put an invisible character into `INVISIBLE_SHARE` of the words, as happens to text copied from PDF files."""
    chance, every = _chance("invisible", text), words(text)
    long = [span for span in every if len(clusters(text[slice(*span)])) > 1]
    if not long:
        return text + chance.choice(INVISIBLE)
    for start, end in sorted(chance.sample(long, max(1, round(INVISIBLE_SHARE * len(long)))), reverse=True):
        letters = clusters(text[start:end])
        letters.insert(chance.randrange(1, len(letters)), chance.choice(INVISIBLE))
        text = text[:start] + "".join(letters) + text[end:]
    return text


def with_emoji(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Put an emoji after the text, and another one after one of its words."""
    chance = _chance("emoji", text)
    inner = [end for _, end in words(text)[:-1] if text[end : end + 1].isspace()]
    if inner:
        place = chance.choice(inner)
        text = f"{text[:place]} {chance.choice(EMOJI)}{text[place:]}"
    return f"{text} {chance.choice(EMOJI)}"


def other_digits(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Exchange the digits 0 to 9 and the digits of the language's script; scripts without own digits stay unchanged.

    For Chinese and Japanese these are the full-width digits of their keyboards.
    """
    zero = "۰" if code in _EASTERN_ARABIC else _ZEROS.get(language(code).script)
    if zero is None:
        return text
    own = "".join(chr(ord(zero) + number) for number in range(10))
    return text.translate(str.maketrans("0123456789" + own, own + "0123456789"))


PERTURBATIONS = (
    Perturbation("Romanised", "romanised", romanised, romanises=True),
    Perturbation("CodeMixed", "half of the words in English", code_mixed, mixed=True),
    Perturbation(
        "CodeMixedRomanised",
        "half of the words in English, the others romanised",
        code_mixed_romanised,
        mixed=True,
        romanises=True,
    ),
    Perturbation("WithoutDiacritics", "without diacritics", without_diacritics),
    Perturbation("Capitals", "in capitals", capitals),
    Perturbation("TypingErrors", "with typing errors", typing_errors),
    Perturbation("Decomposed", "in NFD", decomposed),
    Perturbation("Invisible", "with invisible characters", with_invisible),
    Perturbation("Emoji", "with emoji", with_emoji),
    Perturbation("OtherDigits", "in other digits", other_digits),
)


def _chance(what: str, text: str) -> random.Random:
    """A random generator that depends on the text alone, so that every process perturbs it alike."""
    return random.Random(f"{what}: {text}")


def _bare(cluster: str) -> str:
    """A grapheme cluster without the accents that `without_diacritics` removes."""
    if cluster in ("ё", "Ё") or unicodedata.normalize("NFC", cluster) in ("ё", "Ё"):
        return "е" if cluster[0] in "ёе" else "Е"
    if regex.match(r"[\p{Latin}\p{Greek}]", cluster):
        parts = unicodedata.normalize("NFD", cluster)
        return "".join(part for part in parts if not unicodedata.combining(part)).translate(_STROKES)
    return _VOWEL_SIGNS.sub("", cluster)


def _mistyped(letters: list[str], chance: random.Random) -> str:
    """Make one typing error in a word."""
    apart = [place for place in range(len(letters) - 1) if letters[place] != letters[place + 1]]
    kind = chance.choice(("swap", "drop", "double") if apart else ("drop", "double"))
    if kind == "swap":
        place = chance.choice(apart)
        letters[place : place + 2] = letters[place + 1], letters[place]
    elif kind == "drop":
        del letters[chance.randrange(len(letters))]
    else:
        letters.insert(place := chance.randrange(len(letters)), letters[place])
    return "".join(letters)


def romaniser() -> ModuleType:
    """Import uroman.

    Raises:
        MissingExtraError: uroman is not installed.
    """
    return extras.need("robust", "uroman")


@cache
def _uroman() -> object:
    return romaniser().Uroman()


@cache
def _romanise(text: str, code3: str) -> str:
    """Romanize a text and leave the spaces at both ends as they are."""
    inner = text.strip()
    before, _, after = text.partition(inner)
    return f"{before}{_uroman().romanize_string(inner, lcode=code3)}{after}"
