"""The leaves: texts and prompts, folders written whole or not at all, tables, optional packages."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tomllib
import unicodedata
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lusifer import errors, extras, languages, prompts
from lusifer.io import files

ROOT = Path(__file__).parents[1]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1)


# Texts


@given(TEXTS)
@example("नमस्ते мир 世界 🙂\u200d🙂")
@example(" \n a \ufeff")
def test_any_real_text_passes_unchanged(text):
    assume(text.strip())
    assert prompts.check_text(text, "here") is text


def test_a_text_of_100_000_characters_passes():
    text = "a sentence. " * 8400
    assert prompts.check_text(text, "here") is text


@given(TEXTS, st.sampled_from(["\x00", "\ud800", "\udbff", "\udc00", "\udfff"]), TEXTS)
def test_nul_and_lone_surrogates_are_refused_with_their_position(before, bad, after):
    with pytest.raises(errors.TextError) as caught:
        prompts.check_text("a" + before + bad + after, "texts.txt line 3")
    message = str(caught.value)
    assert message.startswith("texts.txt line 3: ")
    assert f"position {len(before) + 1}" in message
    message.encode("utf-8")  # the message itself can be printed


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u3000", None, 3, b"bytes", ["a"], float("nan")])
def test_no_text_is_refused(text):
    with pytest.raises(errors.TextError, match="^row 7: "):
        prompts.check_text(text, "row 7")


# Prompts


@given(TEXTS, st.sampled_from(prompts.ROLES), st.booleans())
def test_prompt_of_a_prompt_is_that_prompt(instruction, role, symmetric):
    once = prompts.prompt(instruction, role, symmetric=symmetric)
    assert once == "" or once == instruction.strip() + "\n"
    assert prompts.prompt(once, role, symmetric=symmetric) == once


@given(st.none() | TEXTS)
def test_documents_carry_no_instruction_unless_symmetric(instruction):
    assert prompts.prompt(instruction, "document") == ""
    both = [prompts.prompt(instruction, role, symmetric=True) for role in prompts.ROLES]
    assert both[0] == both[1] == prompts.prompt(instruction, "query")


def test_prompt_formats():
    assert prompts.prompt("Find it.", "query") == "Find it.\n"
    assert prompts.prompt(None, "query") == prompts.prompt(" \n", "query") == ""


@pytest.mark.parametrize("role", ["passage", "", "Query", None])
def test_an_unknown_role_is_refused(role):
    with pytest.raises(errors.UsageError, match="'query' or 'document'"):
        prompts.prompt("Find it.", role)


def test_a_prompt_with_nul_is_refused():
    with pytest.raises(errors.TextError, match="the instruction"):
        prompts.prompt("Find\x00it.", "query")


def test_the_table_of_tasks():
    table = prompts.table()
    assert {"retrieval", "sts", "duplicates", "clustering", "classification"} <= set(table)
    for name, task in table.items():
        assert set(task) == {"instruction", "symmetric"}, name
        assert isinstance(task["symmetric"], bool)
        assert task["instruction"] == task["instruction"].strip() != ""
    assert all(table[name]["symmetric"] for name in ("sts", "duplicates", "clustering", "classification"))
    assert prompts.for_task("retrieval") == {"query": table["retrieval"]["instruction"] + "\n", "document": ""}
    with pytest.raises(errors.UsageError, match="'retreival' is unknown: use one of retrieval"):
        prompts.for_task("retreival")


# Folders and files


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder with one old file."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("old")
    return tmp_path / "model"


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden names too."""
    return sorted(os.listdir(folder))


def test_a_folder_is_replaced_as_a_whole(target):
    with files.write_folder(target) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "new").write_text("new")
        assert names(target) == ["old"]
        assert temporary.parent == target.parent
    assert names(target) == ["sub"]
    assert (target / "sub" / "new").read_text() == "new"
    assert names(target.parent) == ["model"]


def test_a_folder_is_replaced_where_names_cannot_be_swapped(target, monkeypatch):
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    with files.write_folder(target) as temporary:
        (temporary / "new").write_text("new")
    assert names(target) == ["new"]
    assert names(target.parent) == ["model"]


def test_parents_are_made_and_links_are_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    with files.write_folder(tmp_path / "link") as temporary:
        (temporary / "new").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "deep" / "er") == ["new"]


def test_an_exception_leaves_the_old_folder_and_nothing_else(target):
    with pytest.raises(KeyError), files.write_folder(target) as temporary:
        (temporary / "new").write_text("new")
        raise KeyError("in the middle")
    assert names(target) == ["old"]
    assert names(target.parent) == ["model"]
    with pytest.raises(KeyError), files.write_folder(target.parent / "other"):
        raise KeyError("at once")
    assert names(target.parent) == ["model"]


