"""A linear layer with a LoRA adapter as one function: y = x Wᵀ + b + s (x Aᵀ) Bᵀ (LoRA, arXiv 2106.09685, section 4.1).

peft adds the adapter's output to the layer's in two operations of their own, forward and backward, each of which reads
and writes everything once more. Here the last product adds to what is there already, so nothing as large as the layer's
output is made besides it. Without gradients and with many rows, the adapter is put into a weight made for the call,
which is less work than two narrow products. All are the same sum: `tests/model/test_lora.py` holds them against peft.

Imported by `adapters.attach` only, since peft takes long to import.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable


class AdaptedLinear(Linear):
    """peft's layer, its forward pass by `AdaptedProduct` wherever that computes the same."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the layer.

        Args:
            x: (..., in), any floating-point format.
            *args: of peft's own forward pass, which is taken if there are any.
            **kwargs: likewise.

        Returns:
            (..., out).
        """
        base, active = self.base_layer, self.active_adapters
        if args or kwargs or type(base) is not nn.Linear or len(active) != 1 or active[0] not in self.lora_A:
            return super().forward(x, *args, **kwargs)
        (name,) = active
        weights = [base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight]
        if not self._plain(name, weights):
            return super().forward(x)
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, *weights = (None if tensor is None else tensor.to(dtype) for tensor in (x, *weights))
        if any(tensor is not None and tensor.dtype != x.dtype for tensor in weights):
            return super().forward(x)  # peft brings the formats together
        dropped = self.lora_dropout[name](x)
        if dropped is x and _folding_pays(x, weights[0]):
            weight, bias, lora_a, lora_b = weights
            return nn.functional.linear(x, torch.addmm(weight, lora_b, lora_a, alpha=self.scaling[name]), bias)
        return AdaptedProduct.apply(x, None if dropped is x else dropped, *weights, self.scaling[name])

    def _plain(self, name: str, weights: list[torch.Tensor | None]) -> bool:
        """Whether the layer is W frozen and A, B beside it, and no more."""
        special = self.disable_adapters or self.merged or name in self.lora_variant or self.lora_bias[name]
        return not special and not any(weight is not None and weight.requires_grad for weight in weights[:2])


def _folding_pays(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether W + s B A is less work than two narrow products: r (out in) against r rows (out + in) multiplications.

    Only where no gradient is wanted, as in the first pass of a gradient cache, and not in half precision, where most of
    the update would be rounded away.
    """
    wide, rows = weight.shape[0] * weight.shape[1], x.numel() // x.shape[-1]
    return not torch.is_grad_enabled() and x.dtype.itemsize >= 4 and wide < rows * sum(weight.shape)


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
        y = nn.functional.linear(rows, weight, bias).addmm_(narrow, lora_b.t(), alpha=scale)
        ctx.save_for_backward(read, narrow, weight, lora_a, lora_b)
        ctx.scale, ctx.shape, ctx.same = scale, x.shape, dropped is None
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, of `dropped`, of A and of B; the rest is frozen."""
        read, narrow, weight, lora_a, lora_b = ctx.saved_tensors
        of_x, of_dropped, _, _, of_a, of_b, _ = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        grad_x = grad_dropped = grad_a = grad_b = None
        if of_b:
            grad_b = (rows.t() @ narrow).mul_(ctx.scale)
        scaled = (rows @ lora_b).mul_(ctx.scale)  # gradient of `narrow`
        if of_a:
            grad_a = scaled.t() @ read
        if of_x:
            grad_x = rows @ weight
            if ctx.same:
                grad_x.addmm_(scaled, lora_a)
            grad_x = grad_x.view(ctx.shape)
        if of_dropped:
            grad_dropped = (scaled @ lora_a).view(ctx.shape)
        return grad_x, grad_dropped, None, None, grad_a, grad_b, None
