"""How commands talk: libraries silent, progress as a bar on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 10.0


def quiet() -> None:
    """Silence progress bars, load reports and advice of the libraries; errors still come through as exceptions."""
    import logging

    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported: some bars of the libraries have no other switch
    os.environ["DATASETS_VERBOSITY"] = "error"  # likewise: its logger is set up anew when it is imported
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("sentence_transformers", "huggingface_hub", "datasets", "mteb"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)


def note(message: str) -> None:
    """Say something on standard error: standard output is for results."""
    typer.echo(f"lusifer: {message}", err=True)


def interactive() -> bool:
    """Whether somebody looks at standard error, on a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress(what: str) -> Iterator[Callable[..., None]]:
    """Show how far a piece of work is, on standard error.

    Args:
        what: Words in front of the numbers.

    Yields:
        A function to call with (done, total) and perhaps words on what is left; total may be None. Off a terminal a
        line appears every ten seconds at most, and none for work that is shorter.
    """
    if interactive():
        with _bar(what) as show:
            yield show
        return
    last = time.monotonic()

    def line(done: int, total: int | None, left: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            note(f"{what}: {done:,}" + (f" of {total:,}" if total else "") + (f", {left}" if left else ""))

    yield line


@contextmanager
def _bar(what: str) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total, left="": bar.update(task, completed=done, total=total)


@contextmanager
def phases() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show work of several phases, on standard error.

    Yields:
        A function to call with (phase, done, total): a bar a phase on a terminal; elsewhere a line every ten seconds
        at most, and none for work that is shorter.
    """
    last, now = time.monotonic(), ""
    with StageBar() as bar:

        def show(phase: str, done: int, total: int | None) -> None:
            nonlocal last, now
            if not interactive():
                if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
                    last = time.monotonic()
                    note(f"{phase}: {done:,}" + (f" of {total:,}" if total else ""))
                return
            if phase != now:
                bar.open(phase, total)
                now = phase
            bar.move(done)

        yield show


class StageBar:
    """A bar for each stage of a long work, one at a time; it stays on the screen when its stage is done.

    As a context it closes the bar however the work ends, so that an error is printed on a line of its own.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def __enter__(self) -> StageBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def open(self, what: str, total: int | None, done: int = 0) -> None:
        """Begin a stage; `done` steps of it were done before."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.close()
        self._progress = Progress(
            TextColumn("lusifer: {task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[words]}", markup=False),
            console=Console(stderr=True),
            redirect_stdout=False,  # what goes to a pipe must not turn up on the screen
            refresh_per_second=2,
            speed_estimate_period=3600,  # a step may take minutes
        )
        self._progress.add_task(what, total=total, completed=done, words="")
        self._progress.start()

    def move(self, done: int) -> None:
        """Show that `done` steps are done."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=done)

    def tell(self, words: str) -> None:
        """Put words behind the numbers."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], words=words)

    def close(self) -> None:
        """Leave the bar as it stands; what is printed next begins on a new line."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
