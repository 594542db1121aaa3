"""LoRA on the two towers: attach, say what trains, save just that; merge adapters of any kind, whoever put them in.

A tower may carry several: those of earlier stages, frozen, and the one that trains. peft puts them in
(`inject_adapter_in_model`) and computes them. Connector and projection stay ordinary parameters that require gradients,
so what trains, what is counted and what is saved are one set: `trainable_state_dict`.
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
from lusifer.model.bases.backbones import backbone

# peft is imported where it is used: it imports transformers' Auto classes, whose loading imports the model class
# (`lusifer/__init__.py`), which imports this file.
if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

TOWERS = ("encoder", "llm")
PARTS = ("encoder", "connector", "llm", "output_projection")
"""Files of a checkpoint: the tensors of `trainable_state_dict`, and which they must be."""


@dataclass(frozen=True)
class PartReport:
    """Counts of one part: parameters in all, trainable ones, trainable tensors, and what is float32 in any case.

    That is what trains, and the adapters of earlier stages.
    """

    part: str
    parameters: int
    trainable: int
    trainable_tensors: int
    float32: int = 0


TRAINS = "default"
"""peft's name for the adapter that trains; those of earlier stages go by the names of their stages."""
STAGE = "stage-"
"""Before the name of a stage in that of its adapters: peft keeps them as attributes of a module, which has others."""


def attach(
    model: nn.Module,
    tower: str,
    r: int,
    alpha: float,
    dropout: float = 0.0,
    targets: str | list[str] | None = None,
    name: str = TRAINS,
) -> None:
    """Put LoRA adapters on one tower, beside those it carries; they become the only trainable parameters of it.

    Args:
        model: A LusiferModel, changed in place.
        tower: "encoder" or "llm".
        r: Rank.
        alpha: The update is multiplied by alpha / r.
        dropout: On the adapter's input, in [0, 1).
        targets: As for peft's `target_modules`; None takes the layers listed for the architecture in `backbones.toml`.
        name: Of the adapter; another one than `TRAINS` is frozen.

    Raises:
        UsageError: No layer has one of these names, or the tower carries an adapter of this name already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    module = getattr(model, tower)
    layers = [layer for _, layer in adapted_layers(module)]
    before = list(dict.fromkeys(one for layer in layers for one in layer.active_adapters))
    if name in before or not all(hasattr(layer, "lora_A") for layer in layers):
        raise UsageError(f"{tower} carries adapters already: merge them first")
    if targets is None:
        targets = lora_targets(module, tower)
    config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # of the adapters before
            inject_adapter_in_model(config, module, name)
    except ValueError as error:
        raise UsageError(f"lora.{tower}.targets={targets!r} fits no linear layer of the {tower}: {error}") from error
    for _, layer in adapted_layers(module):
        layer.train(module.training)  # peft's new layers are in training mode, with dropout, whatever the model is in
        layer.set_adapter([*before, name])
        # Steps of training are lost in half precision; peft casts the layer's input and output itself.
        for part in (layer.lora_A, layer.lora_B):
            part.float()
            for each in part:
                part[each].requires_grad_(each == name == TRAINS)
        if _cast_once not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_cast_once)


def lora_targets(module: nn.Module, tower: str) -> list[str]:
    """The layers of a tower that adapters go on where nobody names others."""
    return backbone(module.config.model_type, tower).lora_targets


def shapes(model: nn.Module, about: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor that adapters add to a model without them: `about` has name, tower, r and targets.

    The layers are those that peft chooses. Not asked is peft: its import takes longer than a small model's loading.
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
    """Add adapters from a file to the layers that they are of; the tower becomes float32, as by `merge`.

    Args:
        model: Without these adapters on it.
        about: As for `shapes`, and alpha.
        tensors: Those that `shapes` names, among others.

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
                raise LusiferError(f"merging the adapter of {layer} gives numbers that are not finite")


def _cast_once(layer: LoraLayer, inputs: tuple[torch.Tensor, ...]) -> None:
    """Keep peft from casting a half-precision input to the float32 of the adapters where autocast would cast it back.

    Every layer would hold a copy of its own for the backward pass. The numbers are the same but for dropout's draws.
    """
    kind, half = inputs[0].device.type, inputs[0].dtype.itemsize == 2
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    layer.cast_input_dtype_enabled = not (half and autocast)


def freeze(model: nn.Module, train: dict[str, bool]) -> None:
    """Switch gradients on for the parts (`PARTS`) that are True in `train`, off for the others; adapters come later."""
    for part in PARTS:
        module = getattr(model, part)
        if module is not None:
            module.requires_grad_(bool(train.get(part, False)))
    # The LLM reads the connector's output, never its own words: without gradient they would stall DDP's reduction.
    model.llm.get_input_embeddings().requires_grad_(False)


def report(model: nn.Module) -> list[PartReport]:
    """Count parameters and trainable parameters of every part."""
    rows = []
    for part in PARTS:
        module = getattr(model, part)
        named = list(module.named_parameters()) if module is not None else []
        trainable = [p.numel() for _, p in named if p.requires_grad]
        float32 = sum(p.numel() for name, p in named if p.requires_grad or is_adapter(name))
        rows.append(PartReport(part, sum(p.numel() for _, p in named), sum(trainable), len(trainable), float32))
    return rows


def trainable_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that training changes, by name, on the CPU: all that a resume needs."""
    return {name: p.detach().cpu().clone().contiguous() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def load_trainable_state_dict(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Put saved tensors back; names and shapes must be exactly those that train now.

    Raises:
        LusiferError: Names the tensors that are missing, unexpected or of another shape.
    """
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    wrong = weights.misfit({n: p.shape for n, p in wanted.items()}, {n: t.shape for n, t in tensors.items()})
    if wrong:
        raise LusiferError(
            f"the checkpoint does not fit what trains: tensors {wrong}; resume with the recipe that wrote it"
        )
    for name, parameter in wanted.items():
        parameter.copy_(tensors[name])


