"""Run one step of a stage on tensors without memory, and count the memory and FLOPs that it would take.

torch's fake tensors have shapes and no numbers, so a step of a model of any size takes seconds. Every storage that an
operation makes is counted while it exists: tensors that autograd saves for the backward pass, gradients, and temporary
tensors. FLOPs are counted by the formulas of torch's own counter. The model's own code runs, so no formula for its
layers is needed.

Not counted are the workspace of kernels, the overhead of the allocator, and the memory of the process itself. "cuda" is
run without a GPU, and imitates it: dropout saves a mask of bytes, and attention saves neither scores nor their dropout.
"cpu" counts torch's CPU operations.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from lusifer.model import adapters
from lusifer.model.alignment import LusiferForAlignment, prefix_mask, target_positions
from lusifer.model.bases import backbones

if TYPE_CHECKING:
    from lusifer.model.lusifer import LusiferModel

Kind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Setting:
    """The settings of a stage that affect memory.

    Args:
        rows: The rows in memory at once.
        length: Their length in the encoder's tokens.
        target: Their length in the LLM's tokens, where it predicts or reads the text itself.
        predicts: Whether the LLM predicts a target.
        teacher: Whether the LLM also reads the text itself.
        repeated: Whether a step has several mini-batches, so that gradients exist while activations do.
        dtypes: Backbone -> dtype of its weights.
        bf16: Whether mixed precision is on.
        checkpointing: Whether gradient checkpointing is on.
        chunk: The labels whose logits are in memory at once.
    """

    rows: int
    length: int
    target: int
    predicts: bool
    teacher: bool
    repeated: bool
    dtypes: Mapping[str, torch.dtype] = field(hash=False)
    bf16: bool
    checkpointing: bool
    chunk: int


@dataclass(frozen=True)
class Counted:
    """The counts of a pass over `rows`: peak `bytes` without the weights, FLOPs of the `forward` pass, all `flops`."""

    rows: int
    bytes: float
    forward: float
    flops: float

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.rows, self.bytes + other.bytes, self.forward + other.forward, self.flops + other.flops)

    def __sub__(self, other: Counted) -> Counted:
        return self + other * -1

    def __mul__(self, times: float) -> Counted:
        return Counted(self.rows, self.bytes * times, self.forward * times, self.flops * times)


def _attention_flops(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward_flops(grad: torch.Tensor, *args: Any, **kwargs: Any) -> int:
    return sdpa_backward_flop_count(grad.shape, *(tensor.shape for tensor in args[:3]))


_FLOPS = flop_registry | {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
"""Operation -> formula: torch's own formulas, and ours for two operations that it does not have."""


_aten = torch.ops.aten
_PLAIN = {
    *(_aten.view.default, _aten._unsafe_view.default, _aten.t.default, _aten.detach.default, _aten.transpose.int),
    *(_aten.slice.Tensor, _aten.unsqueeze.default, _aten.expand.default, _aten.squeeze.dim, _aten.clone.default),
    *(_aten.mm.default, _aten.bmm.default, _aten.addmm.default, _aten._to_copy.default, _aten.zeros_like.default),
    *(_aten.empty_like.default, _aten.mul.Tensor, _aten.mul.Scalar, _aten.add.Tensor, _aten.add_.Tensor),
    *(_aten.div_.Scalar, _aten.neg.default, _aten.pow.Tensor_Scalar, _aten.sum.dim_IntList, _aten.bernoulli_.float),
}
"""Frequent operations whose results have the device of their tensors, and shapes from the kernel of the meta device."""


