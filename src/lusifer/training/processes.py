"""The processes of a run, as accelerate tells them: how many, which one this is, and how long they wait for each other.

Data parallel and nothing else: each process holds the whole model, and a step's rows are shared among them.
"""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lusifer.errors import LusiferError, UsageError

if TYPE_CHECKING:
    from accelerate import PartialState

WAIT_HOURS = 6
"""How long the others wait while the first process works alone: it hashes files and texts, merges and writes. The
libraries' own limits are 10 and 30 minutes."""
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

    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=WAIT_HOURS))


def start() -> PartialState:
    """Join the processes of a run, those that a run can have.

    Raises:
        UsageError: The launcher would split the model or change its arithmetic, or several GPUs are visible to one
            process alone.
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
    found = state()
    if found.distributed_type == DistributedType.NO and torch.cuda.device_count() > 1:
        # transformers would spread each batch over them, and a step not be the recipe's.
        raise UsageError(
            f"{torch.cuda.device_count()} GPUs are visible to one process: start with torchrun, or set "
            "CUDA_VISIBLE_DEVICES=0"
        )
    return found


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
