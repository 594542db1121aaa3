"""The adapted layer against peft's own forward pass."""

import copy
from types import MethodType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Linear
from torch import nn

from lusifer.model import adapters
from lusifer.model.lora import AdaptedLinear, AdaptedProduct
from lusifer.training.rehearsal import Live


def pair(bias=True, dropout=0.0, dtype=torch.float32, **settings):
    """Our layer and peft's with the same weights, both in training mode."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 10, bias=bias))
    config = LoraConfig(r=3, lora_alpha=7, lora_dropout=dropout, target_modules=["0"], **settings)
    theirs = inject_adapter_in_model(config, base.to(dtype))[0]
    nn.init.normal_(theirs.lora_B["default"].weight)
    ours = copy.deepcopy(theirs)
    ours.__class__ = AdaptedLinear
    assert type(theirs) is Linear
    return ours.train(), theirs.train()


def run(layer, x, seed=1, autocast=False):
    """Output, and gradients of the input and of all that trains."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    (y.float() * torch.arange(y.numel()).view(y.shape).cos()).sum().backward()
    return y.detach(), [x.grad] + [p.grad for _, p in sorted(layer.named_parameters()) if p.requires_grad]


def agree(ours, theirs, x, rtol=1e-5, **how):
    (y, gradients), (wanted, others) = run(ours, x, **how), run(theirs, x, **how)
    assert len(gradients) == len(others) >= 3
    for found, expected in zip([y, *gradients], [wanted, *others], strict=True):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * float(expected.abs().max()))


@pytest.fixture
def products(monkeypatch):
    """How often the product was computed our way."""
    calls, plain = [], AdaptedProduct.apply
    monkeypatch.setattr(AdaptedProduct, "apply", lambda *args: calls.append(args) or plain(*args))
    return calls


@settings(deadline=None, max_examples=40)
@given(
    shape=st.lists(st.integers(1, 4), min_size=0, max_size=3),
    bias=st.booleans(),
    dropout=st.sampled_from([0.0, 0.4]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    turned=st.booleans(),
)
def test_output_and_gradients_are_those_of_peft(shape, bias, dropout, dtype, turned):
    x = torch.randn(*shape, 6, dtype=dtype)
    if turned and len(shape) > 1:
        x = torch.randn(*shape[::-1], 6, dtype=dtype).transpose(0, len(shape) - 1)
        assert x.shape == (*shape, 6)
    ours, theirs = pair(bias, dropout, dtype)
    agree(ours, theirs, x)
    agree(ours.eval(), theirs.eval(), x)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_are_those_of_differences(dropout):
    x, dropped, weight, bias, a, b = (
        torch.randn(*shape, dtype=torch.float64) for shape in [(2, 4, 5), (2, 4, 5), (3, 5), (3,), (2, 5), (3, 2)]
    )
    trained = [x, *([dropped] if dropout else []), a, b]
    for tensor in trained:
        tensor.requires_grad_()

    def product(x, *rest):
        return AdaptedProduct.apply(x, rest[0] if dropout else None, weight, bias, *rest[-2:], 0.7)

    assert torch.autograd.gradcheck(product, trained)


def test_only_the_gradients_that_are_asked_for_are_computed():
    ours, _ = pair()
    ours.lora_A["default"].weight.requires_grad_(False)
    ours(torch.randn(4, 6)).sum().backward()  # the input needs none: the first layer of a frozen tower
    assert ours.lora_A["default"].weight.grad is None
    assert ours.lora_B["default"].weight.grad is not None
    assert ours.base_layer.weight.grad is None


def test_in_mixed_precision_it_computes_in_half_and_leaves_gradients_in_float32(products):
    ours, theirs = pair()
    agree(ours, theirs, torch.randn(5, 6), rtol=2e-2, autocast=True)
    assert {tensor.dtype for tensor in products[0] if torch.is_tensor(tensor)} == {torch.bfloat16}
    assert run(ours, torch.randn(5, 6), autocast=True)[0].dtype == torch.bfloat16


def test_a_half_precision_layer_with_float32_adapters_is_left_to_peft(products):
    ours, theirs = pair(dtype=torch.bfloat16)
    for layer in (ours, theirs):
        layer.lora_A.float(), layer.lora_B.float()
    x = torch.randn(5, 6, dtype=torch.bfloat16)
    assert torch.equal(run(ours, x)[0], run(theirs, x)[0])
    agree(ours, theirs, x)
    assert not products


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.enable_adapters(False) or layer.base_layer.requires_grad_(),
        lambda layer: layer.base_layer.requires_grad_(),
        lambda layer: layer.base_layer.bias.requires_grad_(),
        lambda layer: (
            layer.update_layer("second", 2, 4, config=LoraConfig(r=2, lora_alpha=4, init_lora_weights="gaussian"))
            or layer.set_adapter(["default", "second"])
        ),
    ],
    ids=["switched off", "weight trains", "bias trains", "two adapters"],
)
def test_what_is_no_plain_adapter_is_left_to_peft(products, change):
    layers = pair()
    for layer in layers:
        torch.manual_seed(2)
        change(layer)
    x = torch.randn(5, 6)
    for found, wanted in zip(run(layers[0], x)[1], run(layers[1], x)[1], strict=True):
        assert (found is None) == (wanted is None)
        assert found is None or torch.equal(found, wanted)
    assert not products


