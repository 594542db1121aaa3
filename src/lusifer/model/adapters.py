"""Adapters on the two backbones: attach LoRA, report and save the trainable parameters, merge adapters of any kind.

A backbone may have several adapters: frozen ones of earlier stages, and the trainable one. peft adds them
(`inject_adapter_in_model`) and computes them. The trainable parameters are those that require gradients, in the
adapters, the connector and the projection; `trainable_state_dict` returns exactly these.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lusifer.errors import LusiferError, UsageError
from lusifer.io import weights
from lusifer.model.bases import backbones

# peft is imported where it is used: it imports transformers' Auto classes, whose loading imports the model class
# (`lusifer/__init__.py`), which imports this file.
if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

BACKBONES = ("encoder", "llm")
PARTS = ("encoder", "connector", "llm", "output_projection")


@dataclass(frozen=True)
class PartReport:
    """Counts of one part: all parameters, trainable parameters, trainable tensors, parameters that are always float32.

    Always float32 are the trainable parameters and the adapters of earlier stages.
    """

    part: str
    parameters: int
    trainable: int
    trainable_tensors: int
    float32: int = 0


TRAINS = "default"
"""peft's name of the trainable adapter; adapters of earlier stages are named after their stages."""
STAGE = "stage-"
"""The prefix of an adapter's name before its stage: peft stores adapters as attributes of a module that has others."""


def attach(
    model: nn.Module,
    backbone: str,
    r: int,
    alpha: float,
    dropout: float = 0.0,
    targets: str | list[str] | None = None,
    name: str = TRAINS,
) -> None:
    """Add LoRA adapters to a backbone, which may have adapters already.

    Args:
        model: A LusiferModel, changed in place.
        backbone: "encoder" or "llm".
        r: Rank.
        alpha: The update is multiplied by alpha / r.
        dropout: Dropout on the adapter's input, in [0, 1).
        targets: As for peft's `target_modules`. None takes the layers of the architecture in `backbones.toml`.
        name: The name of the adapter. With the default it is trainable, with any other name frozen.

    Raises:
        UsageError: No layer matches the targets, or the backbone has an adapter of this name already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    module = getattr(model, backbone)
    layers = [layer for _, layer in adapted_layers(module)]
    before = list(dict.fromkeys(one for layer in layers for one in layer.active_adapters))
    if name in before or not all(hasattr(layer, "lora_A") for layer in layers):
        raise UsageError(f"the {backbone} already has adapters: merge them first")
    if targets is None:
        targets = lora_targets(module, backbone)
    config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # of earlier adapters
            inject_adapter_in_model(config, module, name)
    except ValueError as error:
        words = f"lora.{backbone}.targets={targets!r}: matches no linear layer of the {backbone}: correct the names"
        raise UsageError(f"{words} ({error})") from error
    for _, layer in adapted_layers(module):
        layer.train(module.training)  # peft's new layers are in training mode, with dropout, whatever the model's mode
        layer.set_adapter([*before, name])
        # In half precision, small training steps are rounded away; peft casts the layer's input and output itself.
        for part in (layer.lora_A, layer.lora_B):
            part.float()
            for each in part:
                part[each].requires_grad_(each == name == TRAINS)
        if _cast_once not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_cast_once)


def lora_targets(module: nn.Module, backbone: str) -> list[str]:
    """The default names of the layers that get LoRA adapters in a backbone."""
    return backbones.find(module.config.model_type, backbone).lora_targets


def shapes(model: nn.Module, about: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Compute the names and shapes of the tensors that adapters add to a model.

    The layers are those that peft chooses. peft itself is not used: importing it takes longer than loading a small
    model.

    Args:
        model: The model without these adapters.
        about: The keys name, tower, r and targets of the adapters.
    """
    targets, found = about["targets"], {}
    for name, layer in getattr(model, about["tower"]).named_modules():
        if not isinstance(layer, nn.Linear):
            continue
        if isinstance(targets, str):
            chosen = targets == "all-linear" or re.fullmatch(targets, name)
        else:
            chosen = name in targets or name.endswith(tuple(f".{target}" for target in targets))
        if chosen:
            for part, shape in (
                ("lora_A", (about["r"], layer.in_features)),
                ("lora_B", (layer.out_features, about["r"])),
            ):
                found[f"{about['tower']}.{name}.{part}.{about['name']}.weight"] = shape
    return found


