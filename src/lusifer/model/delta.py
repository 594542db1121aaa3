"""Deltas: model folders without the weights of their bases, megabytes instead of gigabytes.

Two settings of `config.json` differ from a complete folder. `bases` names the backbones whose weights are not in the
folder, with their place and a digest of their content (`lusifer.io.bases`). `adapters` lists the adapters on them.
The tensors are the connector, the projection, the adapters in float32, and a backbone that was trained in full.
A loaded delta is a plain model with the numbers of the complete folder: its adapters are merged in float32 in order.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from lusifer.errors import LusiferError, ModelFolderError, UsageError
from lusifer.io import bases as known_bases
from lusifer.io import weights
from lusifer.io.files import read_json
from lusifer.io.weights import misfit
from lusifer.model import adapters
from lusifer.model.adapters import BACKBONES, TRAINS
from lusifer.model.bases import backbones
from lusifer.model.bases.reading import Base, fill, place, read_backbone, read_config

ADVICE = "copy the folder again"
_OF_NO_ACCOUNT = (
    "_name_or_path", "architectures", "dtype", "is_causal", "is_encoder_decoder", "transformers_version", "use_cache",
)  # fmt: skip
"""Settings of a backbone that may differ from its base: classes of transformers set some when a model is made."""


@dataclass(frozen=True)
class Delta:
    """The delta of a model that is being trained; `LusiferModel.save_pretrained` writes it in place of all weights.

    Args:
        bases: As in `LusiferConfig`.
        adapters: As in `LusiferConfig`: the adapters of earlier stages.
        tensors: The tensors of these adapters, by their names in the file.
        stage: The name that the trainable adapters will have.
        new: The settings of the trainable adapters, as in `adapters`.
    """

    bases: dict[str, dict[str, Any]]
    adapters: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    stage: str = ""
    new: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of_folder(cls, folder: Path) -> Delta | None:
        """Read the delta of a folder; None if the folder has all weights."""
        settings = read_json(folder / "config.json", ADVICE, ModelFolderError, dict)
        if not settings.get("bases"):
            return None
        found = weights.tensors(weights.files(folder, ADVICE), ADVICE)
        tensors = {name: tensor for name, tensor in found.items() if adapters.is_adapter(name)}
        return cls(settings["bases"], settings.get("adapters") or [], tensors)

    def at(self, records: Mapping[str, dict[str, Any]]) -> Delta:
        """Return the delta with new records of its bases, which may have moved since the folder was written."""
        return replace(self, bases={backbone: records[backbone] for backbone in self.bases})

    def during(self, model: nn.Module, stage: str, train: Mapping[str, str], lora: Mapping[str, Any]) -> Delta:
        """Return the delta for a stage: a backbone that is trained in full is no base any more.

        Args:
            model: The model with the adapters of the stage.
            stage: The name of the stage. The names of its adapters start with `adapters.STAGE`.
            train: Backbone -> "lora", "full" or "frozen".
            lora: Backbone -> settings of its adapters (r, alpha, targets), or None.
        """
        kept = {backbone: base for backbone, base in self.bases.items() if train[backbone] != "full"}
        names = {each["name"] for each in self.adapters}
        stage = f"{adapters.STAGE}{stage}"
        numbered = (f"{stage}-{number}" for number in itertools.count(2))
        stage = next(name for name in itertools.chain([stage], numbered) if name not in names)
        new = []
        for backbone in kept:
            if (settings := lora[backbone]) is not None:
                targets = settings.targets or adapters.lora_targets(getattr(model, backbone), backbone)
                if isinstance(targets, str) and targets != "all-linear":  # so that readers need no regular expression
                    layers = adapters.adapted_layers(getattr(model, backbone))
                    targets = [name for name, layer in layers if TRAINS in getattr(layer, "lora_A", ())]
                about = {"name": stage, "tower": backbone, "r": settings.r, "alpha": settings.alpha, "targets": targets}
                new.append(about)
        old = [each for each in self.adapters if each["tower"] in kept]
        tensors = {name: t for name, t in self.tensors.items() if adapters.part_of(name) in kept}
        return Delta(kept, old, tensors, stage, new)

    def settings(self) -> dict[str, Any]:
        """Return the settings `bases` and `adapters` for `config.json`."""
        return {"bases": self.bases or None, "adapters": [*self.adapters, *self.new] if self.bases else None}

    def state_dict(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Return the tensors of the folder, by name, on the CPU."""
        whole = [part for part in adapters.PARTS if part not in self.bases]
        found = adapters.merged_state_dict(model, whole) | self.tensors
        for name, tensor in model.state_dict().items():
            if adapters.part_of(name) in self.bases and f".{TRAINS}." in name and adapters.is_adapter(name):
                found[name.replace(f".{TRAINS}.", f".{self.stage}.")] = tensor.detach().cpu().contiguous()
        return found


