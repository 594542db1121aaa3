"""The frame of the command line: help at once, one line for an error, the exit status."""

import subprocess
import sys

import pytest
import typer

from lusifer import cli
from lusifer.cli import main, terminal
from lusifer.errors import LusiferError, UsageError
from support.house_rules import BROUGHT, HEAVY

COMMANDS = ("check", "train", "doctor", "info", "embed", "convert", "demo", "evaluate")


@pytest.mark.slow
def test_help_lists_the_commands_without_loading_a_library():
    heavy = HEAVY | BROUGHT | {"numpy", "pydantic"}
    code = (
        "import sys, time; start = time.perf_counter()\n"
        "from lusifer.cli import main\n"
        "status = main(['--help'])\n"
        f"heavy = {heavy} & set(sys.modules)\n"
        "print(status, sorted(heavy), time.perf_counter() - start < 2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 [] True"
    assert all(f"  {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"lusifer {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embedd"], "No such command 'embedd'"),
        (["embed"], "Missing argument 'MODEL'"),
        (["embed", "mini", "--input", "a.txt"], "Missing option '--output'"),
        (["embed", "m", "--input", "a", "--output", "b", "--role", "both"], "'--role': 'both' is not one of"),
        (["embed", "m", "--input", "a", "--output", "b", "--batch-tokens", "0"], "greater than or equal to 1"),
        (["train", "tiny", "--output", "o", "--sett", "x"], "No such option: --sett"),
        (["--nonsense"], "No such option: --nonsense"),
    ],
)
def test_a_wrong_call_is_status_2_in_one_line(words, message, capsys):
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("lusifer: error: ")
    assert message in lines[0]
    assert "--help`" in lines[0]


@pytest.mark.parametrize("words", [[], ["data"]])
def test_without_a_command_the_help_is_shown(words, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(" ".join(["Usage: lusifer", *words, "[OPTIONS] COMMAND"])) and "error:" not in said
    assert len(said.splitlines()) > 5


def test_version(capsys):
    from lusifer import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lusifer {__version__}\n"


@pytest.fixture
def raises(monkeypatch):
    """Replace the application by one that fails in the way given."""

    def install(error: BaseException) -> None:
        app = typer.Typer(add_completion=False)

        @app.callback()
        def options() -> None: ...

        @app.command()
        def work() -> None:
            raise error

        monkeypatch.setattr(cli, "app", app)

    return install


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (LusiferError("a.txt line 3: broken"), 1, "lusifer: error: a.txt line 3: broken"),
        (UsageError("wrong"), 2, "lusifer: error: wrong"),
        (
            ValueError("odd\nsecond line"),
            1,
            "lusifer: error: ValueError: odd (run again with --debug for the traceback)",
        ),
        (OSError(28, "No space left on device", "o.npy"), 1, "lusifer: error: o.npy: No space left on device"),
        (NotADirectoryError("o is a file"), 1, "lusifer: error: o is a file"),
        (KeyboardInterrupt(), 130, "lusifer: error: interrupted"),
    ],
)
def test_errors_become_one_line_and_a_status(raises, capsys, error, status, line):
    raises(error)
    assert main(["work"]) == status
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize("words", [["--debug", "work"], ["work", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(raises, capsys, words):
    raises(ValueError("odd"))
    assert main(words) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["data", "--help"]])
def test_the_list_of_commands_shows_each_summary_complete(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main(words)
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert len(listed) > 5 and all(line.endswith(".") and not line.endswith("..") for line in listed)


def test_a_call_leaves_the_hook_for_exceptions_as_it_is(capsys):
    """`typer` would set its own for the whole process, and build all commands again in each call."""
    before, built = sys.excepthook, cli._built(cli.app)
    assert main(["nothing"]) == 2 and main(["--version"]) == 0
    assert sys.excepthook is before and cli._built(cli.app) is built


def test_durations_have_no_more_digits_than_an_estimate():
    hours = [1336.92, 12.3, 2.54, 0.2, 0.01, 0.00001, None]
    assert [terminal.duration(each) for each in hours] == [
        "1,337 h", "12 h", "2.5 h", "12.0 min", "36.0 s", "< 0.1 s", "unknown"
    ]  # fmt: skip
