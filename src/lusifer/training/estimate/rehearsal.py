"""One step of a stage on tensors without memory: what torch would hold, counted while the model's own code runs.

torch's fake tensors have shapes and no numbers, so a step of a model of any size is rehearsed in seconds. Every storage
that an operation makes is counted while it lives: what autograd keeps for the backward pass, gradients, what comes and
goes within an operation. A formula would have to know the layers; this reads them from the code that trains.

Not seen: what a library's kernel takes inside one operation, what the allocator holds beside what was asked for, and
the memory of the process itself. "cuda" is rehearsed without a GPU: dropout keeps a mask of bytes and attention neither
scores nor their dropout, as there; "cpu" is what torch's CPU operations do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils import _pytree as trees
from torch.utils._python_dispatch import TorchDispatchMode

from lusifer.model import adapters, backbones
from lusifer.model.alignment import LusiferForAlignment, prefix_mask, target_positions

if TYPE_CHECKING:
    from lusifer.model.lusifer import LusiferModel
    from lusifer.training.recipe.stage import StageSettings

Kind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Setting:
    """What a stage does to memory.

    `rows` and `length` of what is in memory at once, `target` tokens a row that the LLM predicts (0: none), `repeated`
    whether a step has more than one such part, so that gradients are there while activations are; `dtypes` of the
    towers' weights; `chunk` labels whose logits exist at once.
    """

    rows: int
    length: int
    target: int
    repeated: bool
    dtypes: dict[str, torch.dtype]
    bf16: bool
    checkpointing: bool
    chunk: int


def setting(
    stage: StageSettings, rows: int, length: int, target: int, dtypes: dict[str, torch.dtype], bf16: bool
) -> Setting:
    """Put a setting together for a stage that reads `rows` of `length` at once; the rest as in `Setting`."""
    chunk = getattr(stage, "logits_chunk", 1)
    columns = 1 if hasattr(stage, "logits_chunk") else 2 + stage.hard_negatives
    repeated = stage.batch_size * columns > rows
    return Setting(
        min(rows, stage.batch_size), length, target, repeated, dtypes, bf16, stage.gradient_checkpointing, chunk
    )


class Live(TorchDispatchMode):
    """Counts the bytes of storages made while it is on: `now` and the most at once, `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count what it made."""
        self._watch((args, kwargs), made=False)  # what was there before
        out = func(*args, **(kwargs or {}))
        self._watch(out, made=True)
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


def rehearse(make: Callable[[], LusiferModel], setting: Setting, kind: Kind) -> int:
    """Count one step: the most bytes that live at once beside the weights, gradients included.

    Args:
        make: Builds the model with its adapters on the meta device.
        setting: Of the stage.
        kind: Of device.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = make()
    for tower in adapters.TOWERS:
        _cast(getattr(model, tower), setting.dtypes[tower])
    with FakeTensorMode(), torch.device("cpu"):
        _take_off_meta(model)
        llm = model.config.llm
        head = None
        if setting.target:
            head = nn.Linear(llm.hidden_size, llm.vocab_size, bias=False, dtype=model.llm.dtype).requires_grad_(False)
        if kind == "cuda":
            _as_on_a_gpu(model)
        if setting.checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        network = LusiferForAlignment(model.config, model, head)
        network.logits_chunk = setting.chunk
        network.train()
        with Live() as live:
            for _ in range(1 + setting.repeated):
                with torch.autocast("cpu", torch.bfloat16, enabled=setting.bf16):
                    loss = _loss(network, setting)
                loss.backward()
                del loss
    return live.peak


def _loss(network: LusiferForAlignment, setting: Setting) -> torch.Tensor:
    """The stage's forward pass; which rows a loss compares hardly matters to memory."""
    model = network.model
    ids = torch.ones(setting.rows, setting.length, dtype=torch.long)
    mask = torch.ones_like(ids)
    if not setting.target:
        return model(ids, mask).embedding.sum()
    # The network's own forward asks which labels there are, and without numbers that cannot be told: all of them.
    prompt = model.soft_prompt(ids, mask)
    target = torch.ones(setting.rows, setting.target, dtype=torch.long)
    words = model.llm.get_input_embeddings()(target).to(prompt.inputs_embeds.dtype)
    embeds = torch.cat([prompt.inputs_embeds, words], dim=1)
    keys = torch.cat([prompt.attention_mask, torch.ones_like(target)], dim=1)
    places = target_positions(prompt, torch.ones_like(target), 0)
    visible = prefix_mask(keys, prompt.attention_mask.shape[1], model.llm.dtype)
    states = model.run_llm(embeds, visible, places)[:, -setting.target :].flatten(0, 1)
    return network._token_loss(states, target.flatten()).sum()


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
