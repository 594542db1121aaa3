"""Where a model runs and in which number format, as a user writes it: what is none is refused with what was meant."""

from __future__ import annotations

import difflib
import shlex

import torch

from lusifer.errors import UsageError

DTYPES = ("float32", "bfloat16", "float16")
_MEANT = {
    "fp16": "float16", "f16": "float16", "half": "float16", "16": "float16", "bf16": "bfloat16", "brain": "bfloat16",
    "fp32": "float32", "f32": "float32", "float": "float32", "full": "float32", "32": "float32",
    "gpu": "cuda", "nvidia": "cuda", "metal": "mps", "apple": "mps",
}  # fmt: skip
_PLACES = "use cpu, cuda, cuda:1 or mps, or leave it out to take the best one"


def _did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """A question with the known word that is nearest, or nothing."""
    plain, colon, number = word.strip().lower().removeprefix("torch.").partition(":")
    near = [_MEANT[plain]] if _MEANT.get(plain) else difflib.get_close_matches(plain, known, 1)
    return f"did you mean {near[0]}{colon}{number}? " if near else ""


def number_format(dtype: str | torch.dtype | None, option: str = "dtype") -> str | None:
    """The name of a number format, in small letters; `option` is how the user gave it.

    Raises:
        UsageError: It is none that models are kept in.
    """
    if dtype is None:
        return None
    name = str(dtype).strip().lower().removeprefix("torch.")
    if name not in DTYPES:
        hint = _did_you_mean(str(dtype), DTYPES)
        raise UsageError(f"{option} {shlex.quote(str(dtype))}: no number format: {hint}Use {', '.join(DTYPES)}")
    return name


def usable(device: str | torch.device | None, option: str = "device") -> str | None:
    """The device in small letters; one that this machine does not have is refused. `option` is how the user gave it.

    Raises:
        UsageError: torch knows no such device, or cannot put anything there.
    """
    if device is None:
        return None
    device = str(device).lower()
    try:
        kind = torch.device(device).type
    except RuntimeError:  # its message lists every kind of device that torch has a word for
        hint = _did_you_mean(device, ("cpu", "cuda", "mps"))
        raise UsageError(f"{option} {shlex.quote(device)}: not the name of a device; {hint}{_PLACES}") from None
    try:
        torch.ones(1, device=device).item()  # "meta" holds no numbers
    except (RuntimeError, AssertionError, ImportError) as error:
        # Where the device may be there, torch says what is missing; elsewhere it names its own parts.
        reason = str(error).splitlines()[0] if kind in ("cuda", "xpu") else f"torch has no {kind} on this machine"
        raise UsageError(f"{option} {device}: not usable here ({reason}); {_PLACES}") from None
    return device