def _plain(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation of `_PLAIN` as `FakeTensorMode` does, without its general and much slower bookkeeping."""
    given = [each for each in args if isinstance(each, torch.Tensor)]
    kwargs = kwargs or {}
    if not all(type(each) is FakeTensor for each in given):
        return func(*args, **kwargs)
    mode, device = given[0].fake_mode, kwargs.get("device") or given[0].fake_device
    with in_kernel_invocation_manager(mode):
        out = func(*args, **{key: value for key, value in kwargs.items() if key != "device"})
    return given[0] if out is given[0] else FakeTensor(mode, out, device)


class Live(TorchDispatchMode):
    """Counts the bytes of storages that are made while it is active (`now` and `peak`), and `flops`.

    torch's `FlopCounterMode` has the same formulas, but its hooks on modules keep activations in memory.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would wrap every call, to keep a compiler out that does not run here

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.flops = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, and count its new storages and its FLOPs."""
        if func is torch.ops.prim.device.default:  # two thirds of all calls; makes no tensor
            return args[0].fake_device if isinstance(args[0], FakeTensor) else func(*args)
        self._watch(args, made=False)  # storages that existed before
        if kwargs:
            self._watch(kwargs, made=False)
        out = _plain(func, args, kwargs) if func in _PLAIN else func(*args, **(kwargs or {}))
        self._watch(out, made=True)
        formula = _FLOPS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out

    def _watch(self, tensors: Any, *, made: bool) -> None:
        if isinstance(tensors, torch.Tensor):
            storage = tensors.untyped_storage()
            if storage._cdata not in self._sizes:
                self._add(storage, storage.nbytes() if made else 0)
        elif isinstance(tensors, (tuple, list)):
            for each in tensors:
                self._watch(each, made=made)
        elif isinstance(tensors, dict):
            self._watch(list(tensors.values()), made=made)

    def _add(self, storage: torch.UntypedStorage, size: int) -> None:
        self._sizes[storage._cdata] = size
        weakref.finalize(storage, self._gone, storage._cdata)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


class _MaskDropout(nn.Module):
    """Dropout that saves a mask of one byte an element, as on a GPU."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply dropout in training mode."""
        return torch.native_dropout(x, self.p, True)[0] if self.training and self.p else x


def rehearse(make: Callable[[], LusiferModel], setting: Setting, kind: Kind) -> Counted:
    """Count the memory and FLOPs of one step, gradients included.

    Args:
        make: Builds the model with its adapters on the meta device.
        setting: The settings of the stage.
        kind: The kind of device.
    """
    model = make()
    for backbone in adapters.BACKBONES:
        _cast(getattr(model, backbone), setting.dtypes[backbone])
    with FakeTensorMode():
        _take_off_meta(model)
        llm = model.config.llm
        head = None
        if setting.predicts:
            head = nn.Linear(llm.hidden_size, llm.vocab_size, bias=False, dtype=model.llm.dtype).requires_grad_(False)
        if kind == "cuda":
            _as_on_a_gpu(model)
        if setting.checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        network = LusiferForAlignment(model.config, model, head)
        network.logits_chunk = setting.chunk
        network.train()
        with Live() as live:
            if setting.repeated:  # gradients of earlier mini-batches exist already
                for parameter in filter(lambda each: each.requires_grad, network.parameters()):
                    parameter.grad = torch.zeros_like(parameter)
            forward, flops = _step(network, setting, live)
    return Counted(setting.rows, live.peak, forward, flops)


def _step(network: LusiferForAlignment, setting: Setting, live: Live) -> tuple[int, int]:
    """Run the forward and the backward pass; return the FLOPs after the first and after both."""
    with torch.autocast("cpu", torch.bfloat16, enabled=setting.bf16):
        loss = _loss(network, setting)
    if setting.predicts:  # torch's operation hides the product with the LM head in the forward pass
        live.flops += 2 * setting.rows * setting.target * network.lm_head.weight.numel()
    forward = live.flops
    loss.backward()
    return forward, live.flops


def _loss(network: LusiferForAlignment, setting: Setting) -> torch.Tensor:
    """Run the forward pass of the stage; the comparisons of a loss take little memory and are left out."""
    model = network.model
    ids = torch.ones(setting.rows, setting.length, dtype=torch.long)
    mask = torch.ones_like(ids)
    own, own_mask = ids, mask
    if setting.target != setting.length:
        own = torch.ones(setting.rows, setting.target, dtype=torch.long)
        own_mask = torch.ones_like(own)
    words = model.llm.get_input_embeddings()
    if setting.teacher:
        places = torch.arange(setting.target).expand(setting.rows, -1)
        with torch.no_grad():
            model.run_llm(words(own), own_mask, places)
    if not setting.predicts:
        return model(ids, mask).embedding.sum()
    # `predict` selects the positions with labels, which needs numbers. Here all positions have labels.
    prompt = model.soft_prompt(ids, mask)
    embeds = torch.cat([prompt.inputs_embeds, words(own).to(prompt.inputs_embeds.dtype)], dim=1)
    keys = torch.cat([prompt.attention_mask, own_mask], dim=1)
    places = target_positions(prompt, own_mask, 0)
    visible = prefix_mask(keys, prompt.attention_mask.shape[1], model.llm.dtype)
    states = model.run_llm(embeds, visible, places)[:, -setting.target :].flatten(0, 1)
    return network._token_loss(states, own.flatten()).sum()


def _cast(backbone: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights of a backbone, and keep its adapters in float32."""
    backbones.cast_weights(backbone, dtype)
    for name, parameter in backbone.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()


def _take_off_meta(model: nn.Module) -> None:
    """Replace the tensors of the meta device, whose kernels differ, by fake tensors of the CPU."""
    made: dict[int, torch.Tensor] = {}  # a tensor that two modules share stays one
    for module in model.modules():
        for name, tensor in list(module.named_parameters(recurse=False)):
            if id(tensor) not in made:
                made[id(tensor)] = nn.Parameter(torch.empty(tensor.shape, dtype=tensor.dtype), tensor.requires_grad)
            module._parameters[name] = made[id(tensor)]
        for name, tensor in list(module.named_buffers(recurse=False)):
            module._buffers[name] = made.setdefault(id(tensor), torch.empty(tensor.shape, dtype=tensor.dtype))


def _as_on_a_gpu(model: LusiferModel) -> None:
    """Change modules so that they save the same tensors as on a GPU."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Dropout):
            model.set_submodule(name, _MaskDropout(module.p))
        for key in ("attention_dropout", "dropout_prob", "dropout_p"):
            if isinstance(getattr(module, key, None), float):
                setattr(module, key, 0.0)
    for backbone in adapters.BACKBONES:
        for module in getattr(model, backbone).modules():
            dropout = getattr(module, "dropout", None)
            if isinstance(dropout, _MaskDropout) and hasattr(module, "is_causal"):
                dropout.p = 0.0
