"""An adapted layer of ours and of peft, and what both give."""

import copy

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Linear
from torch import nn

from lusifer.model.lora import AdaptedLinear


def pair(size=(6, 10), bias=True, dropout=0.0, dtype=torch.float32, **settings):
    """Our layer and peft's with the same weights, both in training mode."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(*size, bias=bias))
    config = LoraConfig(r=3, lora_alpha=7, lora_dropout=dropout, target_modules=["0"], **settings)
    theirs = inject_adapter_in_model(config, base.to(dtype))[0]
    nn.init.normal_(theirs.lora_B["default"].weight)
    ours = copy.deepcopy(theirs)
    ours.__class__ = AdaptedLinear
    assert type(theirs) is Linear
    return ours.train(), theirs.train()


def run(layer, x, seed=1, autocast=None):
    """Output, and gradients of the input and of all that trains."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        y = layer(x)
    (y.float() * torch.arange(y.numel()).view(y.shape).cos()).sum().backward()
    return y.detach(), [x.grad] + [p.grad for _, p in sorted(layer.named_parameters()) if p.requires_grad]


def agree(ours, theirs, x, rtol=1e-5, **how):
    (y, gradients), (wanted, others) = run(ours, x, **how), run(theirs, x, **how)
    assert len(gradients) == len(others) >= 3
    for found, expected in zip([y, *gradients], [wanted, *others], strict=True):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        largest = float(expected.abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * largest)
