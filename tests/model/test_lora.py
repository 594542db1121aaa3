"""The adapted layer against peft's own forward pass."""

from types import MethodType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.lora.layer import Linear
from torch import nn

from lusifer.model import adapters
from lusifer.model.lora import AdaptedLinear, AdaptedProduct
from support.lora_layers import agree, pair, run


@pytest.fixture
def products(monkeypatch):
    """How often the product was computed our way."""
    calls, plain = [], AdaptedProduct.apply
    monkeypatch.setattr(AdaptedProduct, "apply", lambda *args: calls.append(args) or plain(*args))
    return calls


@settings(deadline=None, max_examples=40)
@given(
    shape=st.lists(st.integers(0, 4), min_size=0, max_size=3),
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
    ours, theirs = pair(bias=bias, dropout=dropout, dtype=dtype)
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


def test_the_output_can_be_changed_in_place():
    ours, theirs = pair()
    changed = [nn.Sequential(layer, nn.ReLU(inplace=True)) for layer in (ours, theirs)]
    agree(*changed, torch.randn(2, 5, 6))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_mixed_precision_it_computes_in_half_and_leaves_gradients_in_float32(products, dtype):
    ours, theirs = pair()
    agree(ours, theirs, torch.randn(5, 6), rtol=2e-2, autocast=dtype)
    assert {tensor.dtype for tensor in products[0] if torch.is_tensor(tensor)} == {dtype}
    assert run(ours, torch.randn(5, 6), autocast=dtype)[0].dtype == dtype


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_mixed_precision_that_is_on_for_the_backward_pass_alone_changes_nothing(dropout):
    gradients = []
    for on in (False, True):
        ours, _ = pair(dropout=dropout)
        torch.manual_seed(1)
        x = torch.randn(5, 6, requires_grad=True)
        y = ours(x)
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            y.sum().backward()
        gradients.append((x.grad, ours.lora_A["default"].weight.grad, ours.lora_B["default"].weight.grad))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_double_precision_stays_what_it_is_in_mixed_precision():
    agree(*pair(dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64), autocast=torch.bfloat16)


def test_a_half_precision_layer_with_float32_adapters_is_left_to_peft(products):
    ours, theirs = pair(dtype=torch.bfloat16)
    for layer in (ours, theirs):
        layer.lora_A.float(), layer.lora_B.float()
    x = torch.randn(5, 6, dtype=torch.bfloat16)
    assert torch.equal(run(ours, x)[0], run(theirs, x)[0])
    agree(ours, theirs, x)
    assert not products


def second(layer):
    """A second adapter beside the first, both in use."""
    settings = LoraConfig(r=2, lora_alpha=4, init_lora_weights="gaussian")
    layer.update_layer("second", 2, 4, config=settings)
    layer.set_adapter(["default", "second"])


def doubled(module, args, output):
    return 2 * output


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({}, lambda layer: setattr(layer, "_disable_adapters", True)),
        ({}, lambda layer: layer.base_layer.weight.requires_grad_()),
        ({}, lambda layer: layer.base_layer.bias.requires_grad_()),
        ({"bias": False}, lambda layer: layer.base_layer.weight.requires_grad_()),
        ({}, second),
        ({}, lambda layer: setattr(layer, "_active_adapter", ["absent"])),
        ({"use_dora": True}, lambda layer: None),
        ({"lora_bias": True}, lambda layer: None),
        ({}, lambda layer: layer.lora_A["default"].register_forward_hook(doubled)),
        ({}, lambda layer: layer.lora_B["default"].register_forward_pre_hook(lambda _, args: 2 * args[0])),
        ({}, lambda layer: setattr(layer.base_layer, "forward", lambda x: x.repeat(1, 2)[:, :10])),
    ],
    ids="off weight bias weight-alone two absent DoRA lora-bias hook pre-hook replaced".split(),
)
def test_what_is_no_plain_adapter_is_left_to_peft(products, settings, change):
    layers = pair(**settings)
    for layer in layers:
        torch.manual_seed(2)
        change(layer)
    x = torch.randn(5, 6)
    (y, gradients), (wanted, expected) = run(layers[0], x), run(layers[1], x)
    assert torch.equal(y, wanted) and not products
    for found, other in zip(gradients, expected, strict=True):
        assert (found is None) == (other is None)
        assert found is None or torch.equal(found, other)


def test_peft_gets_what_only_it_understands(products):
    ours, theirs = pair()
    x = torch.randn(2, 6)
    mixed = {"adapter_names": ["default", "__base__"]}
    assert torch.equal(ours(x, **mixed), theirs(x, **mixed)) and not products


def test_layers_of_another_kind_keep_pefts_class(new_model):
    class Eight(nn.Linear):
        pass

    model = new_model()
    layer = model.llm.layers[0].self_attn.q_proj
    layer.__class__ = Eight
    adapters.attach(model, "llm", 2, 4, targets=["q_proj"])
    kinds = [type(layer) for _, layer in adapters.lora_layers(model)]
    assert kinds == [Linear, *[AdaptedLinear] * (len(kinds) - 1)] and len(kinds) > 1


def test_merged_it_is_the_merged_layer(products):
    ours, _ = pair()
    x = torch.randn(5, 6)
    before = ours(x)
    assert len(products) == 1
    ours.merge()
    torch.testing.assert_close(ours(x), before)
    assert len(products) == 1


def test_shapes_can_be_told_without_numbers():
    ours, _ = pair()
    assert ours.to("meta")(torch.randn(4, 6, device="meta")).shape == (4, 10)


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
