"""Check the device and the dtype that a user gives; errors suggest the nearest valid name."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence

import torch

from lusifer.errors import UsageError

DTYPES = ("float32", "bfloat16", "float16")
_MEANT = {
    "fp16": "float16", "f16": "float16", "half": "float16", "16": "float16", "bf16": "bfloat16", "brain": "bfloat16",
    "fp32": "float32", "f32": "float32", "float": "float32", "full": "float32", "32": "float32",
    "gpu": "cuda", "nvidia": "cuda", "metal": "mps", "apple": "mps",
}  # fmt: skip
_PLACES = ("cpu", "cuda", "cuda:1", "mps")


def _did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """Suggest the nearest known name, or return an empty string."""
    plain, colon, number = word.strip().lower().removeprefix("torch.").partition(":")
    near = [_MEANT[plain]] if _MEANT.get(plain) else difflib.get_close_matches(plain, known, 1)
    return f"did you mean {near[0]}{colon}{number}? " if near else ""


def _use(places: Sequence[str]) -> str:
    return f"use {', '.join(places[:-1])} or {places[-1]}, or leave it out to take the best one"


def _has_other(name: str, failed: str) -> bool:
    """Whether a name is that of the first GPU, which is there, and another one failed."""
    return name == "cuda" != failed and torch.cuda.is_available()


def number_format(dtype: str | torch.dtype | None, option: str = "dtype") -> str | None:
    """Check the name of a dtype.

    Args:
        dtype: A name such as "bfloat16" or a torch dtype; None stays None.
        option: The name of the option, for the error message.

    Returns:
        The name in lower case.

    Raises:
        UsageError: It is none of `DTYPES`.
    """
    if dtype is None:
        return None
    name = str(dtype).strip().lower().removeprefix("torch.")
    if name not in DTYPES:
        hint = _did_you_mean(str(dtype), DTYPES)
        raise UsageError(f"{option} {shlex.quote(str(dtype))}: unknown dtype: {hint}use {', '.join(DTYPES)}")
    return name


def usable(device: str | torch.device | None, option: str = "device") -> str | None:
    """Check that torch can use a device on this machine.

    Args:
        device: A name such as "cuda:1"; None stays None.
        option: The name of the option, for the error message.

    Returns:
        The name in lower case.

    Raises:
        UsageError: There is no such device, or it cannot store a tensor.
    """
    if device is None:
        return None
    device = str(device).lower()
    try:
        kind = torch.device(device).type
    except RuntimeError:  # torch's own message lists every device type that it knows
        hint = _did_you_mean(device, ("cpu", "cuda", "mps"))
        raise UsageError(f"{option} {shlex.quote(device)}: unknown device: {hint}{_use(_PLACES)}") from None
    try:
        torch.ones(1, device=device).item()  # fails on "meta", which stores no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        # torch's message helps for GPUs; for other types it names internals.
        reason = str(error).splitlines()[0] if kind in ("cuda", "xpu") else f"torch has no {kind} on this machine"
        left = [name for name in _PLACES if torch.device(name).type != kind or _has_other(name, device)]
        raise UsageError(f"{option} {device}: not usable here ({reason}); {_use(left)}") from None
    return device
