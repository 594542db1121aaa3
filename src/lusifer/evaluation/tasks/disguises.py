"""Disguises: what people do to a text without changing what it says, text by text, in any script.

Each is a function of a text, the code of its language and, for the mixed ones, the English for some of its words (see
`alignment.py`). The same text gets the same disguise in every run. Errors and marks go between what a reader takes for
one letter (a grapheme cluster), never into it. A text that a disguise has nothing to do with comes back as it was: so
it is told where one does not apply.
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
"""Of the words that get a typing error; one at least."""
INVISIBLE_SHARE = 0.5
"""Of the words into which an invisible character goes; one at least."""
INVISIBLE = "\u200b\u200d\u00ad\u200e\u200f"
"""Zero-width space and joiner, soft hyphen, left-to-right and right-to-left mark."""
EMOJI = ("🙂", "🎉", "👍🏽", "👩‍👩‍👧", "🇮🇳", "❤️", "🤷‍♀️", "😂")
NONE: Mapping[int, str] = MappingProxyType({})
PIECE = 4
"""Letters of a "word" in scripts that put no space between words."""
SHORTEST = 3
"""Letters of the shortest word that gets a typing error: what is left of a shorter one is another word."""
_SPACELESS = regex.compile(r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Han}\p{Hiragana}\p{Katakana}]")
_WORD = regex.compile(r"[\p{L}\p{M}\u200c\u200d]*\p{L}[\p{L}\p{M}\u200c\u200d]*")
_CLUSTER = regex.compile(r"\X")
_NOT_LATIN = regex.compile(r"[^\p{Latin}]*[^\P{L}\p{Latin}][^\p{Latin}]*")
_STROKES = str.maketrans("đĐłŁøØħĦŧŦ", "dDlLoOhHtT")
_VOWEL_SIGNS = regex.compile(r"[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u0652\u0670]")
"""Hebrew and Arabic vowels, which most texts leave out."""
_ZEROS = {
    "Arab": "٠", "Deva": "०", "Beng": "০", "Telu": "౦", "Taml": "௦", "Guru": "੦", "Gujr": "૦", "Knda": "೦",
    "Mlym": "൦", "Orya": "୦", "Thai": "๐", "Laoo": "໐", "Mymr": "၀", "Khmr": "០", "Tibt": "༠", "Olck": "᱐",
    "Nkoo": "߀", "Jpan": "０", "Hans": "０", "Hant": "０",
}  # fmt: skip
"""Script (ISO 15924) -> its digit 0, or the one that keyboards for it give beside the usual ones."""
_CASED = ("Latn", "Cyrl", "Grek", "Armn")
_EASTERN_ARABIC = {"fa", "ur", "ps", "ckb", "sd", "ks", "ks_Arab", "ug", "prs", "azb"}


@dataclass(frozen=True)
class Disguise:
    """A disguise: `title` goes behind what is disguised, as in "question romanised"; `name` is that of a class.

    `mixed` says that `dress` needs English for the words; `romanises` that it needs the romaniser.
    """

    name: str
    title: str
    dress: Callable[[str, str, Mapping[int, str]], str]
    mixed: bool = False
    romanises: bool = False

    def __call__(self, text: str, code: str, english: Mapping[int, str] = NONE) -> str:
        """Disguise a text of a language; `english` has words by the place of the one that they stand for.

        What would be left empty stays as it was.
        """
        made = self.dress(text, code, english)
        return made if made.strip() else text


def clusters(text: str) -> list[str]:
    """Take a text apart into what a reader takes for one letter."""
    return _CLUSTER.findall(text)


def spaced(text: str) -> bool:
    """Whether no part of a text is in a script without spaces between words."""
    return not _SPACELESS.search(text)


def words(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end; in scripts without spaces, pieces of `PIECE` letters."""
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
    """Write what is not in Latin letters in Latin letters, as uroman does (Hermjakob et al. 2018, ACL).

    Raises:
        MissingExtraError: uroman is not installed.
    """
    return _NOT_LATIN.sub(lambda match: _romanise(match[0], language(code).code3), text)


