"""Compiled layers give the vectors and the gradients of plain ones, dropout included."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn

from lusifer.errors import UsageError
from lusifer.model import adapters, compiled

HAS_COMPILER = any(map(shutil.which, compiled.COMPILERS))
"""On a machine without one, what is held is that the user is told so."""


def compile_or_be_told(model: nn.Module) -> bool:
    """Compile; False where that is refused for want of a compiler."""
    if HAS_COMPILER:
        assert compiled.compile_layers(model) == len(model.encoder.encoder.layer) + len(model.llm.layers)
        return True
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler"):
        compiled.compile_layers(model)
    return False


def gradients(model, *inputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The vectors of a pass without gradients, then gradients of one with them, dropout drawn from one seed twice."""
    torch.manual_seed(3)
    with torch.no_grad():
        first = model(*inputs).embedding
    torch.manual_seed(3)
    second = model(*inputs).embedding
    second.square().sum().backward()
    assert torch.allclose(first, second.detach(), atol=1e-5)  # the gradient cache stands on it
    return first, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_vectors_gradients_and_dropout_are_those_of_plain_layers(new_model, batch):
    model = new_model(num_soft_tokens=1)
    adapters.freeze(model, {"connector": True})
    for tower in adapters.TOWERS:
        adapters.attach(model, tower, 4, 8, 0.3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    plain, model = copy.deepcopy(model).train(), model.train()
    names = list(model.state_dict())
    if not compile_or_be_told(model):
        return
    assert list(model.state_dict()) == names
    expected, wanted = gradients(plain, *batch([9, 4]))
    found, grads = gradients(model, *batch([9, 4]))
    assert torch.allclose(found, expected, atol=1e-5)
    assert grads.keys() == wanted.keys()
    largest = max(float(grad.abs().max()) for grad in wanted.values())
    assert max(float((grads[name] - grad).abs().max()) for name, grad in wanted.items()) < 1e-5 * largest
    with torch.no_grad():
        assert not torch.equal(model(*batch([9, 4])).embedding, model(*batch([9, 4])).embedding)  # dropout is on


def test_what_cannot_be_compiled_is_refused(shared_model, monkeypatch):
    with pytest.raises(UsageError, match="no layers to compile"):
        compiled.compile_layers(nn.Linear(2, 2))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler.*install one"):
        compiled.compile_layers(shared_model())