KILLED = """
import os, signal, sys
from lusifer.io.files import write_file, write_folder
with write_folder(sys.argv[1]) as folder, write_file(sys.argv[2]) as file:
    (folder / "new").write_text("half")
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_the_old_content_and_the_next_one_cleans_up(target):
    file = target.with_name("rows.npy")
    file.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(target), str(file)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert names(target) == ["old"]
    assert file.read_text() == "old"
    assert len(names(target.parent)) == 4
    with files.write_folder(target) as folder, files.write_file(file) as path:
        (folder / "new").write_text("new")
        path.write_text("new")
    assert names(target.parent) == ["model", "rows.npy"]


def test_another_living_writer_is_left_alone(target):
    with files.write_folder(target) as first:
        (first / "first").write_text("first")
        with files.write_folder(target) as second:
            (second / "second").write_text("second")
        assert names(first) == ["first"]
    assert names(target) == ["first"]
    assert names(target.parent) == ["model"]


def test_a_file_is_replaced_as_a_whole_and_keeps_its_suffix(tmp_path):
    file = tmp_path / "deep" / "rows.npy"
    for content in ("one", "two"):
        with files.write_file(file) as temporary:
            assert temporary.suffix == ".npy"
            temporary.write_text(content)
        assert file.read_text() == content
    with pytest.raises(KeyError), files.write_file(file) as temporary:
        temporary.write_text("three")
        raise KeyError("in the middle")
    assert file.read_text() == "two"
    assert names(file.parent) == ["rows.npy"]


def test_a_lock_that_goes_leaves_the_lock_of_the_next_one_alone(tmp_path, monkeypatch):
    file, release, others = tmp_path / ".lock", FileLock.release, []

    def handed_on(lock, *args, **kwargs):
        release(lock, *args, **kwargs)
        if not others:  # another process takes it at once
            others.append(FileLock(file))
            others[0].acquire(blocking=False)

    with monkeypatch.context() as patched:
        patched.setattr(FileLock, "release", handed_on)
        with files.locked(file, "held", remove=True):
            pass
    with pytest.raises(errors.UsageError, match="held"), files.locked(file, "held"):
        pass
    others[0].release()
    with files.locked(file, "held", remove=True):
        pass
    assert not file.exists()


def test_a_target_of_the_wrong_kind_is_refused(tmp_path):
    (tmp_path / "file").write_text("content")
    with pytest.raises(NotADirectoryError, match="is a file"), files.write_folder(tmp_path / "file"):
        pass
    with pytest.raises(IsADirectoryError, match="is a folder"), files.write_file(tmp_path):
        pass
    assert (tmp_path / "file").read_text() == "content"


# Tables


def test_the_14_languages_of_the_paper():
    codes = "en es ru fr vi fa id ar fi ko hi bn te sw".split()
    assert [language.code for language in languages.paper()] == codes
    levels = {level: [x.code for x in languages.paper() if x.level == level] for level in languages.LEVELS}
    assert levels == {"high": codes[:5], "medium": codes[5:11], "low": codes[11:13], "extremely_low": codes[13:]}


def test_every_language_is_complete():
    rows = languages.table()
    assert {"de", "zh", "ja", "tr", "pt", "th"} <= set(rows)
    assert len({row.code3 for row in rows.values()}) == len(rows)
    for code, row in rows.items():
        assert (len(row.code), len(row.code3), len(row.script)) == (2, 3, 4)
        assert row.code == code
        assert row.level in (*languages.LEVELS, None)
    assert languages.language("SWA") == languages.language("sw") == rows["sw"]


# Optional packages


def test_every_extra_is_installable_by_its_name_and_something_needs_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) == {*extras.EXTRAS, "test", "docs"}
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    assert [extra for extra in extras.EXTRAS if f'need("{extra}", ' not in code] == []


def test_a_missing_package_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "eval", ("no_such_package",))
    with pytest.raises(errors.MissingExtraError, match=r"no_such_package: pip install 'lusifer\[eval\]'$") as caught:
        extras.need("eval", "no_such_package.data")
    assert caught.value.status == 1


def test_a_broken_package_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "half_package.py").write_text("import a_part_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(extras.EXTRAS, "eval", ("half_package",))
    with pytest.raises(ModuleNotFoundError, match="a_part_that_is_not_there"):
        extras.need("eval", "half_package")


def test_an_installed_package_is_returned(monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "eval", ("json",))
    assert extras.need("eval", "json.decoder") is importlib.import_module("json.decoder")
    with pytest.raises(errors.UsageError, match="does not bring 'numpy'"):
        extras.need("eval", "numpy")


def test_exit_statuses():
    assert errors.LusiferError.status == errors.TextError.status == errors.ModelFolderError.status == 1
    assert errors.UsageError.status == errors.RecipeError.status == 2


def test_sentences_of_the_tiny_tokenizers_are_clean():
    lines = (ROOT / "tests/support/tiny.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) > 60
    assert all(unicodedata.is_normalized("NFC", line) and prompts.check_text(line, "tiny.txt") for line in lines)


@pytest.mark.parametrize("text", ["\u200b", "\ufeff \u00ad", "\u200c\u200d", "\u2060\n\t\ufe0f"])
def test_a_text_of_nothing_that_is_seen_is_blank(text: str) -> None:
    with pytest.raises(errors.TextError, match="row 1: the text is empty"):
        prompts.check_text(text, "row 1")


def test_an_error_is_one_line() -> None:
    error = errors.LusiferError("a\nkey\r\n  'x\ud800' of\x0b it\u2028end  \n")
    assert str(error) == "a key 'x\\ud800' of it end"
