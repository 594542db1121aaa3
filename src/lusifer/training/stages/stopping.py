"""SIGTERM ends training behind the step that runs, with a checkpoint: pre-emptible machines send it before they go.

transformers has `enable_jit_checkpoint` for this. It saves before the optimizer's step too, with a random state that
has drawn that step's masks already, so the resumed run would end with other weights; and each process stops for itself.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import Trainer, TrainerCallback

from lusifer.errors import LusiferError


class TerminatedError(LusiferError):
    """A run was asked to end by SIGTERM and has saved a checkpoint. The status is what shells give for the signal."""

    status = 128 + signal.SIGTERM


class StopOnSigterm(TrainerCallback):
    """Saves and ends training at the end of the step in which any process was asked to stop.

    Attributes:
        asked: Whether this process has got the signal.
        stopped: Whether training was ended because of it.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.accelerator = trainer.accelerator
        self.asked = self.stopped = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint and the end. All processes agree, or those left would wait for the one that stopped."""
        if self._any_asked():
            self.stopped = control.should_save = control.should_training_stop = True

    def _any_asked(self) -> bool:
        if self.accelerator.num_processes == 1:  # the library would wait for the GPU
            return self.asked
        if self.asked:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()


@contextmanager
def on_sigterm(trainer: Trainer) -> Iterator[StopOnSigterm]:
    """While the block runs, SIGTERM asks a trainer to save and end, again and again it asks no more than once.

    Outside the main thread the signal keeps its meaning: Python allows no other.
    """
    callback = StopOnSigterm(trainer)
    trainer.add_callback(callback)
    if threading.current_thread() is not threading.main_thread():
        yield callback
        return

    def ask(number: int, frame: object) -> None:
        callback.asked = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield callback
    finally:
        signal.signal(signal.SIGTERM, before)
    # Not in `finally`: an error of the same step ends the process as well, and the signal would swallow its line.
    if callback.asked and not callback.stopped:  # it came behind the last step
        signal.raise_signal(signal.SIGTERM)
