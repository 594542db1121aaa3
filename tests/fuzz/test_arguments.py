"""Any words after `lusifer` do what they say or end with one line; an exception that nobody foresaw is a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from lusifer.cli import app, main
from support.fuzzing import COUNTS, ODD, any_text, inputs

SURFACE = "command line"
FOREVER = {"serve", "demo", "train", "ablate", "push"}
"""Commands that go on for long, or leave this machine, once their words are right."""


def commands(group: Any, before: tuple[str, ...] = ()) -> dict[tuple[str, ...], list[Any]]:
    """The words of every command, and its options and arguments."""
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, (*before, name))
        else:
            found[(*before, name)] = command.params
    return found


COMMANDS = commands(typer.main.get_command(app))


@st.composite
def words(draw: st.DrawFn) -> list[str]:
    """A command with some of its options, right and wrong values in any order."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    values = st.sampled_from(["texts.txt", "rows.jsonl", "model", "out", "out.npy", "out.jsonl", "en,es", "2", *ODD])
    found = list(name)
    for option in draw(st.lists(st.sampled_from(COMMANDS[name] or [None]), max_size=5)):
        value = draw(values | any_text(12))
        flag = option is not None and getattr(option, "is_flag", False)
        found += [] if option is None or not option.opts[0].startswith("-") else [draw(st.sampled_from(option.opts))]
        found += [] if flag else [value]
    if name[0] in FOREVER:
        found.append("--no-such-option")
    return found


@pytest.mark.slow
def test_any_words_are_understood_or_refused(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "model").symlink_to(model_folder)

    @inputs(0.05, 40)
    @given(words())
    def check(found: list[str]) -> None:
        status = main(found)
        said = capsys.readouterr().err
        assert status in (0, 1, 2), (found, said)
        assert "run again with --debug" not in said and "Traceback" not in said, (found, said)
        if status:
            assert (
                said.count("lusifer: error: ") == 1
                and said.splitlines()[-1].startswith("lusifer: error: ")
                or ("Usage: " in said)
            ), (found, said)
        COUNTS[SURFACE, "refused" if status else "accepted"] += 1

    check()
