"""Which dtypes the processor of this machine can multiply with instructions of its own."""

from __future__ import annotations

PRODUCTS = {"bfloat16": ("amx_bf16", "avx512_bf16"), "float16": ("amx_fp16", "avx512_fp16")}
"""dtype -> instructions that multiply it, by their names in torch; one of them is enough."""


def multiplies(dtype: str) -> bool | None:
    """Whether the processor has instructions for products of a dtype; None if that is not known (not x86-64).

    Without them such a product takes many times as long as one in float32.
    """
    import torch

    if dtype not in PRODUCTS:
        return True
    has = torch.cpu.get_capabilities()
    if has.get("architecture") != "x86_64":
        return None
    return any(map(has.get, PRODUCTS[dtype]))
