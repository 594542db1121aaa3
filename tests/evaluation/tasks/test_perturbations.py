"""What each perturbation does to a text, in scripts that differ in what a letter is."""

import subprocess
import sys
import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from lusifer.errors import MissingExtraError
from lusifer.evaluation.tasks import perturbations
from lusifer.evaluation.tasks.alignment import english_for
from lusifer.evaluation.tasks.perturbations import INVISIBLE, PERTURBATIONS

HINDI, ARABIC, KOREAN, THAI = "पानी कहाँ मिलेगा?", "أين المحطّة؟", "물은 어디에 있나요?", "สวัสดีครับเพื่อน"
EMOJI = "Gut 👩‍👩‍👧 gemacht"
MIXED = {1: "station"}
REAL = perturbations._romanise
BY_NAME = {each.name: each for each in PERTURBATIONS}
texts = st.text(
    st.characters(codec="utf-8") | st.sampled_from("aé đёनीं물สั🇮🇳👩\u200d٣5िßıA "), min_size=1, max_size=40
).filter(str.strip)
codes = st.sampled_from(["es", "tr", "hi", "ar", "fa", "ko", "th", "ru", "zh"])


@pytest.fixture(autouse=True, scope="module")
def romaniser():
    """Reading the real one takes seconds; this one shows what it is given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perturbations, "_romanise", lambda text, code3: text.replace(text.strip(), f"<{text.strip()}>"))
        yield


@pytest.mark.slow
def test_what_uroman_writes_keeps_the_spaces_around_it():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perturbations, "_romanise", REAL)
        made = [
            BY_NAME["Romanised"](*each) for each in ((f"DB {HINDI} x", "hi"), (KOREAN, "ko"), ("Где вокзал?", "ru"))
        ]
    assert made == ["DB paanii kahaam milegaa? x", "muleun eodie issnayo?", "Gde vokzal?"]


@pytest.mark.parametrize(
    ("name", "code", "text", "made"),
    [
        ("Romanised", "ru", "Где вокзал? DB 7", "<Где вокзал?> DB 7"),
        ("Romanised", "es", "¿Dónde está?", "¿Dónde está?"),
        ("Romanised", "vi", unicodedata.normalize("NFD", "ở"), unicodedata.normalize("NFD", "ở")),
        ("WithoutDiacritics", "es", "¿Dónde está el año?", "¿Donde esta el ano?"),
        ("WithoutDiacritics", "vi", "Đường phố ở đâu?", "Duong pho o dau?"),
        ("WithoutDiacritics", "ru", "Ёлка и ёж, йод", "Елка и еж, йод"),
        ("WithoutDiacritics", "ru", unicodedata.normalize("NFD", "ёй"), "е" + unicodedata.normalize("NFD", "й")),
        ("WithoutDiacritics", "ar", ARABIC, "أين المحطة؟"),
        ("WithoutDiacritics", "hi", HINDI, HINDI),
        ("WithoutDiacritics", "th", THAI, THAI),
        ("Capitals", "de", "Straße", "STRASSE"),
        ("Capitals", "tr", "iyi ısı", "İYİ ISI"),
        ("Capitals", "ru", "где", "ГДЕ"),
        ("Capitals", "hi", "IBM और apple", "IBM और apple"),
        ("Decomposed", "ko", "물", "\u1106\u116e\u11af"),
        ("Decomposed", "es", "é", "e\u0301"),
        ("OtherDigits", "ar", "في 1998", "في ١٩٩٨"),
        ("OtherDigits", "fa", "۱۲ و 3", "12 و ۳"),
        ("OtherDigits", "hi", "१२", "12"),
        ("OtherDigits", "zh", "2008年", "２００８年"),
        ("OtherDigits", "es", "1998", "1998"),
        ("CodeMixed", "es", "la estación grande", "la station grande"),
        ("CodeMixedRomanised", "ru", "где вокзал тут", "<где> station <тут>"),
        ("CodeMixedRomanised", "es", "la estación grande", "la estación grande"),
    ],
)
def test_what_a_perturbation_makes(name, code, text, made):
    assert BY_NAME[name](text, code, MIXED if BY_NAME[name].mixed else {}) == made


def test_half_of_the_words_are_said_in_english_and_those_without_english_stay():
    text = "uno dos tres cuatro cinco"
    mixed = BY_NAME["CodeMixed"](text, "es", dict(enumerate("ABCDE"))).split()
    assert [len([word for word in mixed if word in "ABCDE"]), len(mixed)] == [3, 5]
    assert all(word in ("ABCDE"[place], text.split()[place]) for place, word in enumerate(mixed))
    assert BY_NAME["CodeMixed"](text, "es", {4: "five"}) == "uno dos tres cuatro five"


@pytest.mark.parametrize(
    "text", [HINDI, ARABIC, KOREAN, "¿Dónde está la estación central?", "one two three four five six"]
)
def test_a_fifth_of_the_words_one_at_least_gets_one_error(text):
    before, after = (regex.findall(r"[\p{L}\p{M}]+", each) for each in (text, BY_NAME["TypingErrors"](text, "xx")))
    assert len(before) == len(after)
    wrong = [pair for pair in zip(before, after) if pair[0] != pair[1]]
    assert len(wrong) == max(1, round(0.2 * len(before)))
    for right, typed in wrong:
        letters, made = (regex.findall(r"\X", each) for each in (right, typed))
        assert abs(len(letters) - len(made)) == 1 or sorted(letters) == sorted(made)


def test_in_a_script_without_spaces_four_letters_count_as_a_word():
    pieces = [THAI[slice(*span)] for span in perturbations.words(THAI)]
    assert [len(regex.findall(r"\X", piece)) for piece in pieces] == [4, 4, 3] and "".join(pieces) == THAI
    assert not perturbations.spaced(THAI) and perturbations.spaced(HINDI)


@pytest.mark.parametrize("text", [HINDI, THAI, KOREAN, EMOJI])
def test_what_a_reader_takes_for_one_letter_stays_whole(text):
    letters = set(regex.findall(r"\X", text))
    assert set(regex.findall(r"\X", BY_NAME["TypingErrors"](text, "xx"))) <= letters
    inside = BY_NAME["Invisible"](text, "xx")
    assert inside != text
    assert regex.sub(f"[{INVISIBLE}]", "", inside) == regex.sub(f"[{INVISIBLE}]", "", text)
    if text is EMOJI:
        assert "👩‍👩‍👧" in inside


def test_an_emoji_stands_at_the_end_and_another_behind_a_word():
    made = BY_NAME["Emoji"]("one two three", "en")
    assert any(made.endswith(f" {each}") for each in perturbations.EMOJI)
    assert [word for word in made.split() if word.isalpha()] == ["one", "two", "three"]
    assert len(made.split()) == 5
    assert BY_NAME["Emoji"]("one", "en").startswith("one ")


@given(texts, codes)
@settings(max_examples=60, deadline=None)
def test_whatever_the_text_a_perturbation_is_the_same_twice_and_a_text_still(text, code):
    for perturbation in PERTURBATIONS:
        english = {0: "word"} if perturbation.mixed and perturbations.words(text) else {}
        made = perturbation(text, code, english)
        assert made.strip() and made == perturbation(text, code, english)
        made.encode("utf-8")  # which half a surrogate does not


@given(texts, codes)
@settings(max_examples=100, deadline=None)
def test_nfd_is_the_same_text_and_invisible_characters_can_be_taken_out(text, code):
    assert unicodedata.normalize("NFC", BY_NAME["Decomposed"](text, code)) == unicodedata.normalize("NFC", text)
    plain = regex.sub(f"[{INVISIBLE}]", "", text) or "x"
    made = BY_NAME["Invisible"](plain, code)
    assert made != plain and regex.sub(f"[{INVISIBLE}]", "", made) == plain


@pytest.mark.slow
def test_another_process_makes_the_same_texts():
    code = f"""
