"""A linear layer with a LoRA adapter as one function: y = x Wᵀ + b + s (x Aᵀ) Bᵀ (LoRA, arXiv 2106.09685, section 4.1).

peft adds the adapter's output to the layer's in two operations of their own, forward and backward, each of which reads
and writes everything once more. Here the last product adds to what is there already, so nothing as large as the layer's
output is made besides it. Without gradients and with many rows, the adapter is put into a weight made for the call,
which is less work than two narrow products. All are the same sum: `tests/model/test_lora.py` holds them against peft.

Imported by `adapters.attach` only, since peft takes long to import.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable


class AdaptedLinear(Linear):
    """peft's layer; a plain adapter on a frozen linear layer is computed by `AdaptedProduct`, all else by peft.

    First derivatives only, and not under `torch.func`: those raise.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the layer.

        Args:
            x: (..., in), any floating-point format.
            *args: of peft's own forward pass, which is taken if there are any.
            **kwargs: likewise.

        Returns:
            (..., out).
        """
        name = self.active_adapters[0] if len(self.active_adapters) == 1 else ""
        if args or kwargs or name not in self.lora_A or not self._plain(name):
            return super().forward(x, *args, **kwargs)
        base = self.base_layer
        weights = [base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight]
        if _autocast(x) and x.dtype != torch.float64:  # which autocast leaves alone
            dtype = torch.get_autocast_dtype(x.device.type)
            x, *weights = (None if tensor is None else tensor.to(dtype) for tensor in (x, *weights))
        if any(tensor is not None and tensor.dtype != x.dtype for tensor in weights):
            return super().forward(x)  # peft brings the formats together
        dropped = self.lora_dropout[name](x)
        if dropped is x and _folding_pays(x, weights[0]):
            weight, bias, lora_a, lora_b = weights
            return nn.functional.linear(x, torch.addmm(weight, lora_b, lora_a, alpha=self.scaling[name]), bias)
        return AdaptedProduct.apply(x, None if dropped is x else dropped, *weights, self.scaling[name])

    def _plain(self, name: str) -> bool:
        """Whether the layer is W frozen and A, B beside it, and no more; nobody waits for a call of one of them."""
        if self.disable_adapters or self.merged or name in self.lora_variant or self.lora_bias[name]:
            return False
        parts = (self.base_layer, self.lora_A[name], self.lora_B[name])
        watched = any(part._forward_hooks or part._forward_pre_hooks or "forward" in part.__dict__ for part in parts)
        return not watched and not any(weight.requires_grad for weight in self.base_layer.parameters())


def _autocast(x: torch.Tensor) -> bool:
    """Whether autocast is on for the device of a tensor; "meta" has none."""
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _folding_pays(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether to make W + s B A for a call: r (out in) multiplications against r rows (out + in) of two products.

    Only where that is at most half as many, as the weight has to be written too, and the weight takes no more memory
    than the two further outputs that peft makes. Only where no gradient is wanted, as in the first pass of a gradient
    cache; not in half precision, where most of the update would be rounded away; not in compiled code, which would be
    compiled again for every range of rows.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.dtype.itemsize < 4:
        return False
    out, wide = weight.shape
    rows = x.numel() // wide
    return 2 * out * wide <= rows * (out + wide) and wide <= 2 * rows


class AdaptedProduct(torch.autograd.Function):
    """x Wᵀ + b + scale (x Aᵀ) Bᵀ, with gradients of x, A and B."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        lora_a: torch.Tensor,
        lora_b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Compute the product; all tensors are of one number format.

        Args:
            ctx: of autograd.
            x: (..., in).
            dropped: what the adapter reads in place of x, after dropout; None: x itself.
            weight: (out, in), frozen.
            bias: (out,), frozen, or None.
            lora_a: (r, in).
            lora_b: (out, r).
            scale: alpha / r.

        Returns:
            (..., out).
        """
        rows = x.reshape(-1, x.shape[-1])
        read = rows if dropped is None else dropped.reshape(rows.shape)
        narrow = read @ lora_a.t()
        y = x.new_empty(*x.shape[:-1], len(weight))  # no view of a product: a view could not be changed in place
        flat = y.view(-1, len(weight))
        if bias is None:
            torch.mm(rows, weight.t(), out=flat)
        else:
            torch.addmm(bias, rows, weight.t(), out=flat)
        flat.addmm_(narrow, lora_b.t(), alpha=scale)
        of_x, of_dropped, _, _, of_a, of_b, _ = ctx.needs_input_grad
        ctx.of_read = of_dropped or (of_x and dropped is None)
        needed = (of_a, of_b, of_x, ctx.of_read, ctx.of_read or of_a)
        saved = zip((read, narrow, weight, lora_a, lora_b), needed, strict=True)
        ctx.save_for_backward(*(tensor if wanted else None for tensor, wanted in saved))
        ctx.scale, ctx.shape = scale, x.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, of `dropped`, of A and of B; the rest is frozen.

        As under torch's own products, formats are those of the forward pass, whatever autocast says by now.
        """
        with torch.autocast(grad.device.type, enabled=False) if _autocast(grad) else nullcontext():
            return _gradients(ctx, grad)


def _gradients(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    read, narrow, weight, lora_a, lora_b = ctx.saved_tensors
    of_x, of_dropped, *_ = ctx.needs_input_grad
    rows = grad.reshape(-1, grad.shape[-1])
    grad_x = grad_dropped = grad_a = grad_b = None
    if narrow is not None:
        grad_b = (rows.t() @ narrow).mul_(ctx.scale)
    if lora_b is not None:
        scaled = (rows @ lora_b).mul_(ctx.scale)  # gradient of `narrow`
    if read is not None:
        grad_a = scaled.t() @ read
    if of_x:
        grad_x = rows @ weight
        if not of_dropped and ctx.of_read:
            grad_x.addmm_(scaled, lora_a)
        grad_x = grad_x.view(ctx.shape)
    if of_dropped:
        grad_dropped = (scaled @ lora_a).view(ctx.shape)
    return grad_x, grad_dropped, None, None, grad_a, grad_b, None
