"""Losses and gradients in chunks are those of the plain cross entropy."""

import pytest
import torch
from torch import nn

from lusifer.model.alignment import token_loss


def plain(states, wanted, head, cap):
    logits = head(states)
    if cap:
        logits = torch.tanh(logits / cap) * cap
    return nn.functional.cross_entropy(logits, wanted, reduction="none")


@pytest.mark.parametrize("chunk", [1, 7, 100])
@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_gradient_are_those_of_plain_cross_entropy(chunk, cap, bias):
    torch.manual_seed(0)
    head = nn.Linear(12, 40, bias=bias).requires_grad_(False)
    states, wanted, weights = 5 * torch.randn(20, 12), torch.randint(40, (20,)), torch.rand(20)
    found = []
    for loss in (lambda s: token_loss(s, wanted, head, chunk, cap), lambda s: plain(s, wanted, head, cap)):
        leaf = states.clone().requires_grad_()
        losses = loss(leaf)
        (losses * weights).sum().backward()  # a weight a position: the losses may be summed in any way
        found.append((losses.detach(), leaf.grad))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-5)
    assert found[0][1].abs().max() > 0.1


def test_a_half_precision_head_takes_float32_states_and_the_other_way_round():
    torch.manual_seed(0)
    for of_head, of_states in ((torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)):
        head = nn.Linear(12, 40, bias=False).to(of_head).requires_grad_(False)
        states = torch.randn(20, 12).to(of_states).requires_grad_()
        losses = token_loss(states, torch.zeros(20, dtype=torch.long), head, 8)
        losses.sum().backward()
        wanted = plain(states.detach().float(), torch.zeros(20, dtype=torch.long), head.float(), None)
        assert losses.dtype == torch.float32 and states.grad.dtype == of_states
        assert torch.allclose(losses, wanted, atol=0.05)


def test_logits_far_from_0_stay_finite():
    head = nn.Linear(1, 3, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[1e4], [-1e4], [0.0]]))
    states = torch.ones(2, 1, requires_grad=True)
    losses = token_loss(states, torch.tensor([0, 1]), head, 8)
    losses.sum().backward()
    assert losses.tolist() == [0.0, 2e4] and torch.isfinite(states.grad).all()


def test_a_head_that_trains_is_refused():
    with pytest.raises(ValueError, match="freeze it"):
        token_loss(torch.ones(1, 2), torch.zeros(1, dtype=torch.long), nn.Linear(2, 3), 8)