@torch.no_grad()
def fold(model: nn.Module, about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Merge adapters from a file into the weights of their layers; the backbone becomes float32, as with `merge`.

    Args:
        model: The model without these adapters.
        about: The keys of `shapes`, and alpha.
        tensors: The tensors that `shapes` names; others are ignored.

    Raises:
        LusiferError: A merged weight is not finite.
    """
    getattr(model, about["tower"]).float()
    for name in shapes(model, about):
        layer, part, rest = name.partition(".lora_A.")
        if part:
            weight = model.get_submodule(layer).weight
            b, a = (tensors[each].to(weight.device, torch.float32) for each in (f"{layer}.lora_B.{rest}", name))
            weight += (b @ a) * (about["alpha"] / about["r"])
            if not weight.isfinite().all():
                raise LusiferError(f"merging the adapter of {layer} gives NaN or infinite weights")


def _cast_once(layer: LoraLayer, inputs: tuple[torch.Tensor, ...]) -> None:
    """Stop peft from casting a half-precision input to float32 when autocast casts it back.

    Otherwise every layer would store its own float32 copy for the backward pass. The results are the same, except for
    the random numbers of dropout.
    """
    kind, half = inputs[0].device.type, inputs[0].dtype.itemsize == 2
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    layer.cast_input_dtype_enabled = not (half and autocast)


def freeze(model: nn.Module, train: dict[str, bool]) -> None:
    """Switch gradients on for the parts that are True in `train` and off for all others. Attach adapters afterwards.

    Args:
        model: A LusiferModel, changed in place.
        train: Name of a part, as in `PARTS` -> whether it is trainable.
    """
    for part in PARTS:
        module = getattr(model, part)
        if module is not None:
            module.requires_grad_(bool(train.get(part, False)))
    # The LLM reads the connector's output and never its word embeddings. DDP would wait for their gradients.
    model.llm.get_input_embeddings().requires_grad_(False)


def report(model: nn.Module) -> list[PartReport]:
    """Count the parameters and the trainable parameters of each part."""
    rows = []
    for part in PARTS:
        module = getattr(model, part)
        named = list(module.named_parameters()) if module is not None else []
        trainable = [p.numel() for _, p in named if p.requires_grad]
        float32 = sum(p.numel() for name, p in named if p.requires_grad or is_adapter(name))
        rows.append(PartReport(part, sum(p.numel() for _, p in named), sum(trainable), len(trainable), float32))
    return rows


def trainable_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy the trainable parameters to the CPU, by name: the weights that a resumed run needs."""
    return {name: p.detach().cpu().clone().contiguous() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_trainable_state_dict(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Load saved tensors into the trainable parameters of a model.

    Args:
        model: The model, changed in place.
        tensors: Tensors with exactly the names and shapes of its trainable parameters.

    Raises:
        LusiferError: Tensors are missing, unexpected or of another shape.
    """
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    wrong = weights.misfit({n: p.shape for n, p in wanted.items()}, {n: t.shape for n, t in tensors.items()})
    if wrong:
        raise LusiferError(
            f"the checkpoint does not fit the trainable parameters: tensors {wrong}; resume with the recipe that wrote "
            "it"
        )
    for name, parameter in wanted.items():
        parameter.copy_(tensors[name])


def adapted_backbones(model: nn.Module) -> list[str]:
    """The backbones that have adapters of any kind: "encoder", "llm" or both."""
    return [backbone for backbone in BACKBONES if any(adapted_layers(getattr(model, backbone)))]


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name and module of every layer that peft wrapped: adapters of any kind, and `modules_to_save`."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kinds, above = (BaseTunerLayer, AuxiliaryTrainingWrapper), "\n"
    for name, module in model.named_modules():
        if isinstance(module, kinds) and not name.startswith(above):
            above = f"{name}."
            yield name, module


@torch.no_grad()
def merged_state_dict(model: nn.Module, parts: Collection[str] = PARTS) -> dict[str, torch.Tensor]:
    """Compute the state dict with all adapters merged, without changing the model.

    A backbone with adapters comes out in float32: half precision would round away most changes of a short training.

    Args:
        model: The model.
        parts: The parts whose tensors are returned.

    Returns:
        Tensors on the CPU, under the names of a model without adapters.

    Raises:
        LusiferError: A merged weight is not finite, an adapter is of a kind that cannot be merged, or one is inside an
            `nn.MultiheadAttention`, which ignores it.
    """
    layers = {name: layer for name, layer in _mergeable(model) if part_of(name) in parts}
    adapted = adapted_backbones(model)
    inside = tuple(f"{name}." for name in layers)
    merged = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if part_of(name) in parts and not name.startswith(inside)
    }
    for name, layer in layers.items():
        merged |= {f"{name}.{key}": tensor for key, tensor in _merged_layer(name, layer).state_dict().items()}
    for name in reversed(_wrappers(model)):  # the inner ones first
        # Tensors outside `.model.` are shared by adapters (VeRA), which are merged by now.
        around, own = f"{name}.base_model.model.", f"{name}.base_model."
        merged = {
            f"{name}.{key.removeprefix(around)}" if key.startswith(around) else key: t
            for key, t in merged.items()
            if key.startswith(around) or not key.startswith(own)
        }
    for name, tensor in merged.items():
        whole = part_of(name) in adapted and tensor.is_floating_point()
        merged[name] = (tensor.float() if whole else tensor).detach().cpu().contiguous()
    return merged


def is_adapter(name: str) -> bool:
    """Whether the name of a tensor is that of a LoRA adapter."""
    return ".lora_A." in name or ".lora_B." in name


def part_of(name: str) -> str:
    """The part, one of `PARTS`, of the tensor with this name."""
    return name.partition(".")[0]


@torch.no_grad()
def merge(model: nn.Module, parts: Collection[str] = PARTS) -> int:
    """Merge the adapters into their layers, in place, so that plain layers remain; such a backbone becomes float32.

    Args:
        model: The model, changed in place.
        parts: The parts whose adapters are merged.

    Returns:
        The number of merged layers.

    Raises:
        LusiferError: As for `merged_state_dict`.
    """
    layers = [(name, layer) for name, layer in _mergeable(model) if part_of(name) in parts]
    wrappers = [name for name in _wrappers(model) if part_of(name) in parts]
    for backbone in adapted_backbones(model):
        if backbone in parts:
            getattr(model, backbone).float()
    for name, layer in layers:
        model.set_submodule(name, _merged_layer(name, layer))
    for name in reversed(wrappers):
        model.set_submodule(name, model.get_submodule(f"{name}.base_model.model"))
    return len(layers)


def _mergeable(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The adapted layers, refusing an adapter that has no effect before merging and would have one after it."""
    layers = list(adapted_layers(model))
    for name, _ in layers:
        around = name.rpartition(".")[0]
        if isinstance(model.get_submodule(around), nn.MultiheadAttention):
            raise LusiferError(
                f"{name}: nn.MultiheadAttention ignores the adapter of this layer, so it changes no vector: adapt all "
                f"of {around}, or take {name} out of target_modules"
            )
    return layers


def _wrappers(model: nn.Module) -> list[str]:
    """Names of the modules that are a peft model (`get_peft_model`), outer before inner."""
    from peft.tuners.tuners_utils import BaseTuner

    found = (name for name, module in model.named_modules() if isinstance(module, BaseTuner))
    return [name.removesuffix(".base_model") for name in found if name.endswith(".base_model")]


def _merged_layer(name: str, layer: nn.Module) -> nn.Module:
    """Make a plain float32 layer that computes the same as a wrapped layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

    copied = copy.deepcopy(layer).float()
    if isinstance(copied, ModulesToSaveWrapper):
        trained = not copied.disable_adapters and copied.active_adapters
        return copied.modules_to_save[copied.active_adapters[0]] if trained else copied.original_module
    if isinstance(copied, TrainableTokensWrapper):
        copied = copied.token_adapter
    if not isinstance(copied, BaseTunerLayer):
        raise LusiferError(f"{name}: an adapter of the kind {type(layer).__name__} cannot be merged: remove it first")
    merges = not (copied.merged or copied.disable_adapters)
    try:
        if hasattr(copied, "unload_and_optionally_merge_module"):  # layers with additional weights have it
            return copied.unload_and_optionally_merge_module(merge=merges, safe_merge=True, adapter_names=None)
        if merges:
            copied.merge(safe_merge=True)
    except ValueError as error:
        raise LusiferError(f"merging the adapter of {name} gives NaN or infinite weights") from error
    except (NotImplementedError, RuntimeError) as error:  # aLoRA, or a trained bias on a layer without bias
        raise LusiferError(f"{name}: its adapter cannot be merged ({error}): remove it first") from error
    return copied.get_base_layer()
