import pytest
import torch

from lusifer.errors import LusiferError, UsageError
from lusifer.model import adapters
from lusifer.model.bases import backbones
from lusifer.model.lusifer import LusiferModel


@pytest.fixture
def adapted(new_model):
    """A model with adapters that do something, as if trained."""

    def make(**settings):
        model = new_model(num_soft_tokens=1, **settings)
        adapters.freeze(model, {"connector": True, "output_projection": True})
        adapters.attach(model, "encoder", 2, 4)
        adapters.attach(model, "llm", 4, 8)
        shake(model)
        return model.eval()

    return make


def shake(model, seed=0, size=0.05):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


def test_what_trains_is_what_is_reported_and_saved(adapted):
    model = adapted()
    rows = {row.part: row for row in adapters.report(model)}
    saved = adapters.trainable_state_dict(model)
    assert sum(row.trainable for row in rows.values()) == sum(tensor.numel() for tensor in saved.values())
    assert sum(row.trainable_tensors for row in rows.values()) == len(saved)
    assert rows["connector"].trainable == rows["connector"].parameters > 0
    assert rows["output_projection"].trainable == rows["output_projection"].parameters > 0
    # XLM-R: six linear layers in each of two blocks; Mistral: seven. Two tensors a layer.
    assert (rows["encoder"].trainable_tensors, rows["llm"].trainable_tensors) == (2 * 6 * 2, 2 * 7 * 2)
    assert all(".lora_" in key for key in saved if key.startswith(("encoder.", "llm.")))


def test_everything_that_trains_gets_a_gradient(adapted, batch):
    model = adapted()
    model(*batch([5, 3])).embedding.sum().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_saved_and_loaded_into_a_fresh_model_it_is_the_same(adapted, batch):
    trained, fresh = adapted(), adapted()
    shake(trained, 1)
    source = batch([5, 3])
    with torch.no_grad():
        wanted = trained(*source).embedding
        assert not torch.equal(fresh(*source).embedding, wanted)
        adapters.load_trainable_state_dict(fresh, adapters.trainable_state_dict(trained))
        assert torch.equal(fresh(*source).embedding, wanted)


def test_a_saved_state_is_a_copy(adapted):
    model = adapted()
    saved = adapters.trainable_state_dict(model)
    before = {key: tensor.clone() for key, tensor in saved.items()}
    shake(model, 1)
    assert all(torch.equal(saved[key], before[key]) for key in saved)


def test_a_state_that_does_not_fit_is_refused_by_name(adapted):
    model = adapted()
    whole = adapters.trainable_state_dict(model)
    first = sorted(whole)[0]
    for change, message in (
        (lambda t: t.pop("connector.soft_tokens"), "1 missing .connector.soft_tokens."),
        (lambda t: t.update(extra=torch.ones(1)), "1 unknown .extra."),
        (lambda t: t.update({first: torch.ones(1)}), "of another shape"),
    ):
        tensors = dict(whole)
        change(tensors)
        with pytest.raises(LusiferError, match=message):
            adapters.load_trainable_state_dict(model, tensors)
    assert all(torch.equal(whole[key], tensor) for key, tensor in adapters.trainable_state_dict(model).items())


def test_merged_equals_unmerged(adapted, batch):
    model, source = adapted(), batch([5, 3])
    with torch.no_grad():
        wanted = model(*source).embedding
        assert adapters.merge(model) == 2 * 6 + 2 * 7
        assert (model(*source).embedding - wanted).abs().max() < 1e-6
    assert not any(adapters.adapted_layers(model))
    assert set(model.state_dict()) == set(LusiferModel(model.config).state_dict())


def test_a_merged_state_dict_leaves_the_model_as_it_is(adapted, batch):
    model, source = adapted(), batch([5, 3])
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    merged = adapters.merged_state_dict(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    plain = LusiferModel(model.config).eval()
    plain.load_state_dict(merged)
    with torch.no_grad():
        assert (plain(*source).embedding - model(*source).embedding).abs().max() < 1e-6


def test_a_saved_folder_is_merged_and_loads_as_a_plain_model(adapted, batch, tmp_path):
    model, source = adapted(), batch([5, 3])
    model.save_pretrained(tmp_path)
    assert any(adapters.adapted_layers(model)), "saving must not merge the model in memory"
    loaded = LusiferModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        found, wanted = loaded(*source).embedding, model(*source).embedding
    assert (found - wanted).abs().max() < 1e-6
    adapters.merge(model)
    with torch.no_grad():
        assert torch.equal(model(*source).embedding, found)


def test_adapters_on_a_half_precision_base_stay_float32(new_model, batch):
    model = new_model()
    for parameter in model.llm.parameters():
        parameter.data = parameter.data.bfloat16()
    adapters.freeze(model, {"connector": True})
    adapters.attach(model, "llm", 2, 4)
    dtypes = {p.dtype for name, p in model.llm.named_parameters() if p.requires_grad}
    assert dtypes == {torch.float32}
    assert {p.dtype for p in model.llm.parameters() if not p.requires_grad} == {torch.bfloat16}
    shake(model)
    model(*batch([5, 3])).embedding.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.llm.parameters() if p.requires_grad)