def expected(model: nn.Module, config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    """Compute the names and shapes of the tensors that a folder must have.

    Args:
        model: A model of the configuration, without adapters.
        config: The configuration of the folder, a delta or not.
    """
    left_out, found = config.bases or {}, {}
    for about in config.adapters or []:
        found |= adapters.shapes(model, about)
    return found | {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if adapters.part_of(name) not in left_out
    }


def load(
    around: Callable[[nn.Module, nn.Module], nn.Module],
    config: PreTrainedConfig,
    tensors: dict[str, torch.Tensor],
    *,
    where: str,
    paths: Mapping[str, str] | None = None,
    merge: bool = True,
    device: str = "cpu",
    attn_implementation: str | None = None,
    made: nn.Module | None = None,
) -> nn.Module:
    """Load a delta together with its bases.

    Args:
        around: Makes the model of an encoder and an LLM. Its connector and projection need no weights.
        config: The configuration of the folder.
        tensors: The tensors of the folder, by name.
        where: The name of the model in messages.
        paths: Backbone -> path of its base, if it is not the path in the folder.
        merge: Whether to merge all adapters, in float32. Otherwise those on a half-precision backbone stay separate
            layers, frozen.
        device: The device of the model.
        attn_implementation: As for transformers.
        made: A model of `config` on the CPU with any weights. Its backbones are reused if `fill` can fill them.

    Raises:
        ModelFolderError: A base is missing or has changed, or tensors do not fit.
        UsageError: `paths` names a backbone that has no base in this delta.
    """
    if strange := sorted(set(paths or {}) - set(config.bases)):
        raise UsageError(f"bases: {where} has no base {strange[0]!r}: use {' and '.join(config.bases)}")
    modules = {}
    for backbone in BACKBONES:
        known, own = config.bases.get(backbone), getattr(config, backbone)
        dtype = getattr(torch, (config.tower_dtypes or {}).get(backbone, "float32"))
        if known is None:
            inside = {n.partition(".")[2]: t for n, t in tensors.items() if adapters.part_of(n) == backbone}
            modules[backbone] = _whole(own, backbone, inside, dtype, device, attn_implementation)
            continue
        path = os.fspath((paths or {}).get(backbone, known["path"]))
        base = Base(path, known.get("revision"), dtype, device, known.get("layers"))
        try:
            known_bases.refuse_other(known, path, f"{where}: its {backbone}", ModelFolderError)
            _refuse_other_settings(own, read_config(base, backbone), f"{where}/config.json: {backbone}")
            module = made and fill(getattr(made, backbone), base, backbone)
            modules[backbone] = module or read_backbone(base, backbone, attn_implementation)
        except ModelFolderError:
            raise
        except LusiferError as error:
            raise ModelFolderError(f"{where}: its {backbone} cannot be loaded: {error}") from error
    model = around(modules["encoder"], modules["llm"])
    _refuse_misfit(model, tensors, config, where)
    _add(model, tensors, config, merge, where)
    model.connector.to(device)
    if model.output_projection is not None:
        model.output_projection.to(device)
    return model.eval()


def _add(model: nn.Module, tensors: dict[str, torch.Tensor], config: PreTrainedConfig, merge: bool, where: str) -> None:
    """Add the adapters, and the weights of the connector and the projection, to a model of two bases.

    Raises:
        ModelFolderError: A merged weight is not finite.
    """
    beside = [backbone for backbone in BACKBONES if not merge and getattr(model, backbone).dtype != torch.float32]
    for about in config.adapters or []:
        if about["tower"] in beside:
            adapters.attach(model, about["tower"], about["r"], about["alpha"], 0.0, about["targets"], about["name"])
            continue
        try:
            adapters.fold(model, about, tensors)
        except LusiferError as error:
            raise ModelFolderError(f"{where}: {error}; {ADVICE}") from error
    for name, tensor in model.state_dict().items():
        if adapters.part_of(name) not in BACKBONES or adapters.is_adapter(name):
            tensor.copy_(tensors[name])


def _refuse_other_settings(said: PreTrainedConfig, base: PreTrainedConfig, where: str) -> None:
    """Refuse settings of a backbone that differ from its base: they would be ignored without a warning."""
    ours, theirs = said.to_dict(), base.to_dict()
    for key in sorted(ours.keys() | theirs.keys()):
        if key not in _OF_NO_ACCOUNT and ours.get(key) != theirs.get(key):
            words = f"{key}={ours.get(key)!r}, and the base has {theirs.get(key)!r}"
            raise ModelFolderError(f"{where}: {words}: settings of a base cannot be changed here: restore the value")


def _whole(
    config: Any, backbone: str, tensors: dict[str, torch.Tensor], dtype: torch.dtype, device: str, kernel: str | None
) -> nn.Module:
    """Make a backbone whose weights are in the delta."""
    with backbones.described():
        cls = type(backbones.from_config(config, backbone))
    kwargs = backbones.find(config.model_type, backbone).kwargs | place(device)
    return cls.from_pretrained(
        None, config=config, state_dict=tensors, dtype=dtype, attn_implementation=kernel, **kwargs
    )


def _refuse_misfit(model: nn.Module, tensors: dict[str, torch.Tensor], config: PreTrainedConfig, where: str) -> None:
    """Check the tensors of connector, projection and adapters; `model` has no adapters yet."""
    added = expected(model, config).items()
    wanted = {n: shape for n, shape in added if adapters.part_of(n) not in BACKBONES or adapters.is_adapter(n)}
    found = {n: tuple(t.shape) for n, t in tensors.items() if adapters.part_of(n) in config.bases or n in wanted}
    if wrong := misfit(wanted, found):
        raise ModelFolderError(f"{where}: the weights do not fit config.json: tensors {wrong}; {ADVICE}")
    for name in wanted:
        if not tensors[name].is_floating_point():
            words = f"tensor {name} is {tensors[name].dtype}: expected a floating-point dtype; {ADVICE}"
            raise ModelFolderError(f"{where}: {words}")
