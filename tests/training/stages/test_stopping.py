"""SIGTERM within training: what it must not swallow, and what it does behind the last step; each in its own process."""

import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lusifer.errors import LusiferError
from lusifer.training.stages.stopping import on_sigterm
from support.processes import Started

pytestmark = pytest.mark.slow

TRAINER = SimpleNamespace(accelerator=None, add_callback=lambda callback: None)


def get_one_and_fail() -> None:
    """What a process does that gets SIGTERM in a step that ends with an error."""
    with on_sigterm(TRAINER) as callback:
        signal.raise_signal(signal.SIGTERM)
        assert callback.asked
        raise LusiferError("the loss is nan")


def get_one_behind_the_last_step() -> None:
    """What a process does that gets SIGTERM when no step follows."""
    with on_sigterm(TRAINER):
        signal.raise_signal(signal.SIGTERM)
        sys.stdout.write("still here")
        sys.stdout.flush()
    sys.stdout.write("never written")


def test_an_error_of_the_step_in_which_it_came_is_not_swallowed(tmp_path: Path) -> None:
    started = Started(get_one_and_fail, (), tmp_path, "error")
    assert started.wait() == 1, started.stderr
    assert started.stderr.endswith("LusiferError: the loss is nan\n")


def test_behind_the_last_step_it_ends_the_process(tmp_path: Path) -> None:
    started = Started(get_one_behind_the_last_step, (), tmp_path, "late")
    assert started.wait() == -signal.SIGTERM, started.stderr
    assert started.stdout == "still here"
