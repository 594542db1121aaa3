"""The processes of a run, from accelerate: their number, the rank of this one, and how long they wait for each other.

Only data parallelism is supported: each process has the complete model, and the rows of a step are divided among them.
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
"""How long the others wait while the first process works alone, hashing files and texts, merging and writing. The
defaults of the libraries are 10 and 30 minutes."""
JOIN_MINUTES = 10
"""How long they wait for each other at the start. It is shorter, so that a process that died early is noticed soon."""
TOY = 2_000_000
"""A model with fewer parameters trains on one thread."""
_LAUNCHERS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}
"""Variables that `accelerate launch` sets by its options or its configuration file."""
_DATA_PARALLEL = "start with `torchrun --nproc_per_node=N -m lusifer.cli train ...`, or `accelerate launch --multi_gpu`"


@contextmanager
def threads_for(parameters: int) -> Iterator[None]:
    """Use one thread of torch for a toy model, unless OMP_NUM_THREADS is set.

    At each of its tiny products several threads wait for each other. If other programs use the cores, a step of recipe
    `tiny` took 6 to 75 times as long with two threads as with one.

    Args:
        parameters: The number of parameters of the model.
    """
    import torch

    before = torch.get_num_threads()
    if parameters < TOY and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def state() -> PartialState:
    """Return accelerate's state of this process; the first call joins the processes.

    All code reads `num_processes` and `is_main_process` from it, and not the variables of a launcher.
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
    """Raise the timeout of the joined processes to `WAIT_HOURS`."""
    from torch.distributed import distributed_c10d

    limit = timedelta(hours=WAIT_HOURS)
    distributed_c10d._set_pg_timeout(limit)
    distributed_c10d._get_default_store().set_timeout(limit)  # NCCL uses the store at its first operation


def start() -> PartialState:
    """Join the processes of a run, and refuse a launcher that would change the training.

    Raises:
        UsageError: The launcher would split the model or change its arithmetic, or a single process sees several GPUs.
        LusiferError: A process did not join in time, or the port is in use.
    """
    import torch
    from accelerate import DistributedType

    for variable, name in _LAUNCHERS.items():
        if os.environ.get(variable, "false").lower() in ("1", "true", "yes", "on"):
            raise UsageError(f"{variable} is set: {name} is not supported, only data parallelism: {_DATA_PARALLEL}")
    for variable, off in {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "no"}.items():
        if (value := os.environ.get(variable, off).lower()) != off:
            key = "bf16" if variable.endswith("PRECISION") else "compile"
            option = variable.removeprefix("ACCELERATE_").lower()
            words = f"the recipe's key `{key}` of a stage decides this: launch with --{option} no"
            raise UsageError(f"{variable}={value}: {words}")
    with _joining():
        found = state()
    if found.distributed_type == DistributedType.NO and torch.cuda.device_count() > 1:
        # transformers would split each batch over them, which changes the steps of the recipe.
        raise UsageError(
            f"{torch.cuda.device_count()} GPUs are visible to one process: start with torchrun, or set "
            "CUDA_VISIBLE_DEVICES=0"
        )
    return found


@contextmanager
def _joining() -> Iterator[None]:
    """Turn torch's errors about processes that do not join into one line."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        said = _said(error)
        if said is None:
            raise
        if "EADDRINUSE" in str(error):
            where = os.environ.get("MASTER_PORT", "of the launcher")
            raise LusiferError(
                f"port {where} is in use, perhaps by another run: set another one (torchrun --master-port)"
            ) from error
        raise LusiferError(
            f"the processes of this run did not all join within {JOIN_MINUTES:g} minutes ({said}): one of them ended "
            "(see its output), or cannot reach the others (check MASTER_ADDR, MASTER_PORT, GLOO_SOCKET_IFNAME): end "
            "all and start them again"
        ) from error


@contextmanager
def together() -> Iterator[None]:
    """Turn torch's error about a lost process into one line, in a block in which processes communicate.

    Raises:
        LusiferError: Another process ended or does not answer.
    """
    try:
        yield
    except RuntimeError as error:
        said = _said(error)
        if said is None:
            raise
        raise LusiferError(
            f"another process of this run has ended or does not answer, so this one ends ({said}): see the output of "
            "the other process for the cause, fix it, and start all processes again with --resume"
        ) from error


def _said(error: Exception) -> str | None:
    """Shorten torch's message about lost or missing processes; None if the error is about something else."""
    from torch.distributed import DistError

    text = str(error).strip()
    if not isinstance(error, DistError) and not re.match(r"\[\S*gloo\S*\]|.*\bgloo\b", text, re.IGNORECASE):
        return None
    text = re.sub(r"^\[\S*\]\s*", "", text.splitlines()[0] if text else type(error).__name__)
    return re.split(r"\.\s|, message:", text)[0][:120].rstrip(".")


def refuse_unshared(folder: Path) -> None:
    """Check that all processes see the files that the first process writes to a folder. All processes must call this.

    Raises:
        LusiferError: A process does not see them, as on machines without a shared disk. Raised in every process.
    """
    from accelerate.utils import broadcast_object_list, gather_object

    here = state()
    if here.num_processes == 1:
        return
    # A new name, because a network file system may have cached that a file of this name does not exist.
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
            f"{folder}: process {blind[0]} does not see the files of process 0: set --output to a folder that all "
            "nodes share"
        )
