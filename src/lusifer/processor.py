"""What the processor of this machine can multiply."""

from __future__ import annotations

PRODUCTS = {"bfloat16": ("amx_bf16", "avx512_bf16"), "float16": ("amx_fp16", "avx512_fp16")}
"""Number format -> the instructions, any of which multiplies it, by their names in torch."""


def multiplies(dtype: str) -> bool | None:
    """Tell whether the processor has instructions for products of a format; None where that is not known.

    It is known of x86-64. Without them such a product takes many times as long as one in float32.
    """
    import torch

    if dtype not in PRODUCTS:
        return True
    has = torch.cpu.get_capabilities()
    if has.get("architecture") != "x86_64":
        return None
    return any(map(has.get, PRODUCTS[dtype]))
