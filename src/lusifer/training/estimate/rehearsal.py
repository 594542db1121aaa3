"""One step of a stage on tensors without memory: what torch would hold, counted while the model's own code runs.

torch's fake tensors have shapes and no numbers, so a step of a model of any size is rehearsed in seconds. Every storage
that an operation makes is counted while it lives: what autograd keeps for the backward pass, gradients, what comes and
goes within an operation. FLOPs are counted by the formulas of torch's own counter. A formula would have to know
the layers; this reads them from the code that trains.

Not seen: what a library's kernel takes inside one operation, what the allocator holds beside what was asked for, and
the memory of the process itself. "cuda" is rehearsed without a GPU: dropout keeps a mask of bytes and attention neither
scores nor their dropout, as there; "cpu" is what torch's CPU operations do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils import _pytree as trees
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
    """What a stage does to memory.

    `rows` and `length` of what is in memory at once; whether the LLM `predicts` a target of the same length, `chunk`
    labels at a time, or reads the text itself as `teacher`; `repeated`: whether a step has more than one such part, so
    that gradients are there while activations are; `dtypes` of the towers' weights.
    """

    rows: int
    length: int
    predicts: bool
    teacher: bool
    repeated: bool
    dtypes: Mapping[str, torch.dtype] = field(hash=False)
    bf16: bool
    checkpointing: bool
    chunk: int


@dataclass(frozen=True)
class Counted:
    """Of one pass over `rows`: the most `bytes` at once, beside the weights, and FLOPs, those `forward` apart."""

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
"""By operation: torch's own formulas, and those of the operations that it has none for."""


class Live(TorchDispatchMode):
    """Counts the bytes of storages made while it is on (`now`, and the most at once, `peak`) and `flops`.

    torch's `FlopCounterMode` has the same formulas, but its hooks on modules keep activations alive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.flops = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count what it made and what it computed."""
        self._watch((args, kwargs), made=False)  # what was there before
        out = func(*args, **(kwargs or {}))
        self._watch(out, made=True)
        formula = _FLOPS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out

    def _watch(self, tensors: Any, *, made: bool) -> None:
        for tensor in trees.tree_leaves(tensors):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._sizes:
                self._add(tensor.untyped_storage(), tensor.untyped_storage().nbytes() if made else 0)

    def _add(self, storage: torch.UntypedStorage, size: int) -> None:
        self._sizes[storage._cdata] = size
        weakref.finalize(storage, self._gone, storage._cdata)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


class _MaskDropout(nn.Module):
    """Dropout that keeps a mask of one byte an element, as on a GPU."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop elements while training."""
        return torch.native_dropout(x, self.p, True)[0] if self.training and self.p else x


def rehearse(make: Callable[[], LusiferModel], setting: Setting, kind: Kind) -> Counted:
    """Count one step, gradients included; `make` builds the model with its adapters on the meta device."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = make()
    for tower in adapters.TOWERS:
        _cast(getattr(model, tower), setting.dtypes[tower])
    with FakeTensorMode(), torch.device("cpu"):
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
            if setting.repeated:  # a part that is not the first finds the gradients of those before
                for parameter in filter(lambda each: each.requires_grad, network.parameters()):
                    parameter.grad = torch.zeros_like(parameter)
            forward, flops = _step(network, setting, live)
    return Counted(setting.rows, live.peak, forward, flops)


def _step(network: LusiferForAlignment, setting: Setting, live: Live) -> tuple[int, int]:
    """Go forward and backward; the FLOPs counted so far after the first and after both."""
    with torch.autocast("cpu", torch.bfloat16, enabled=setting.bf16):
        loss = _loss(network, setting)
    if setting.predicts:  # the library's operation hides the product with the LM head; backward it makes it again
        live.flops += 2 * setting.rows * setting.length * network.lm_head.weight.numel()
    forward = live.flops
    loss.backward()
    return forward, live.flops


def _loss(network: LusiferForAlignment, setting: Setting) -> torch.Tensor:
    """The stage's forward pass; which rows a loss compares hardly matters to memory."""
    model = network.model
    ids = torch.ones(setting.rows, setting.length, dtype=torch.long)
    mask = torch.ones_like(ids)
    words = model.llm.get_input_embeddings()
    if setting.teacher:
        places = torch.arange(setting.length).expand(setting.rows, -1)
        with torch.no_grad():
            model.run_llm(words(ids), mask, places)
    if not setting.predicts:
        return model(ids, mask).embedding.sum()
    # The network's own forward asks which labels there are, and without numbers that cannot be told: all of them.
    prompt = model.soft_prompt(ids, mask)
    embeds = torch.cat([prompt.inputs_embeds, words(ids).to(prompt.inputs_embeds.dtype)], dim=1)
    keys = torch.cat([prompt.attention_mask, mask], dim=1)
    places = target_positions(prompt, mask, 0)
    visible = prefix_mask(keys, prompt.attention_mask.shape[1], model.llm.dtype)
    states = model.run_llm(embeds, visible, places)[:, -setting.length :].flatten(0, 1)
    return network._token_loss(states, ids.flatten()).sum()


def _cast(tower: nn.Module, dtype: torch.dtype) -> None:
    """Hold a tower's weights in `dtype`, adapters in float32."""
    backbones.cast_weights(tower, dtype)
    for name, parameter in tower.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()


def _take_off_meta(model: nn.Module) -> None:
    """Put tensors of the CPU in place of those of the meta device, whose kernels differ; within fake tensors."""
    made: dict[int, torch.Tensor] = {}  # a tensor that two modules share stays one
    for module in model.modules():
        for name, tensor in list(module.named_parameters(recurse=False)):
            if id(tensor) not in made:
                made[id(tensor)] = nn.Parameter(torch.empty(tensor.shape, dtype=tensor.dtype), tensor.requires_grad)
            module._parameters[name] = made[id(tensor)]
        for name, tensor in list(module.named_buffers(recurse=False)):
            module._buffers[name] = made.setdefault(id(tensor), torch.empty(tensor.shape, dtype=tensor.dtype))


def _as_on_a_gpu(model: LusiferModel) -> None:
    """Change what a CPU keeps and a GPU does not."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Dropout):
            model.set_submodule(name, _MaskDropout(module.p))
        for key in ("attention_dropout", "dropout_prob", "dropout_p"):
            if isinstance(getattr(module, key, None), float):
                setattr(module, key, 0.0)
    for tower in adapters.TOWERS:
        for module in getattr(model, tower).modules():
            dropout = getattr(module, "dropout", None)
            if isinstance(dropout, _MaskDropout) and hasattr(module, "is_causal"):
                dropout.p = 0.0