from lusifer.evaluation.tasks.perturbations import PERTURBATIONS
print([ascii(each({HINDI!r}, 'hi')) for each in PERTURBATIONS[3:]])
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.strip() == str([ascii(each(HINDI, "hi")) for each in PERTURBATIONS[3:]])


def test_without_the_romaniser_the_line_that_installs_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "uroman", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lusifer\[robust\]'"):
        perturbations.romaniser()


def test_english_words_are_found_by_the_company_they_keep():
    texts = {
        1: "la casa roja",
        2: "la casa",
        3: "una flor roja",
        4: "una flor",
        8: "flor",
        5: "IBM",
        6: "la IBM",
        7: "駅",
    }
    english = {
        1: "the red house",
        2: "the house",
        3: "a red flower",
        4: "a flower",
        8: "flower",
        5: "IBM",
        6: "the IBM",
        7: "x",
    }
    found = english_for(texts, english | {9: "nothing"})
    assert found[1] == {0: "the", 1: "house", 2: "red"}
    assert found[3] == {0: "a", 1: "flower", 2: "red"}
    assert found[6] == {0: "the", 1: "IBM"}
    assert set(found) == {1, 2, 3, 4, 5, 6, 8}  # of a script without spaces the words are not known
    assert english_for({}, english) == {}
