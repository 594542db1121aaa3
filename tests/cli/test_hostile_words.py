"""What comes from others does not steer the terminal on which it is shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.cli import main, terminal
from lusifer.cli.search import _as_text
from lusifer.index.ranks import Found

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\rright\u202egnp"


@pytest.mark.parametrize("err", [False, True])
def test_what_steers_a_terminal_is_shown(capsys, err):
    terminal.say(_as_text(1, Found(f"id{EVIL}", 0.5, f"text {EVIL} [bold]", 0, 4, {})), err=err)
    said = capsys.readouterr()
    shown = said.err if err else said.out
    assert not set(shown) & set("\x1b\x07\x9b\r\u202e") and "\\u001b[2J" in shown and "[bold]" in shown


@given(st.text())
def test_json_stays_json(text):
    line = json.dumps({"text": text}, ensure_ascii=False)
    shown = terminal._STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
    assert json.loads(shown) == {"text": text}
    assert not any(letter < " " or "\x7f" <= letter <= "\x9f" for letter in shown)


def test_an_error_names_a_hostile_file_safely(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["info", f"no{EVIL}"]) == 2
    assert "\x1b" not in capsys.readouterr().err
