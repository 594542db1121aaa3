"""SIGTERM within a block asks a trainer to stop; what else ends the block is not lost."""

import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from lusifer.errors import LusiferError
from lusifer.training.stages.stopping import on_sigterm


@pytest.fixture
def got() -> Iterator[list[int]]:
    """The signals that come outside of the block, which would end a process."""
    found = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def trainer() -> SimpleNamespace:
    return SimpleNamespace(accelerator=None, add_callback=lambda callback: None)


def test_an_error_of_the_step_in_which_it_came_is_not_swallowed(got: list[int], trainer: SimpleNamespace) -> None:
    with pytest.raises(LusiferError, match="the loss is nan"), on_sigterm(trainer) as callback:
        signal.raise_signal(signal.SIGTERM)  # of this thread, at once: a late one would end the worker
        assert callback.asked
        raise LusiferError("the loss is nan")
    assert not got


def test_behind_the_last_step_it_ends_the_process(got: list[int], trainer: SimpleNamespace) -> None:
    with on_sigterm(trainer):
        signal.raise_signal(signal.SIGTERM)  # of this thread, at once: a late one would end the worker
        assert not got
    assert got == [signal.SIGTERM]
