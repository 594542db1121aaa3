"""The command line: it reads arguments and prints results; the other packages do the work.

Commands import what they need when they run, so `lusifer --help` answers at once. `main` is the only place where an
error becomes one line on standard error and an exit status.
"""

from __future__ import annotations

import functools
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from lusifer.cli import check, data, embed, evaluate, report, search, terminal, train, use
from lusifer.cli.models import OWN_PROCESS, limit_caches
from lusifer.errors import LusiferError, one_line

INTERRUPTED = 130  # 128 + SIGINT, as shells give it

app = typer.Typer(
    name="lusifer",
    help="LUSIFER: give an English-centric embedder other languages, with English training text alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    check.check, train.train, train.ablate, use.doctor, use.info, embed.embed, use.export, use.push, use.convert,
    search.index, search.search, search.reindex, use.calibrate, use.serve, evaluate.evaluate, report.report,
    report.public, report.demo,
):  # fmt: skip
    app.command()(command)
data_app = typer.Typer(name="data", help="Inspect, clean, mine and cluster training data.", no_args_is_help=True)
for command in (data.inspect, data.dedup, data.sets, data.fetch, data.mine, data.cluster):
    data_app.command()(command)
app.add_typer(data_app)


def _print_version(wanted: bool) -> None:
    """Print the version and exit, whatever the other arguments are."""
    if wanted:
        from lusifer import __version__

        typer.echo(f"lusifer {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    print_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """LUSIFER: give an English-centric embedder other languages, with English training text alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The arguments after `lusifer`; None takes those of this process. `--debug` may be anywhere in them.

    Returns:
        The exit status: 0 success, 1 failure, 2 wrong arguments, 130 interrupted, 143 stopped by SIGTERM.
    """
    _open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    context = OWN_PROCESS if arguments is None else None
    if context is OWN_PROCESS:
        limit_caches()
    if sys.stdout is not None:
        return _run(words, debug, context)
    sys.stdout = lost = io.StringIO()  # closed (>&-): the command runs, and its output is lost
    try:
        status = _run(words, debug, context)
        if status or not lost.getvalue():
            return status
        return _fail("standard output is closed, so the result is lost: redirect it to a file (> FILE)", 1, debug=False)
    finally:
        sys.stdout = None


@functools.cache
def _built(commands: typer.Typer) -> Callable[..., Any]:
    """Build the commands once, for a program that calls `main` often; `app(...)` would build them in each call."""
    return typer.main.get_command(commands)


def _run(words: list[str], debug: bool, context: str | None) -> int:
    """Run one command; turn an error into one line and an exit status."""
    try:
        status = _built(app)(args=words, prog_name="lusifer", standalone_mode=False, obj=context) or 0
        return _fail("interrupted", INTERRUPTED, debug=False) if status == INTERRUPTED else status
    except LusiferError as error:
        return _fail(str(error), error.status, debug)
    except KeyboardInterrupt:  # raised before a command began; later typer returns a status, see above
        return _fail("interrupted", INTERRUPTED, debug=False)
    except BrokenPipeError:  # the reader of our output has closed the pipe, as `head` does
        sys.stdout = None
        return 1
    except Exception as error:
        if hasattr(error, "format_message"):  # of typer: an unknown command or option, or a value of the wrong type
            return _usage(error, debug)
        if isinstance(error, OSError):
            return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1, debug)
        first = next(iter(str(error).splitlines()), "")
        return _fail(f"{type(error).__name__}: {first} (run again with --debug for the traceback)", 1, debug)


def _open_streams() -> None:
    """Connect standard streams that are closed (2>&-) to the null device.

    Otherwise the next opened file would get the descriptor of a closed stream, and libraries would write their messages
    for standard error into that file.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _usage(error: Exception, debug: bool) -> int:
    """Report arguments that typer refused, and name the help that lists the allowed ones."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "lusifer"
    if type(error).__name__ == "NoArgsIsHelpError":  # no arguments at all: the message is the help
        typer.echo(error.format_message(), err=True)
        return error.exit_code
    message = " ".join(error.format_message().split()).rstrip(".").replace(": Value error, ", ": ")
    return _fail(f"{message}: see `{path} --help`", error.exit_code, debug)


def _fail(message: str, status: int, debug: bool) -> int:
    """Print one error line, after the traceback if `debug` is set."""
    if debug:
        traceback.print_exc()
    terminal.say(f"lusifer: error: {one_line(message)}", err=True)
    return status
