"""How commands talk: libraries silent, progress as a bar on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

SECONDS_BETWEEN_LINES = 10.0


def quiet() -> None:
    """Silence progress bars, load reports and advice of the libraries; errors still come through as exceptions."""
    import logging
    import os

    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported: some bars of the libraries have no other switch
    os.environ["DATASETS_VERBOSITY"] = "error"  # likewise: its logger is set up anew when it is imported
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("sentence_transformers", "huggingface_hub", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)


def note(message: str) -> None:
    """Say something on standard error: standard output is for results."""
    typer.echo(f"lusifer: {message}", err=True)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show how far a piece of work is, on standard error.

    Args:
        what: Words in front of the numbers.

    Yields:
        A function to call with (done, total); total may be None. Off a terminal a line appears every ten seconds at
        most, and none for work that is shorter.
    """
    if sys.stderr.isatty():
        with _bar(what) as show:
            yield show
        return
    last = time.monotonic()

    def line(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            note(f"{what}: {done:,}" + (f" of {total:,}" if total else ""))

    yield line


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
