"""Deltas: a model without the weights of its bases. What training added is a few megabytes beside gigabytes.

The folder is that of a whole model but for its tensors and two settings. `bases` of `config.json` says which towers are
not in it and where they come from, known by content (`lusifer.io.bases`); `adapters` lists what was trained on them.
The tensors are connector, projection, adapters in float32, and a tower that trained whole. Loaded, it is a plain model
with the numbers that a whole folder of it has: the adapters are merged in float32, one after the other.
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
from lusifer.model.adapters import TOWERS, TRAINS
from lusifer.model.bases import backbones
from lusifer.model.bases.reading import Base, fill, place, read_backbone, read_config

ADVICE = "copy the folder again"
_OF_NO_ACCOUNT = (
    "_name_or_path", "architectures", "dtype", "is_causal", "is_encoder_decoder", "transformers_version", "use_cache",
)  # fmt: skip
"""Settings of a tower that are not its base's: classes of transformers set some when a model is made."""


@dataclass(frozen=True)
class Delta:
    """What a model that trains is beside its bases; `LusiferModel.save_pretrained` writes it in place of the whole.

    `bases` and `adapters` are as in `LusiferConfig`; `tensors` those of the adapters, by their names in the file.
    `stage` is the name that the adapters which train now will have, `new` their settings.
    """

    bases: dict[str, dict[str, Any]]
    adapters: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    stage: str = ""
    new: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of_folder(cls, folder: Path) -> Delta | None:
        """Read the delta in a folder; None where it holds a whole model."""
        settings = read_json(folder / "config.json", ADVICE, ModelFolderError, dict)
        if not settings.get("bases"):
            return None
        found = weights.tensors(weights.files(folder, ADVICE), ADVICE)
        tensors = {name: tensor for name, tensor in found.items() if adapters.is_adapter(name)}
        return cls(settings["bases"], settings.get("adapters") or [], tensors)

    def at(self, records: Mapping[str, dict[str, Any]]) -> Delta:
        """The same with each base as `records` has it: it may have moved since the folder was written."""
        return replace(self, bases={tower: records[tower] for tower in self.bases})

    def during(self, model: nn.Module, stage: str, train: Mapping[str, str], lora: Mapping[str, Any]) -> Delta:
        """What it is while a stage trains: a tower that trains whole is no base any more.

        Args:
            model: With the adapters of the stage.
            stage: Its name; that of its adapters begins with `adapters.STAGE`.
            train: Tower -> "lora", "full" or "frozen".
            lora: Tower -> settings of its adapters (r, alpha, targets), or None.
        """
        kept = {tower: base for tower, base in self.bases.items() if train[tower] != "full"}
        names = {each["name"] for each in self.adapters}
        stage = f"{adapters.STAGE}{stage}"
        numbered = (f"{stage}-{number}" for number in itertools.count(2))
        stage = next(name for name in itertools.chain([stage], numbered) if name not in names)
        new = []
        for tower in kept:
            if (settings := lora[tower]) is not None:
                targets = settings.targets or adapters.lora_targets(getattr(model, tower), tower)
                if isinstance(targets, str) and targets != "all-linear":  # a reader of the folder asks no expression
                    layers = adapters.adapted_layers(getattr(model, tower))
                    targets = [name for name, layer in layers if TRAINS in getattr(layer, "lora_A", ())]
                about = {"name": stage, "tower": tower, "r": settings.r, "alpha": settings.alpha, "targets": targets}
                new.append(about)
        old = [each for each in self.adapters if each["tower"] in kept]
        tensors = {name: t for name, t in self.tensors.items() if adapters.part_of(name) in kept}
        return Delta(kept, old, tensors, stage, new)

    def settings(self) -> dict[str, Any]:
        """What `config.json` says of it."""
        return {"bases": self.bases or None, "adapters": [*self.adapters, *self.new] if self.bases else None}

    def state_dict(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """The tensors of the folder, on the CPU."""
        whole = [part for part in adapters.PARTS if part not in self.bases]
        found = adapters.merged_state_dict(model, whole) | self.tensors
        for name, tensor in model.state_dict().items():
            if adapters.part_of(name) in self.bases and f".{TRAINS}." in name and adapters.is_adapter(name):
                found[name.replace(f".{TRAINS}.", f".{self.stage}.")] = tensor.detach().cpu().contiguous()
        return found


def expected(model: nn.Module, config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor in a folder of this configuration; `model` was made of it, and has no adapters."""
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
    """Put a delta together with its bases.

    Args:
        around: Makes the model of an encoder and an LLM; its connector and projection need no numbers.
        config: Of the model, as read from the folder.
        tensors: Likewise, by name.
        where: What messages call it.
        paths: Tower -> where its base lies now, where that is not where the folder says.
        merge: Whether all adapters are merged, in float32; else those on a half-precision tower stay beside it, frozen.
        device: Where the model goes.
        attn_implementation: As for transformers.
        made: A model of `config` on the CPU with any numbers; its towers serve where `fill` can fill them.

    Raises:
        ModelFolderError: A base is not to be had or is another one, or tensors do not fit.
        UsageError: `paths` names a tower whose base is not apart.
    """
    if strange := sorted(set(paths or {}) - set(config.bases)):
        raise UsageError(
            f"bases: {where} has no base {strange[0]!r} that lies elsewhere, but {', '.join(config.bases)}"
        )
    towers = {}
    for tower in TOWERS:
        known, own = config.bases.get(tower), getattr(config, tower)
        dtype = getattr(torch, (config.tower_dtypes or {}).get(tower, "float32"))
        if known is None:
            inside = {n.partition(".")[2]: t for n, t in tensors.items() if adapters.part_of(n) == tower}
            towers[tower] = _whole(own, tower, inside, dtype, device, attn_implementation)
            continue
        path = os.fspath((paths or {}).get(tower, known["path"]))
        base = Base(path, known.get("revision"), dtype, device, known.get("layers"))
        try:
            known_bases.refuse_other(known, path, f"{where}: its {tower}", ModelFolderError)
            _refuse_other_settings(own, read_config(base, tower), f"{where}/config.json: {tower}")
            module = made and fill(getattr(made, tower), base, tower)
            towers[tower] = module or read_backbone(base, tower, attn_implementation)
        except ModelFolderError:
            raise
        except LusiferError as error:
            raise ModelFolderError(f"{where}: its {tower} cannot be had: {error}") from error
    model = around(towers["encoder"], towers["llm"])
    _refuse_misfit(model, tensors, config, where)
    _add(model, tensors, config, merge, where)
    model.connector.to(device)
    if model.output_projection is not None:
        model.output_projection.to(device)
    return model.eval()


def _add(model: nn.Module, tensors: dict[str, torch.Tensor], config: PreTrainedConfig, merge: bool, where: str) -> None:
    """Give a model of two bases what training added: adapters, and the numbers of connector and projection.

    Raises:
        ModelFolderError: A merged weight is not finite.
    """
    beside = [tower for tower in TOWERS if not merge and getattr(model, tower).dtype != torch.float32]
    for about in config.adapters or []:
        if about["tower"] in beside:
            adapters.attach(model, about["tower"], about["r"], about["alpha"], 0.0, about["targets"], about["name"])
            continue
        try:
            adapters.fold(model, about, tensors)
        except LusiferError as error:
            raise ModelFolderError(f"{where}: {error}; {ADVICE}") from error
    for name, tensor in model.state_dict().items():
        if adapters.part_of(name) not in TOWERS or adapters.is_adapter(name):
            tensor.copy_(tensors[name])


def _refuse_other_settings(said: PreTrainedConfig, base: PreTrainedConfig, where: str) -> None:
    """Refuse settings of a tower that differ from its base's: the base's would count, and nobody would notice."""
    ours, theirs = said.to_dict(), base.to_dict()
    for key in sorted(ours.keys() | theirs.keys()):
        if key not in _OF_NO_ACCOUNT and ours.get(key) != theirs.get(key):
            words = f"{key}={ours.get(key)!r}, and the base has {theirs.get(key)!r}"
            raise ModelFolderError(f"{where}: {words}: settings of a base cannot be changed here; put it back")


def _whole(
    config: Any, tower: str, tensors: dict[str, torch.Tensor], dtype: torch.dtype, device: str, kernel: str | None
) -> nn.Module:
    """A tower whose weights are in the delta."""
    with backbones.described():
        cls = type(backbones.from_config(config, tower))
    kwargs = backbones.backbone(config.model_type, tower).kwargs | place(device)
    return cls.from_pretrained(
        None, config=config, state_dict=tensors, dtype=dtype, attn_implementation=kernel, **kwargs
    )


def _refuse_misfit(model: nn.Module, tensors: dict[str, torch.Tensor], config: PreTrainedConfig, where: str) -> None:
    """Refuse tensors that are not those of connector, projection and adapters; `model` has no adapters yet."""
    added = expected(model, config).items()
    wanted = {n: shape for n, shape in added if adapters.part_of(n) not in TOWERS or adapters.is_adapter(n)}
    found = {n: tuple(t.shape) for n, t in tensors.items() if adapters.part_of(n) in config.bases or n in wanted}
    if wrong := misfit(wanted, found):
        raise ModelFolderError(f"{where}: the weights do not fit config.json: tensors {wrong}; {ADVICE}")
    for name in wanted:
        if not tensors[name].is_floating_point():
            words = f"tensor {name} is {tensors[name].dtype}, no floating-point numbers; {ADVICE}"
            raise ModelFolderError(f"{where}: {words}")
