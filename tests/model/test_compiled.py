"""Compiled layers give the vectors and the gradients of plain ones, dropout included."""

from __future__ import annotations

import copy
import os
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from lusifer.errors import UsageError
from lusifer.model import adapters
from lusifer.model.bases import backbones

pytestmark = pytest.mark.slow

HEADERS = Path(sysconfig.get_path("include"), "Python.h")
CAN_COMPILE = shutil.which(os.environ.get("CXX", "g++")) is not None and HEADERS.is_file()
"""On a machine that cannot, what is held is that the user is told so."""
ADAPTED = {"encoder": ["query", "intermediate.dense"], "llm": ["q_proj", "down_proj"]}
"""One layer of attention and one of the feed-forward part stand for all, which would compile for twice as long."""


def compile_or_be_told(model: nn.Module) -> bool:
    """Compile; False where that is refused for want of a compiler."""
    if CAN_COMPILE:
        assert backbones.compile_layers(model) == len(model.encoder.encoder.layer) + len(model.llm.layers)
        return True
    with pytest.raises(UsageError, match=r"torch cannot compile here.*install a C\+\+ compiler"):
        backbones.compile_layers(model)
    return False


def gradients(model, *inputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The vectors of a pass without gradients, then gradients of one with them, dropout drawn from one seed twice."""
    model.zero_grad()
    torch.manual_seed(3)
    with torch.no_grad():
        first = model(*inputs).embedding
    torch.manual_seed(3)
    second = model(*inputs).embedding
    second.square().sum().backward()
    assert torch.allclose(first, second.detach(), atol=1e-5)  # the gradient cache stands on it
    return first, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_vectors_gradients_and_dropout_are_those_of_plain_layers(new_model, batch):
    model = new_model(num_soft_tokens=1)
    adapters.freeze(model, {"connector": True})
    for backbone, targets in ADAPTED.items():
        adapters.attach(model, backbone, 4, 8, 0.3, targets)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    plain, model = copy.deepcopy(model).train(), model.train()
    names = list(model.state_dict())
    if not compile_or_be_told(model):
        return
    assert list(model.state_dict()) == names
    for checkpointing in (False, True):  # of one model: most of what is compiled serves both
        if checkpointing:
            for each in (plain, model):
                each.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        graphs = []
        for lengths in ([9, 4], [5, 3, 2], [12, 7, 7, 1]):
            expected, wanted = gradients(plain, *batch(lengths))
            found, grads = gradients(model, *batch(lengths))
            graphs.append(counters["stats"]["unique_graphs"])
            assert torch.allclose(found, expected, atol=1e-5)
            assert grads.keys() == wanted.keys()
            largest = max(float(grad.abs().max()) for grad in wanted.values())
            assert max(float((grads[name] - grad).abs().max()) for name, grad in wanted.items()) < 1e-5 * largest
        assert graphs[0] == graphs[-1]  # other sizes are no other code
    with torch.no_grad():
        assert not torch.equal(model(*batch([9, 4])).embedding, model(*batch([9, 4])).embedding)  # dropout is on


def test_what_cannot_be_compiled_is_refused(shared_model, monkeypatch):
    with pytest.raises(UsageError, match="no layers that can be compiled"):
        backbones.compile_layers(nn.Linear(2, 2))

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("\nno compiler\nand much more")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(UsageError, match=r"cannot compile here \(no compiler\): .*C\+\+ compiler.*remove compile"):
        backbones.compile_layers(shared_model())