def code_mixed(text: str, code: str, english: Mapping[int, str]) -> str:
    """Say half of the words in English, in the order of the language: "Panthers डिफ़ेंस ने how many अंक दिए?".

    Words that no English is known for stay, so it may be less than half.
    """
    every = words(text)
    chosen = _chance("mixed", text).sample(sorted(english), min(len(english), (len(every) + 1) // 2))
    for number in sorted(chosen, reverse=True):
        start, end = every[number]
        text = f"{text[:start]}{english[number]}{text[end:]}"
    return text


def code_mixed_romanised(text: str, code: str, english: Mapping[int, str]) -> str:
    """Mix, and write the words that are not English in Latin letters; the text as it was where that changes nothing.

    Raises:
        MissingExtraError: uroman is not installed.
    """
    mixed = code_mixed(text, code, english)
    made = romanised(mixed, code)
    return text if made == mixed else made


def without_diacritics(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Leave out accents of Latin and Greek letters, the dots of ё, and Arabic and Hebrew vowel signs.

    Marks without which other scripts cannot be read stay: the vowels of Devanagari, the tones of Thai.
    """
    return "".join(_bare(cluster) for cluster in clusters(text))


def capitals(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Write in capitals, in languages whose script has them: Turkish and Azerbaijani with their dotted I."""
    if language(code).script not in _CASED:
        return text  # else a Korean text would count as changed for the one name in it that is not Korean
    if code in ("tr", "az"):
        text = text.replace("i", "İ")
    return text.upper()


def typing_errors(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Swap, leave out or double a letter in `TYPING_SHARE` of the words."""
    chance, every = _chance("typing", text), words(text)
    long = [span for span in every if len(clusters(text[slice(*span)])) >= SHORTEST]
    chosen = chance.sample(long, min(len(long), max(1, round(TYPING_SHARE * len(every)))))
    for start, end in sorted(chosen, reverse=True):
        text = text[:start] + _mistyped(clusters(text[start:end]), chance) + text[end:]
    return text


def decomposed(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Write each accent, and each part of a Korean syllable, as a character of its own: NFD, as some systems save."""
    return unicodedata.normalize("NFD", text)


def with_invisible(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Put a character that is not seen into `INVISIBLE_SHARE` of the words, as copying from pages and PDFs does."""
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
    """Put an emoji behind the text, and another behind one of its words."""
    chance = _chance("emoji", text)
    inner = [end for _, end in words(text)[:-1] if text[end : end + 1].isspace()]
    if inner:
        place = chance.choice(inner)
        text = f"{text[:place]} {chance.choice(EMOJI)}{text[place:]}"
    return f"{text} {chance.choice(EMOJI)}"


def other_digits(text: str, code: str, english: Mapping[int, str] = NONE) -> str:
    """Write 0 to 9 in the digits of the language's script, and those as 0 to 9; nothing in scripts without any.

    Chinese and Japanese have the wide digits of their keyboards.
    """
    zero = "۰" if code in _EASTERN_ARABIC else _ZEROS.get(language(code).script)
    if zero is None:
        return text
    own = "".join(chr(ord(zero) + number) for number in range(10))
    return text.translate(str.maketrans("0123456789" + own, own + "0123456789"))


DISGUISES = (
    Disguise("Romanised", "romanised", romanised, romanises=True),
    Disguise("CodeMixed", "half of the words in English", code_mixed, mixed=True),
    Disguise(
        "CodeMixedRomanised",
        "half of the words in English, the others romanised",
        code_mixed_romanised,
        mixed=True,
        romanises=True,
    ),
    Disguise("WithoutDiacritics", "without diacritics", without_diacritics),
    Disguise("Capitals", "in capitals", capitals),
    Disguise("TypingErrors", "with typing errors", typing_errors),
    Disguise("Decomposed", "in NFD", decomposed),
    Disguise("Invisible", "with invisible characters", with_invisible),
    Disguise("Emoji", "with emoji", with_emoji),
    Disguise("OtherDigits", "in other digits", other_digits),
)


def _chance(what: str, text: str) -> random.Random:
    """The same numbers for the same text in every process, whatever came before it."""
    return random.Random(f"{what}: {text}")


def _bare(cluster: str) -> str:
    """A letter without its accents, where it is one that is read without."""
    if cluster in ("ё", "Ё") or unicodedata.normalize("NFC", cluster) in ("ё", "Ё"):
        return "е" if cluster[0] in "ёе" else "Е"
    if regex.match(r"[\p{Latin}\p{Greek}]", cluster):
        parts = unicodedata.normalize("NFD", cluster)
        return "".join(part for part in parts if not unicodedata.combining(part)).translate(_STROKES)
    return _VOWEL_SIGNS.sub("", cluster)


def _mistyped(letters: list[str], chance: random.Random) -> str:
    """One error in a word."""
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
    """Import what romanises.

    Raises:
        MissingExtraError: uroman is not installed.
    """
    return extras.need("robust", "uroman")


@cache
def _uroman() -> object:
    return romaniser().Uroman()


@cache
def _romanise(text: str, code3: str) -> str:
    """Romanise, with the space at both ends kept."""
    inner = text.strip()
    before, _, after = text.partition(inner)
    return f"{before}{_uroman().romanize_string(inner, lcode=code3)}{after}"
