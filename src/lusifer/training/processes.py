"""The processes of a run, as accelerate tells them: how many, which one this is, and how long they wait for each other.

Data parallel and nothing else: each process holds the whole model, and a step's rows are shared among them.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lusifer.errors import LusiferError, UsageError

if TYPE_CHECKING:
    from accelerate import PartialState

WAIT_HOURS = 6
"""How long the others wait while the first process works alone: it hashes files and texts, merges and writes. The
libraries' own limits are 10 and 30 minutes."""
JOIN_MINUTES = 10
"""How long they wait for each other at the start, where all of them do the same: one that died before would be waited
for as long as the first process may work."""
_LAUNCHERS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}
"""Variables by which `accelerate launch` tells what its options or its configuration file ask for."""
_DATA_PARALLEL = "start with `torchrun --nproc_per_node=N -m lusifer.cli train ...`, or `accelerate launch --multi_gpu`"


def state() -> PartialState:
    """This process among all, which join when it is asked for the first time.

    `num_processes` and `is_main_process` of what is returned are asked for everywhere, and no variable of a launcher.
    """
    import torch
    from accelerate import PartialState

    def joined() -> bool:
        return torch.distributed.is_available() and torch.distributed.is_initialized()

    before = joined()
    found = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(minutes=JOIN_MINUTES))
    if joined() and not before:
        _wait_longer()
    return found


def _wait_longer() -> None:
    """Let processes that have joined wait for the first one as long as it may work alone."""
    from torch.distributed import distributed_c10d

    limit = timedelta(hours=WAIT_HOURS)
    distributed_c10d._set_pg_timeout(limit)
    distributed_c10d._get_default_store().set_timeout(limit)  # NCCL meets by it when it is first used


def start() -> PartialState:
    """Join the processes of a run, those that a run can have.

    Raises:
        UsageError: The launcher would split the model or change its arithmetic, or several GPUs are visible to one
            process alone.
        LusiferError: Some process did not come, or the port where they meet is taken.
    """
    import torch
    from accelerate import DistributedType

    for variable, name in _LAUNCHERS.items():
        if os.environ.get(variable, "false").lower() in ("1", "true", "yes", "on"):
            raise UsageError(f"{variable} is set: {name} splits the model, and a run does not; {_DATA_PARALLEL}")
    for variable, off in {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "no"}.items():
        if (value := os.environ.get(variable, off).lower()) != off:
            key = "bf16" if variable.endswith("PRECISION") else "compile"
            option = variable.removeprefix("ACCELERATE_").lower()
            raise UsageError(f"{variable}={value}: `{key}` of a stage decides; launch with --{option} no")
    with _joining():
        found = state()
    if found.distributed_type == DistributedType.NO and torch.cuda.device_count() > 1:
        # transformers would spread each batch over them, and a step not be the recipe's.
        raise UsageError(
            f"{torch.cuda.device_count()} GPUs are visible to one process: start with torchrun, or set "
            "CUDA_VISIBLE_DEVICES=0"
        )
    return found


@contextmanager
def _joining() -> Iterator[None]:
    """Say in words why the processes of a launcher do not meet."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        said = _said(error)
        if said is None:
            raise
        if "EADDRINUSE" in str(error):
            where = os.environ.get("MASTER_PORT", "that the processes meet at")
            raise LusiferError(
                f"port {where} is in use, perhaps by another run: give the launcher another (torchrun --master-port)"
            ) from error
        raise LusiferError(
            f"the processes of this run did not all meet within {JOIN_MINUTES:g} minutes ({said}): one of them ended, "
            "as its own output tells, or cannot reach the others (MASTER_ADDR, MASTER_PORT, GLOO_SOCKET_IFNAME); end "
            "all and start them again"
        ) from error


@contextmanager
def together() -> Iterator[None]:
    """Give one line to a process that cannot go on because another one of the run is gone.

    The libraries tell it, at once where a process died, by the address of a connection that was closed.

    Raises:
        LusiferError: Another process ended, or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        said = _said(error)
        if said is None:
            raise
        raise LusiferError(
            f"another process of this run has ended or does not answer, so this one ends ({said}): what went wrong "
            "stands in the output of that one; when it is mended, start all of them again with --resume"
        ) from error


def _said(error: Exception) -> str | None:
    """What torch says of processes that do not find each other, in short; None where it speaks of something else."""
    from torch.distributed import DistError

    text = str(error).strip()
    if not isinstance(error, DistError) and not re.match(r"\[\S*gloo\S*\]|.*\bgloo\b", text, re.IGNORECASE):
        return None
    text = re.sub(r"^\[\S*\]\s*", "", text.splitlines()[0] if text else type(error).__name__)
    return re.split(r"\.\s|, message:", text)[0][:120].rstrip(".")


def refuse_unshared(folder: Path) -> None:
    """Make sure that what the first process writes into a folder is there for all; all processes must call this.

    Raises:
        LusiferError: Some do not see it, as on two machines with a disk each. Raised in every process.
    """
    from accelerate.utils import broadcast_object_list, gather_object

    here = state()
    if here.num_processes == 1:
        return
    # A name that nobody has looked up before: a network file system may remember that a file was not there.
    (name,) = broadcast_object_list([f".shared-{secrets.token_hex(8)}"])
    if here.is_main_process:
        (folder / name).touch()
    here.wait_for_everyone()
    blind = [rank for rank, sees in enumerate(gather_object([(folder / name).is_file()])) if not sees]
    here.wait_for_everyone()
    if here.is_main_process:
        (folder / name).unlink(missing_ok=True)
    if blind:
        raise LusiferError(
            f"{folder}: process {blind[0]} does not see what process 0 writes there: give --output a folder that all "
            "nodes share"
        )
