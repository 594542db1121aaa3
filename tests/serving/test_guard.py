"""Texts that a model has no score for are counted and named, and its own languages are left alone."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.cli import main
from lusifer.io import parallel_text
from lusifer.serving import guard
from lusifer.serving.guard import LanguageGuard, scored_languages

BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
SCORES = "<!-- scores:begin -->\n| Thai (th) | 3 |\n<!-- scores:end -->\n"
CARD = "en es ru fr vi fa id ar fi ko hi bn te sw".split()


@pytest.fixture(scope="module")
def mini() -> LanguageGuard:
    return LanguageGuard(scored_languages("mini"))


def test_the_card_of_mini_has_scores_for_the_14_languages():
    assert scored_languages("mini") == set(CARD)


@pytest.mark.parametrize(
    ("card", "codes"),
    [
        ("---\nlanguage:\n- de\n- no\n---\n", {"de", "nb"}),
        ("---\nlanguage: de\nmodel-index:\n- name: x\n  results:\n  - dataset: {config: en-sw}\n---\n", {"en", "sw"}),
        (
            "<!-- scores:begin -->\n| Thai (th) | 3 |\n| mean | 3 |\n<!-- scores:end -->\n| Greek (el) | 3 |",
            {"th"},
        ),
        ("---\nlanguage: [\n---\n", set()),
        ("no front matter", set()),
        ("---\nlanguage: de\ndate: 2020-99-99\nx: !!python/name:os.system y\n---\n", {"de"}),
        ("---\nlanguage: 5\nmodel-index: [a]\n---\n", set()),
        ("---\nlanguage: {de: x}\nmodel-index: {results: [1]}\n---\n", set()),
        (
            "---\nmodel-index:\n- results: [x, {dataset: y}, {dataset: {config: [de]}}]\nlanguage: [[no], de]\n---\n",
            {"de"},
        ),
        (
            f"---\na0: &a0 [de]\n{BOMB}language: *a9\nmodel-index:\n- results:\n  - dataset: {{config: *a9}}\n---\n",
            set(),
        ),
        (f"---\na0: &a0 {{k: v}}\n{BOMB.replace('[', '{<<: [').replace(']', ']}')}language: de\n---\n", {"de"}),
        ("<!-- scores:begin -->" * 100_000, set()),
    ],
)
def test_languages_are_read_from_any_card(tmp_path, card, codes):
    (tmp_path / "README.md").write_text(card)
    assert scored_languages(tmp_path) == codes
    assert (guard.for_model(tmp_path) is None) == (not codes)


@pytest.mark.parametrize(
    ("front", "reason"),
    [("a: [", r"line \d: "), ("a: " + "[" * 700, "nested too deeply"), ("? [[a]]\n: b", "unhashable"), ("a: \x01", "")],
)
def test_a_card_that_is_no_yaml_is_named_once_and_stops_nothing(tmp_path, front, reason):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n{SCORES}")
    said = []
    assert guard.for_model(tmp_path, note=said.append).codes == {"th"}
    assert len(said) == 1 and re.search(rf"README\.md: .* is no YAML \(.*{reason}.*\): correct it$", said[0])


def test_a_command_says_it_of_a_card(model_folder, tmp_path, capsys):
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    (folder / "README.md").write_bytes(b"---\nlanguage: [\n\xff\n---\n")
    (tmp_path / "t.txt").write_text("Water.\n")
    assert main(["embed", str(folder), "--input", str(tmp_path / "t.txt"), "--output", str(tmp_path / "v.npy")]) == 0
    assert capsys.readouterr().err.count("its languages cannot be read, the front matter is no YAML") == 1


VALUES = st.recursive(
    st.sampled_from(["de", "en-US", "5", "~", "2020-99-99", "*a", "&a x", "!!int y", "<<", "", "'", "th, sw"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(["results", "dataset", "config", "? [a]", "<<"]), inner, max_size=3).map(
            lambda items: f"{{{', '.join(f'{key}: {value}' for key, value in items.items())}}}"
        )
    ),
    max_leaves=12,
)


@given(
    st.lists(st.tuples(st.sampled_from(["language", "model-index", "date"]), VALUES), max_size=4), st.binary(max_size=9)
)
def test_no_damaged_card_stops_the_reading(tmp_path_factory, entries, bytes_between):
    card = tmp_path_factory.mktemp("card") / "README.md"
    front = "\n".join(f"{key}: {value}" for key, value in entries).encode()
    card.write_bytes(b"---\n" + front[: len(front) // 2] + bytes_between + front[len(front) // 2 :] + b"\n---\n")
    scored_languages(card.parent)
    card.write_bytes(b"---\n" + front + b"\n---\n")
    assert scored_languages(card.parent) <= {"de", "en", "sw", "th"}


def test_the_languages_of_the_card_are_left_alone(mini):
    texts = parallel_text.sample().texts
    found = {code: sum(mini.find(text) is not None for text in texts[code]) for code in CARD}
    assert sum(found.values()) <= 2, found
    assert sum(len(texts[code]) for code in CARD) > 150


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("Ο σταθμός είναι στο βορρά.", ("script", "Greek")),
        ("ร้านเปิดแปดโมงเช้า", ("script", "Thai")),
        ("駅は町の北にあります。", ("script", "Japanese")),
        ("Nádraží je na severu města a vlak odjíždí v osm hodin.", ("language", "Czech")),
        ("Der Bahnhof liegt im Norden der Stadt, und der Zug fährt um acht Uhr ab.", ("language", "German")),
        ("vokzal nahoditsya na severe goroda, poezd uhodit v vosem chasov", ("unclear", "")),
        ("mujhe kal subah station jana hai aur gaadi aath baje nikalti hai", ("unclear", "")),
        ("मुझे कल सुबह station जाना है because the train leaves early", ("mixed", "")),
        ("Where is the station?", None),
        ("water", None),
        ("12:30, 8 %", None),
        ("역은 도시 북쪽에 있다. 漢字", None),
        ("火车站在城市北部。", ("script", "Chinese characters")),
        ("The word вода means water in Russian, as every child learns.", None),
    ],
)
def test_what_is_wrong_is_named(mini, text, finding):
    assert mini.find(text) == finding


def test_scripts_are_told_without_the_identifier(monkeypatch):
    monkeypatch.setattr(guard, "identifier", None)
    plain = LanguageGuard(CARD, identify=False)
    assert plain.find("Nádraží je na severu města a vlak odjíždí.") is None
    assert plain.find("Ο σταθμός είναι στο βορρά.") == ("script", "Greek")
    waiting = LanguageGuard(CARD, identify=None)
    for _ in range(guard.WORTH_IT - 1):
        waiting.see("Nádraží je na severu města a vlak odjíždí.")
    assert waiting.line("m") is None and waiting.looked == guard.WORTH_IT - 1


def test_a_few_errors_of_the_identifier_are_not_said_and_a_long_input_is_drawn_from():
    some = LanguageGuard(CARD)
    for number in range(guard.ALL_OF + 1000):
        some.see("water", f"line {number}")
    assert (some.seen, some.looked) == (guard.ALL_OF + 1000, guard.ALL_OF + 10)
    some.found = {"language": Counter(Czech=100)}
    assert some.line("m") is None
    some.found["language"]["Czech"] = 300
    assert some.line("m").startswith("of 10,010 texts checked (of 11,000) 300 may get bad vectors from m: Czech 300")


def test_one_romanised_text_among_few_is_said_and_among_many_may_be_an_error():
    romanised = "mujhe kal subah station jana hai aur gaadi aath baje nikalti hai"
    for others, said in ((0, True), (1, True), (guard.FEW - 1, True), (guard.FEW, False)):
        some = LanguageGuard(CARD)
        for text in [romanised, *["Where is the station?"] * others]:
            some.see(text)
        assert (some.line("m") is not None) == said, others


def test_embed_says_it_once_and_refuses_if_asked(model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = shutil.copytree(model_folder, tmp_path / "model")
    (model / "README.md").write_text("---\nlanguage: [en, sw]\n---\n")
    rows = ["Where is the station?"] * 60 + ["Ο σταθμός."] * 2 + ["Der Bahnhof liegt im Norden der Stadt."] * 50
    Path("in.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    call = ["embed", "model", "--input", "in.jsonl", "--output", "o.npy"]
    assert main([*call, "--unscored", "error"]) == 1
    said = capsys.readouterr().err
    assert "of 112 texts 52 may get bad vectors from model: Greek 2, German 50 without a score on its card" in said
    assert "the first is in.jsonl line 61: leave these texts out" in said and not Path("o.npy").exists()
    assert main(call) == 0
    assert capsys.readouterr().err.count("may get bad vectors") == 1
    assert main([*call, "--unscored", "off"]) == 0
    assert "may get bad vectors" not in capsys.readouterr().err


def test_a_language_is_told_among_those_that_are_asked_about():
    known = ("en", "sw", "hi", "es")
    for text, code in (
        ("Where does the river rise?", "en"),
        ("Kituo cha treni kiko wapi?", "sw"),
        ("नदी कहाँ से निकलती है?", "hi"),
        ("Wo entspringt der Fluss, und wohin fließt er?", None),  # German, which is not asked about
        ("Που είναι ο σταθμός;", None),
        ("12 345 ???", None),
        ("", None),
    ):
        assert guard.told(text, known) == code, text


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("Where is the station?", True),
        ("Does the train stop here?", True),
        ("price of the ticket", True),
        ("Cine are dreptate?", False),  # Romanian: "are" is "has"
        ("Ce are Ion acasa?", False),
        ("Hvad er and?", False),  # Danish: "and" is a duck
        ("Does voor mij", False),  # Dutch
        ("Ve log kahan the?", False),  # Hindi in Latin letters: "the" is "were"
        ("¿Dónde? where", False),
    ],
)
def test_an_english_question_is_told_without_the_identifier(monkeypatch, text, english):
    monkeypatch.setattr(guard.extras, "tells_languages", lambda: False)
    assert guard.is_english(text) == english