@pytest.mark.parametrize("kind", [{"use_dora": True}, {"lora_bias": True}], ids=["DoRA", "bias"])
def test_other_kinds_of_adapter_are_left_to_peft(products, kind):
    ours, theirs = pair(**kind)
    agree(ours, theirs, torch.randn(5, 6))
    assert not products


def test_merged_it_is_the_merged_layer(products):
    ours, _ = pair()
    x = torch.randn(5, 6)
    before = ours(x)
    assert len(products) == 1
    ours.merge()
    torch.testing.assert_close(ours(x), before)
    assert len(products) == 1


def made(layer, x):
    """Most bytes that a call makes and holds at once, its output included."""
    with torch.no_grad(), Live() as live:
        layer(x)
    return live.peak


def test_it_makes_no_second_output(monkeypatch):
    ours, theirs = pair()
    x = torch.randn(1000, 6)
    assert made(ours, x) == 4 * (1000 * 10 + 10 * 6)  # the output and the weight of the call
    assert made(ours, x[:3]) == 4 * 3 * (10 + 3)  # few rows: the output and the narrow product
    assert made(theirs, x) >= 4 * 1000 * (10 + 10 + 3)
    monkeypatch.setattr(torch, "is_grad_enabled", lambda: True)
    assert made(ours, x) == 4 * 1000 * (10 + 3)


def test_a_weight_is_made_for_a_call_only_where_nothing_is_lost_by_it(products):
    ours, theirs = pair(dropout=0.4)
    x = torch.randn(64, 6)
    with torch.no_grad():
        ours(x)  # in training mode the adapter reads other numbers than the layer
        assert len(products) == 1
        ours.eval()(x)
        assert len(products) == 1
        with torch.autocast("cpu", torch.bfloat16):
            ours(x)
        assert len(products) == 2
        torch.testing.assert_close(ours(x), theirs.eval()(x))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_trains_as_with_peft(new_model, batch, checkpointing):
    found = []
    for ours in (True, False):
        model = new_model(num_soft_tokens=1)
        torch.manual_seed(3)
        adapters.freeze(model, {"connector": True, "output_projection": True})
        for tower in adapters.TOWERS:
            adapters.attach(model, tower, 2, 4, dropout=0.3)
        layers = [layer for _, layer in adapters.lora_layers(model)]
        assert layers and all(type(layer) is AdaptedLinear for layer in layers)
        for layer in layers:
            nn.init.normal_(layer.lora_B["default"].weight, std=0.05)
            if not ours:
                layer.forward = MethodType(Linear.forward, layer)
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        torch.manual_seed(4)
        embedding = model.train()(*batch([5, 3])).embedding
        embedding.square().sum().backward()
        found.append((embedding, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}))
    (vector, gradients), (wanted, expected) = found
    torch.testing.assert_close(vector, wanted)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5, msg=name)