def adapted_towers(model: nn.Module) -> list[str]:
    """The towers that carry adapters, of whatever kind."""
    return [tower for tower in TOWERS if any(adapted_layers(getattr(model, tower)))]


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every layer that peft has wrapped, with adapters of any kind or whole (`modules_to_save`)."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kinds, above = (BaseTunerLayer, AuxiliaryTrainingWrapper), "\n"
    for name, module in model.named_modules():
        if isinstance(module, kinds) and not name.startswith(above):
            above = f"{name}."
            yield name, module


@torch.no_grad()
def merged_state_dict(model: nn.Module, parts: Collection[str] = PARTS) -> dict[str, torch.Tensor]:
    """The state dict of the plain model that the adapted one equals; `model` itself is not changed.

    Only tensors of `parts` are in it. Where peft's own model stands around a part, its place in the names is taken out.
    Keys are those of a model without adapters, values are on the CPU. A tower with adapters comes out in float32: in
    half precision most of what a short training changed would be rounded away.

    Raises:
        LusiferError: A merged weight is not finite, an adapter is of a kind that cannot be merged, or one is inside an
            `nn.MultiheadAttention`, which does not use it.
    """
    layers = {name: layer for name, layer in _mergeable(model) if part_of(name) in parts}
    towers = adapted_towers(model)
    inside = tuple(f"{name}." for name in layers)
    merged = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if part_of(name) in parts and not name.startswith(inside)
    }
    for name, layer in layers.items():
        merged |= {f"{name}.{key}": tensor for key, tensor in _merged_layer(name, layer).state_dict().items()}
    for name in reversed(_wrappers(model)):  # the inner ones first
        around, own = f"{name}.base_model.model.", f"{name}.base_model."  # what adapters share (VeRA) is merged by now
        merged = {
            f"{name}.{key.removeprefix(around)}" if key.startswith(around) else key: t
            for key, t in merged.items()
            if key.startswith(around) or not key.startswith(own)
        }
    for name, tensor in merged.items():
        whole = part_of(name) in towers and tensor.is_floating_point()
        merged[name] = (tensor.float() if whole else tensor).detach().cpu().contiguous()
    return merged


def is_adapter(name: str) -> bool:
    """Whether a tensor belongs to a LoRA adapter, by its name."""
    return ".lora_A." in name or ".lora_B." in name


def part_of(name: str) -> str:
    """Which of `PARTS` a tensor belongs to, by its name."""
    return name.partition(".")[0]


@torch.no_grad()
def merge(model: nn.Module, parts: Collection[str] = PARTS) -> int:
    """Fold every adapter of some parts into its layer, in place, and leave plain layers; such a tower becomes float32.

    Returns:
        How many layers were merged.

    Raises:
        LusiferError: As for `merged_state_dict`.
    """
    layers = [(name, layer) for name, layer in _mergeable(model) if part_of(name) in parts]
    wrappers = [name for name in _wrappers(model) if part_of(name) in parts]
    for tower in adapted_towers(model):
        if tower in parts:
            getattr(model, tower).float()
    for name, layer in layers:
        model.set_submodule(name, _merged_layer(name, layer))
    for name in reversed(wrappers):
        model.set_submodule(name, model.get_submodule(f"{name}.base_model.model"))
    return len(layers)


def _mergeable(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The adapted layers, where none is one that only merging would switch on."""
    layers = list(adapted_layers(model))
    for name, _ in layers:
        around = name.rpartition(".")[0]
        if isinstance(model.get_submodule(around), nn.MultiheadAttention):
            raise LusiferError(
                f"{name}: nn.MultiheadAttention reads this layer's weight past its adapter, which changes no vector: "
                f"adapt all of {around}, or take {name} out of target_modules"
            )
    return layers


def _wrappers(model: nn.Module) -> list[str]:
    """Names of the parts in whose place a model of peft's stands (`get_peft_model`), outer before inner."""
    from peft.tuners.tuners_utils import BaseTuner

    found = (name for name, module in model.named_modules() if isinstance(module, BaseTuner))
    return [name.removesuffix(".base_model") for name in found if name.endswith(".base_model")]


def _merged_layer(name: str, layer: nn.Module) -> nn.Module:
    """What a wrapped layer computes, as a plain layer of its own in float32."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper

    copied = copy.deepcopy(layer).float()
    if isinstance(copied, ModulesToSaveWrapper):
        trained = not copied.disable_adapters and copied.active_adapters
        return copied.modules_to_save[copied.active_adapters[0]] if trained else copied.original_module
    if isinstance(copied, TrainableTokensWrapper):
        copied = copied.token_adapter
    if not isinstance(copied, BaseTunerLayer):
        raise LusiferError(f"{name}: an adapter of the kind {type(layer).__name__} cannot be merged: take it out first")
    merges = not (copied.merged or copied.disable_adapters)
    try:
        if hasattr(copied, "unload_and_optionally_merge_module"):  # of layers that keep weights of their own besides
            return copied.unload_and_optionally_merge_module(merge=merges, safe_merge=True, adapter_names=None)
        if merges:
            copied.merge(safe_merge=True)
    except ValueError as error:
        raise LusiferError(f"merging the adapter of {name} gives numbers that are not finite") from error
    except (NotImplementedError, RuntimeError) as error:  # aLoRA; a bias trained on a layer that has none
        raise LusiferError(f"{name}: its adapter cannot be merged ({error}): take it out first") from error
    return copied.get_base_layer()
