"""SIGTERM ends training after the current step, with a checkpoint. Preemptible machines send it before they stop.

transformers has `enable_jit_checkpoint` for this, which is not used: it may save in the middle of a step, after its
random draws, so that the resumed run would end with other weights; and each process stops independently.
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
    """SIGTERM ended a run, which saved a checkpoint. The status is the usual one of shells for the signal."""

    status = 128 + signal.SIGTERM


class StopOnSigterm(TrainerCallback):
    """Saves a checkpoint and ends training at the end of the step in which any process got the signal.

    Attributes:
        asked: Whether this process got the signal.
        stopped: Whether training ended because of it.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.accelerator = trainer.accelerator
        self.asked = self.stopped = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Request a checkpoint and the end. All processes decide together: otherwise the others would wait."""
        if self._any_asked():
            self.stopped = control.should_save = control.should_training_stop = True

    def _any_asked(self) -> bool:
        if self.accelerator.num_processes == 1:  # `check_trigger` would synchronize with the GPU
            return self.asked
        if self.asked:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()


@contextmanager
def on_sigterm(trainer: Trainer) -> Iterator[StopOnSigterm]:
    """Make SIGTERM save a checkpoint and end the training, while the block runs.

    Outside the main thread Python does not allow this, and the signal keeps its effect.
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
    # Not in `finally`: after an error of the same step, the signal would suppress its message.
    if callback.asked and not callback.stopped:  # it came after the last step
        signal.raise_signal(signal.SIGTERM)
