"""Codes of languages: every usual one finds its language, and what is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer import languages
from lusifer.errors import UsageError
from lusifer.languages import Language, among, language

USUAL = "codes are as in en, pt-BR or zho-Hans"
SAME = {
    "en": ["EN", "eng", "en-US", "en_GB", "eng_Latn", "eng-Latn", " en ", "EN_latn_us"],
    "zh": ["zh-CN", "zh-Hans", "zho", "cmn", "zho-Hans", "zho_Hans", "chi", "ZH_cn", "zh-cmn-Hans", "zh-SG"],
    "pt": ["pt-BR", "pt_PT", "por-Latn", "PT-br"],
    "id": ["in", "ind", "ind-Latn"],
    "ar": ["ara", "arb", "arb_Arab", "ar-EG"],
    "fa": ["fas", "pes", "per", "pes_Arab"],
    "ko": ["kor", "kor-Hang", "kor_Kore", "ko-KR"],
    "ja": ["jpn", "jpn-Jpan"],
    "sw": ["swa", "swh", "swh_Latn"],
    "yo": ["yor", "yor-Latn", "YOR_latn"],
    "de": ["ger", "deu", "de-AT", "de-DE-1996"],
    "he": ["iw", "heb", "HEB_Hebr"],
    "yi": ["ji", "ydd_Hebr"],
    "fil": ["tl", "tgl", "tgl_Latn", "fil-PH"],
    "nb": ["no", "nor", "nob", "nob_Latn", "nb-NO"],
    "nn": ["nno_Latn"],
    "sr": ["srp", "sr-Cyrl", "srp_Cyrl", "sr_RS"],
    "sr_Latn": ["sr-Latn", "srp_Latn", "sh"],
    "zh_Hant": ["zh-Hant", "zh-TW", "zh_HK", "zho_Hant"],
    "ar_Latn": ["arb_Latn"],
    "ace_Arab": ["ACE-arab"],
    "ak": ["aka", "aka_Latn"],
    "twi": ["tw", "twi_Latn"],
    "prs": ["prs_Arab"],
    "pbt": ["pbt_Arab"],
    "azb": ["azb_Arab"],
    "yue": ["yue_Hant"],
}


@pytest.mark.parametrize("code", SAME)
def test_every_usual_code_of_a_language_finds_it(code: str) -> None:
    found = {other: language(other).code for other in [code, *SAME[code]]}
    assert found == dict.fromkeys(found, code)
    row = language(code)
    assert row == languages.table().get(code, row) and (row.level is None) == (row not in languages.paper())


@pytest.mark.parametrize(
    ("code", "row"),
    [
        ("nob_Latn", Language("nb", "Norwegian Bokmål", "nob", "Latn")),
        ("ace_Arab", Language("ace_Arab", "Acehnese (Arabic)", "ace", "Arab")),
        ("zh-TW", Language("zh_Hant", "Chinese (Traditional)", "zho", "Hant")),
        ("tir", Language("ti", "Tigrinya", "tir", "Ethi")),
        ("tw", Language("twi", "Twi", "twi", "Latn")),
        ("twi_Arab", Language("twi_Arab", "Twi (Arabic)", "twi", "Arab")),
        ("prs", Language("prs", "Dari", "prs", "Arab")),
        ("pbt_Arab", Language("pbt", "Southern Pashto", "pbt", "Arab")),
        ("azb", Language("azb", "South Azerbaijani", "azb", "Arab")),
        ("acm_Arab", Language("acm", "Mesopotamian Arabic", "acm", "Arab")),
        ("acq_Arab", Language("acq", "Ta'izzi-Adeni Arabic", "acq", "Arab")),
        ("ajp-Arab", Language("ajp", "South Levantine Arabic", "ajp", "Arab")),
        ("anp_Deva", Language("anp", "Angika", "anp", "Deva")),
        ("grc", Language("grc", "Ancient Greek", "grc", "Grek")),
    ],
)
def test_a_language_outside_the_table_is_named(code: str, row: Language) -> None:
    assert language(code) == row and language(row.code) == row


@pytest.mark.parametrize(
    ("code", "nearest"),
    [
        ("xx", USUAL),
        ("zz", USUAL),
        ("xyz", USUAL),
        ("english", "did you mean en (English)?"),
        ("Spansh", "did you mean es (Spanish)?"),
        ("norwegian", "did you mean nb (Norwegian Bokmål)?"),
        ("engl", "did you mean en (English)?"),
        ("en-XYZW", "did you mean en (English)?"),
        ("e n", "did you mean en (English)?"),
        ("", USUAL),
        ("und", USUAL),
        ("mul", USUAL),
        ("qaa", USUAL),
        ("zxx", USUAL),
        ("topic", USUAL),
        ("a", USUAL),
        ("\ud800", USUAL),
        ("-en", "did you mean en (English)?"),
        ("中文", "did you mean zh (Chinese)?"),
    ],
)
def test_what_is_no_language_is_refused_with_the_nearest(code: str, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        language(code)
    assert f"language {code!r} is unknown: {nearest}" in str(caught.value)
    words = str(caught.value)
    assert words.lower().endswith(USUAL.lower()) and ("did you mean" in words) == (nearest != USUAL)


@given(
    st.one_of(
        st.text(st.characters(exclude_categories=()), max_size=12),
        st.from_regex(r"[a-zA-Z]{2,3}([-_][a-zA-Z]{4})?([-_][A-Z]{2})?", fullmatch=True),
    )
)
def test_any_word_is_a_language_or_refused(code: str) -> None:
    try:
        found = language(code)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert language(found.code).code == found.code == language(code.swapcase()).code
        assert "-" not in found.code and "nknown" not in found.name and len(found.code3) == 3


def test_a_language_is_found_in_the_only_script_that_is_there() -> None:
    assert among("zh-Hant", {"zh", "en"}) == "zh"
    assert among("zh-Hant", {"zh", "zh_Hant"}) == "zh_Hant"
    assert among("acm", {"acm_Arab", "ar"}) == "acm_Arab"
    assert among("ace", {"ace_Arab", "ace_Beng"}) == among("ace", ()) == "ace"


def test_the_facts_are_of_the_205_languages_of_sib_200() -> None:
    classes = languages.resource_classes()
    assert len(classes) == 205 and set(classes.values()) == set(range(6))
    assert [code for code in classes if language(code).code != code] == []
    assert (classes["en"], classes["sw"], classes["zh_Hant"], classes["ar_Latn"]) == (5, 2, 5, 0)
    seen = [code for code in classes if languages.seen_by_xlmr(code)]
    assert len(seen) == 91 and languages.seen_by_xlmr("sw") and not languages.seen_by_xlmr("yo")
    assert languages.seen_by_xlmr("xx") is None and set(languages.table()) <= set(classes)