def test_a_half_precision_base_keeps_what_the_adapters_learned(new_model):
    """One bfloat16 step is 2^-8 of a weight: merged in that format, small updates would vanish without a message."""
    model = new_model()
    backbones.cast_weights(model.llm, torch.bfloat16)
    before = {name: p.detach().float() for name, p in model.llm.named_parameters()}
    adapters.freeze(model, {})
    adapters.attach(model, "llm", 2, 4)
    shake(model, size=1e-3)
    deltas = {name: layer.get_delta_weight("default") for name, layer in adapters.adapted_layers(model)}
    name = "llm.layers.0.mlp.up_proj"
    base = before["layers.0.mlp.up_proj.weight"]
    rounded = (base + deltas[name]).bfloat16().float() - base
    assert (rounded - deltas[name]).norm() > 0.3 * deltas[name].norm()  # what half precision would have left
    merged = adapters.merged_state_dict(model)
    assert (merged[f"{name}.weight"] - base - deltas[name]).norm() < 1e-4 * deltas[name].norm()
    assert {tensor.dtype for key, tensor in merged.items() if key.startswith("llm.")} == {torch.float32}
    adapters.merge(model)
    assert all(torch.equal(tensor, merged[key]) for key, tensor in model.state_dict().items())


def test_the_update_is_scaled_by_alpha_over_rank(new_model):
    model = new_model()
    adapters.attach(model, "llm", 4, 12)
    shake(model)
    layer = model.llm.layers[0].self_attn.q_proj
    wanted = layer.base_layer.weight + 3 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    adapters.merge(model)
    assert torch.allclose(model.llm.layers[0].self_attn.q_proj.weight, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("targets", "count"),
    (("all-linear", 14), (["q_proj", "v_proj"], 4), (r".*layers\.1\..*_proj", 7), (["layers.0.mlp.up_proj"], 1)),
)
def test_targets_by_name_by_expression_and_all(targets, count, new_model):
    model = new_model()
    adapters.attach(model, "llm", 2, 4, targets=targets)
    assert len(list(adapters.adapted_layers(model.llm))) == count


def test_wrong_calls_are_refused(new_model):
    model = new_model()
    with pytest.raises(UsageError, match=r"lora.llm.targets=\['query'\]: matches no linear layer of the llm"):
        adapters.attach(model, "llm", 2, 4, targets=["query"])
    adapters.attach(model, "llm", 2, 4)
    with pytest.raises(UsageError, match="the llm already has adapters"):
        adapters.attach(model, "llm", 2, 4)


def test_a_merge_that_is_not_finite_is_refused(adapted):
    model = adapted()
    with torch.no_grad():
        model.llm.layers[0].mlp.up_proj.lora_B["default"].weight[0, 0] = float("inf")
    with pytest.raises(LusiferError, match="layers.0.mlp.up_proj gives NaN or infinite weights"):
        adapters.merge(model)


@pytest.mark.parametrize("training", [True, False])
def test_adapters_are_in_the_mode_of_their_model(new_model, training):
    model = new_model().train(training)
    adapters.attach(model, "llm", 2, 4, dropout=0.5)
    assert {module.training for module in model.modules()} == {training}


def test_in_mixed_precision_the_input_of_an_adapter_is_cast_once(new_model, batch):
    model = new_model()
    adapters.attach(model, "llm", 2, 4)
    backbones.cast_weights(model.llm, torch.bfloat16)
    shake(model)
    found = {}
    for once in (True, False):
        read = []
        for _, layer in adapters.adapted_layers(model):
            layer.lora_A.float(), layer.lora_B.float()
            layer.lora_A["default"].register_forward_pre_hook(lambda _, inputs, read=read: read.append(inputs[0].dtype))
            if not once:
                layer._forward_pre_hooks.clear()  # as peft does it
                layer.cast_input_dtype_enabled = True
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.train()(*batch([5, 3])).embedding.square().sum()
        loss.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad(set_to_none=True)
        found[once] = (loss.detach(), gradients, set(read))
    assert found[True][2] == {torch.bfloat16} and torch.float32 in found[False][2]
    assert torch.equal(found[True][0], found[False][0])
    assert all(torch.equal(one, other) for one, other in zip(found[True][1], found[False][1], strict=True))


def test_without_mixed_precision_half_precision_layers_take_float32_adapters(new_model, batch):
    model = new_model()
    adapters.attach(model, "llm", 2, 4)
    backbones.cast_weights(model.llm, torch.bfloat16)
    for _, layer in adapters.adapted_layers(model):
        layer.lora_A.float(), layer.lora_B.float()
    assert torch.isfinite(model(*batch([5, 3])).embedding).all()
