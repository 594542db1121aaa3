"""Figures in general: languages can be told apart, and the SVG is part of a page without asking for anything."""

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer import languages
from lusifer.errors import MissingExtraError
from lusifer.evaluation.report import figures, words

NAME = '<script>a$b\\frac$_x & "c"</script>'
GRID = {"en": {"STS": 71.0, "Clustering": None}, "te": {"STS": 42.0}}


def test_no_two_languages_look_alike():
    groups = figures.language_marks(list(languages.table()))
    marks = [(mark["color"], mark["marker"]) for group in groups.values() for mark in group.values()]
    assert len(set(marks)) == len(marks) == len(languages.table())
    paper = figures.language_marks([language.code for language in languages.paper()])
    assert all(len({mark["color"] for mark in group.values()}) == 1 for group in paper.values())
    assert len({next(iter(group.values()))["color"] for group in paper.values()}) == len(paper)  # a colour a group


def test_groups_have_names_in_words():
    assert list(figures.language_marks(["hi", "en"])) == ["Latin", "Devanagari"]
    levels = [words.level_name(language.level) for language in map(languages.language, ("en", "sw"))]
    assert levels == ["high resource", "extremely low resource"]
    assert words.level_name(None) == "unknown (outside the paper's 14)"


def test_an_svg_asks_for_nothing_and_has_ids_of_its_own():
    one, other = (figures.svg(figures.heat_map(GRID, NAME), slug, NAME) for slug in ("a", "b"))
    assert one.startswith("<svg ") and one.endswith("</svg>")
    assert not re.search(r"<(image|script|style|metadata)|http|url\((?!#)|@import", one)
    ids = [set(re.findall(r'\bid="([^"]*)"', each)) for each in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    used = re.findall(r'(?:href="#|url\(#)([^")]*)', one)
    assert used and set(used) <= ids[0]
    assert "var(--ink)" in one and figures.INK not in one


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    def draw():
        return figures.bars({"a": {"x": (50, 40, 61)}, "b": {"x": (None, None, None)}}, "t")

    assert figures.svg(draw(), "s", "t") == figures.svg(draw(), "s", "t")
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for file in files:
        figures.write(draw(), file)
    assert files[0].read_bytes() == files[1].read_bytes() and files[0].read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_install_line_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lusifer\[report\]'"):
        figures.heat_map(GRID, "t")


@given(st.text(max_size=80), st.integers(8, 40))
def test_a_short_name_is_short_visible_and_keeps_both_ends(name, width):
    found = words.short(name, width)
    assert 0 < len(found) <= max(width, len("(no name)")) and found.isprintable()
    if name.isprintable() and name.strip():
        assert found[:3] == name.strip()[:3] and found[-3:] == name.strip()[-3:]


@given(st.lists(st.one_of(st.none(), st.floats(-100, 100).map(lambda value: round(value, 4)))))
def test_limits_are_round_and_hold_every_score(values):
    low, high = figures.span(values)
    assert low % 10 == high % 10 == 0 and low < high
    assert all(low <= value <= high for value in values if value is not None)
