"""Output of commands: libraries are silent; progress is a bar on a terminal and plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import typer

from lusifer.errors import visible

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 10.0


def quiet() -> None:
    """Silence progress bars, load reports and warnings of the libraries; errors are exceptions and still arrive."""
    import logging

    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported; some bars have no other switch
    os.environ["DATASETS_VERBOSITY"] = "error"  # likewise: the import sets up its logger
    # Python warns of tqdm's lock in the worker process of a device when that process is ended.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
    # Read by transformers, which is not imported for this: that takes most of a second, and more with torch.
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["HF_HUB_VERBOSITY"] = "error"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
    for name in ("sentence_transformers", "huggingface_hub", "datasets", "mteb"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)


def say(message: str, err: bool = False, nl: bool = True) -> None:
    """Print text that may come from others; `visible` escapes control characters in it."""
    typer.echo(visible(message), err=err, nl=nl)


def note(message: str) -> None:
    """Print a message on standard error; standard output is for results."""
    say(f"lusifer: {message}", err=True)


def note_replaced(output: Path) -> None:
    """Report that an output exists and will be replaced; the old one stays until the new is complete.

    Call it after the inputs were checked, and before the output is made: an error that follows makes it untrue.

    Args:
        output: A file, or a folder that is replaced completely.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        note(f"{output} exists and will be replaced")


def duration(hours: float | None) -> str:
    """Write hours in a fitting unit: 1,337 h, 2.5 h, 12.0 min or 40.0 s; "unknown" for None."""
    if hours is None:
        return "unknown"
    if hours >= 1:
        return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"
    if hours * 3600 < 0.1:
        return "< 0.1 s"
    return f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.1f} s"


def interactive() -> bool:
    """Whether standard error is a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def phases(transient: bool = False) -> Iterator[Callable[..., None]]:
    """Show the progress of work in several phases, on standard error.

    Args:
        transient: Whether the bar disappears at the end.

    Yields:
        A function to call with (phase, done, total) and optionally a text on the remaining time; total may be None.
        On a terminal it shows a bar for each phase; elsewhere it prints at most one line in ten seconds.
    """
    last, now = time.monotonic(), ""
    with StageBar(transient) as bar:

        def show(phase: str, done: int, total: int | None, left: str = "") -> None:
            nonlocal last, now
            if not interactive():
                if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
                    last = time.monotonic()
                    note(f"{phase}: {done:,}" + (f" of {total:,}" if total else "") + (f", {left}" if left else ""))
                return
            if phase != now:
                bar.open(phase, total)
                now = phase
            bar.update(completed=done, total=total, words=left)

        yield show


@contextmanager
def progress(what: str) -> Iterator[Callable[..., None]]:
    """Show the progress of work in one phase; call the yielded function with (done, total)."""
    with phases(transient=True) as show:
        yield partial(show, what)


class StageBar:
    """A progress bar for each stage of a long job, one at a time; a finished bar stays on the screen.

    Use it as a context manager: it also closes the bar after an error, which is then printed on a line of its own.
    """

    def __init__(self, transient: bool = False) -> None:
        self._transient = transient
        self._progress: Progress | None = None

    def __enter__(self) -> StageBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def open(self, what: str, total: int | None, done: int = 0) -> None:
        """Open the bar of a stage of which `done` steps are already done."""
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
            transient=self._transient,
            redirect_stdout=False,  # output for a pipe must not appear on the screen
            refresh_per_second=2,
            speed_estimate_period=3600,  # a step may take minutes
        )
        self._progress.add_task(visible(what), total=total, completed=done, words="")
        self._progress.start()

    def update(self, **values: int | str | None) -> None:
        """Update the steps that are done (`completed`), their `total`, or the text behind the numbers (`words`)."""
        if self._progress is not None:
            shown = {name: visible(value) if isinstance(value, str) else value for name, value in values.items()}
            self._progress.update(self._progress.task_ids[0], **shown)

    def close(self) -> None:
        """Stop the bar and leave it on the screen; later output begins on a new line."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
