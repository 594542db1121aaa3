"""The MODEL argument, and the device and number format of it, which several commands take."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal

import typer

from lusifer.errors import UsageError

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A model folder, a model that comes with the library (mini), a hub id, or package:NAME."
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default the best one here.")]


DtypeOption = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    typer.Option(help="Number format of the model; by default as saved."),
]


def usable(device: str | None) -> str | None:
    """The device in lower case; one that this machine does not have is refused.

    Raises:
        UsageError: torch knows no such device, or cannot put anything there.
    """
    if device is None:
        return None
    import torch

    device = device.lower()
    hint = "use cpu, cuda, cuda:1 or mps, or leave it out to take the best one"
    try:
        kind = torch.device(device).type
    except RuntimeError:  # its message lists every kind of device that torch has a word for
        raise UsageError(f"--device {shlex.quote(device)}: not the name of a device; {hint}") from None
    try:
        torch.ones(1, device=device).item()  # "meta" holds no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        # Where the device may be there, torch says what is missing; elsewhere it names its own parts.
        reason = str(error).splitlines()[0] if kind in ("cuda", "xpu") else f"torch has no {kind} on this machine"
        raise UsageError(f"--device {device}: not usable here ({reason}); {hint}") from None
    return device
