"""What comes from others does not steer the terminal on which it is shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.cli import main, terminal
from lusifer.cli.search import _as_text
from lusifer.errors import visible
from lusifer.index.ranks import Found

TURNS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
EVIL = f"\x1b]0;owned\x07\x1b[2J\x9b31m\rright{TURNS}gnp"


@pytest.mark.parametrize("err", [False, True])
def test_what_steers_a_terminal_is_shown(capsys, err):
    terminal.say(_as_text(1, Found(f"id{EVIL}", 0.5, f"text {EVIL} [bold]", 0, 4, {})), err=err)
    said = capsys.readouterr()
    shown = said.err if err else said.out
    assert not set(shown) & set("\x1b\x07\x9b\r" + TURNS) and "\\u001b[2J" in shown and "[bold]" in shown


@given(st.text())
def test_json_stays_json(text):
    line = json.dumps({"text": text}, ensure_ascii=False)
    shown = visible(line)
    assert json.loads(shown) == {"text": text}
    assert not any(letter < " " or "\x7f" <= letter <= "\x9f" for letter in shown)


@pytest.mark.parametrize("text", ["كتاب‌ها را می‌خوانم", "שלום, עולם!", "نهرٌ طويل", "क्‍ष 👩‍🔬"])
def test_ordinary_text_from_right_to_left_or_with_joiners_stays_as_it_is(text, capsys):
    terminal.say(text)
    assert capsys.readouterr().out == f"{text}\n"


def test_an_error_names_a_hostile_file_safely(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["info", f"no{EVIL}"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_bar_shows_hostile_names_as_they_are_spelt(capsys):
    """The stages of a recipe bear the names that its author gave them."""
    with terminal.StageBar() as bar:
        bar.open(f"stage{EVIL}", 10)
        bar.update(completed=3, words=f"left{EVIL}")
    said = capsys.readouterr().err
    assert "stage\\u001b]0;" in said.replace("\n", "") and not set(said) & set("\x1b\x07\x9b" + TURNS)
