"""Two processes of which the first one takes its time wherever it works alone, under a short limit of the library."""

from __future__ import annotations

import os
import pkgutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from lusifer.training import processes

ALONE = [
    "lusifer.training.run.inputs.fingerprints",
    "lusifer.training.run.card.keep",
    "lusifer.embedder.folder.save",
    "lusifer.training.run.run._publish",
    "lusifer.training.stages.trainer.StageTrainer._save",
    "lusifer.training.stages.measured.Watcher.measure",
]
"""Where only the first process works."""


def _late(name: str, seconds: float) -> mock._patch:
    real: Callable[..., Any] = pkgutil.resolve_name(name)

    def slowed(*words: Any, **keywords: Any) -> Any:
        os.write(2, f"late: {name}\n".encode())
        time.sleep(seconds)
        return real(*words, **keywords)

    return mock.patch(name, slowed)


def train(limit: float, late: float, wait_hours: float | None, *words: str) -> int:
    """Run `lusifer train WORDS` as one of two ranks; rank 0 is `late` seconds late in each place of `ALONE`.

    `limit` is the library's own limit in seconds, `wait_hours` stands in for ours unless it is None.
    """
    from torch.distributed import distributed_c10d

    from lusifer.cli import main

    distributed_c10d.default_pg_timeout = timedelta(seconds=limit)
    if wait_hours is not None:
        processes.WAIT_HOURS = wait_hours
    if os.environ["RANK"] == "0":
        for name in ALONE:
            _late(name, late).start()
    return main(["train", *words])


def look_for(own: str, shared: str) -> None:
    """As one of two ranks, look for what rank 0 writes into a folder that both see, then into one of its own."""
    processes.start()
    processes.refuse_unshared(Path(shared))
    processes.refuse_unshared(Path(own) / os.environ["RANK"])


def join_within(minutes: float) -> None:
    """As one of two ranks, join the other one, which must come within so many minutes."""
    processes.JOIN_MINUTES = minutes
    processes.start()
