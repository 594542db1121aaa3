"""What the adapted layer computes, makes and holds: no more than it needs."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from lusifer.training.estimate.rehearsal import Live
from support.lora_layers import pair


class Products(TorchDispatchMode):
    """Counts matrix products while it is on."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("wanted", "count"),
    [("x A B", 5), ("A B", 3), ("A", 2), ("B", 1), ("x", 3)],  # x: of the layer, of A's output, and through A
)
def test_only_the_gradients_that_are_asked_for_are_computed(wanted, count):
    ours, _ = pair()
    ours.lora_A["default"].weight.requires_grad_("A" in wanted)
    ours.lora_B["default"].weight.requires_grad_("B" in wanted)
    x = torch.randn(4, 6, requires_grad="x" in wanted)
    loss = ours(x).sum()
    with Products() as products:
        loss.backward()
    assert products.count == count
    found = {"x": x.grad, "A": ours.lora_A["default"].weight.grad, "B": ours.lora_B["default"].weight.grad}
    assert {name for name, gradient in found.items() if gradient is not None} == set(wanted.split())
    assert ours.base_layer.weight.grad is None


def made(layer, x):
    """Most bytes that a call makes and holds at once, its output included."""
    with torch.no_grad(), Live() as live:
        layer(x)
    return live.peak


def test_it_makes_no_second_output(monkeypatch):
    ours, theirs = pair()
    x = torch.randn(2, 500, 6)
    assert made(ours, x) == 4 * (1000 * 10 + 10 * 6)  # the output and the weight of the call
    assert made(ours, x[0, :7]) == 4 * 7 * (10 + 3)  # few rows: the output and the narrow product
    assert made(ours, x[0, :8]) == 4 * (8 * 10 + 10 * 6)  # 2 x 60 multiplications against 8 x 16
    assert made(theirs, x) >= 4 * 1000 * (10 + 10 + 3)
    monkeypatch.setattr(torch, "is_grad_enabled", lambda: True)
    assert made(ours, x) == 4 * 1000 * (10 + 3)


def test_a_weight_that_is_much_larger_than_the_output_is_not_made():
    ours, _ = pair(size=(40, 4))
    x = torch.randn(20, 40)
    assert made(ours, x) == 4 * (20 * 4 + 40 * 4)
    # peft makes two outputs more: 2 x 19 x 4 numbers, where the weight has 160
    assert made(ours, x[:19]) == 4 * 19 * (4 + 3)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("trained", [True, False], ids=["input trains", "input is frozen"])
def test_no_more_is_held_for_the_backward_pass_than_by_peft(autocast, dropout, trained):
    held = []
    for layer in pair(dropout=dropout):
        x = torch.randn(1000, 6, requires_grad=trained)
        with Live() as live, torch.autocast("cpu", autocast, enabled=autocast is not None):
            y = layer(x)
        held.append(live.now)
        del y
    assert 0 < held[0] <= held[1]


def test_compiled_it_is_one_graph_for_all_numbers_of_rows():
    ours, theirs = pair()
    counter = CompileCounter()
    compiled = torch.compile(ours, backend=counter, dynamic=True, fullgraph=True)
    with torch.no_grad():
        for rows in (3, 7, 8, 50, 1000):
            x = torch.randn(2, rows, 6)
            torch.testing.assert_close(compiled(x), theirs(x))
    assert counter.frame_count == 1
