"""Cross entropy of labelled positions from hidden states, with a frozen LM head and little memory.

A loss of one position depends on the state of that position alone, so its gradient is known as soon as its logits are:
it is computed with them and kept, d numbers a position, in place of the logits (vocabulary numbers) or of making them a
second time in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable


def token_loss(
    states: torch.Tensor, wanted: torch.Tensor, head: nn.Linear, chunk: int, cap: float | None = None
) -> torch.Tensor:
    """Cross entropy of each position, in float32; gradients reach the states only.

    Args:
        states: (N, d).
        wanted: (N,), the ids to predict.
        head: frozen linear layer d -> vocabulary.
        chunk: positions whose logits exist at once.
        cap: logits x become cap * tanh(x / cap) (Gemma's heads were trained so); None leaves them.

    Returns:
        (N,).

    Raises:
        ValueError: the head trains; it would get no gradient.
    """
    if torch.is_grad_enabled() and head.weight.requires_grad:
        raise ValueError("the LM head trains, and this loss gives gradients to the states only: freeze it")
    return _TokenLoss.apply(states, wanted, head.weight, head.bias, chunk, cap)


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        wanted: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        chunk: int,
        cap: float | None,
    ) -> torch.Tensor:
        losses = torch.empty(len(states), dtype=torch.float32, device=states.device)
        gradient = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for start in range(0, len(states), chunk):
            part = slice(start, start + chunk)
            logits = nn.functional.linear(states[part].to(weight.dtype), weight, bias).float()
            # `slope` is what the cap makes of a change of the logits.
            slope = None
            if cap:
                logits = logits.div_(cap).tanh_()
                slope = 1 - logits.square() if gradient is not None else None
                logits.mul_(cap)
            ids = wanted[part, None]
            # In place from here on: one array of (chunk, vocabulary) floats.
            logits.sub_(logits.amax(dim=1, keepdim=True))
            picked = logits.gather(1, ids)
            total = logits.exp_().sum(dim=1, keepdim=True)
            losses[part] = (total.log() - picked).squeeze(1)
            if gradient is None:
                continue
            change = logits.div_(total).scatter_add_(1, ids, torch.full_like(picked, -1.0))
            if slope is not None:
                change.mul_(slope)
            gradient[part] = (change.to(weight.dtype) @ weight).to(states.dtype)
        ctx.gradient = gradient
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient = ctx.gradient
        if gradient is not None:
            gradient = (gradient * upstream.unsqueeze(1)).to(gradient.dtype)
        return gradient, None, None, None, None, None
