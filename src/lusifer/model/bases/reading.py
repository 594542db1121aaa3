"""Read a base: its configuration, its weights without pooler or head, its LM head.

It is a hub name, a folder that `save_pretrained` wrote, a file that holds all of it (`packed`, `gguf`), or any of these
inside an installed package.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BertModel, GgufConfig, PreTrainedConfig
from transformers.utils import cached_file

from lusifer.errors import LusiferError, UsageError
from lusifer.io import hub, names, weights
from lusifer.io.files import refuse_pointer
from lusifer.model.bases import backbones, gguf, packed


@dataclass(frozen=True)
class Base:
    """Where a backbone comes from, `revision` for a hub name; where and in what it is held; how many of its layers."""

    path: str
    revision: str | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    layers: int | None = None
    """The first so many; the norm behind the last layer stays, where there is one. None: all."""


def place(device: str | torch.device) -> dict[str, Any]:
    """Keywords by which transformers loads weights straight to a device: by way of the CPU they would be there twice.

    Processes of one machine share its memory, and a 7B LLM in float32 takes 28 GB of it.
    """
    return {} if torch.device(device).type == "cpu" else {"device_map": {"": str(device)}}


def frozen_dtype() -> torch.dtype:
    """bf16 where the machine computes in it at speed (a CUDA device that supports it), else float32."""
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def read_config(base: Base, tower: str) -> PreTrainedConfig:
    """The configuration of a base with the layers that are wanted, refused unless its architecture was checked.

    Raises:
        UsageError: Not found, a revision of what is no hub name, adapters alone, a pointer of Git LFS, quantised, not a
            checked architecture, or it has fewer layers.
        LusiferError: A packed file is damaged.
    """
    path = names.base(base.path)
    if base.revision and Path(path).exists():
        words = f"{base.path} lies on this machine, and only a name on the hub has one: leave it out"
        raise UsageError(f"model.{tower}.revision={base.revision!r}: {words}")
    _refuse_pointers(Path(path))
    kind = names.base_file(path)
    if kind is not None:
        config = (packed if kind == "packed" else gguf).read_config(Path(path))
    else:
        with hub.asking(_key(base, tower), UsageError):
            commit = hub.commit(path, base.revision)
            config = AutoConfig.from_pretrained(path, revision=commit, trust_remote_code=False)
        if config.model_type == names.OWN_TYPE:
            if config.bases:
                words = "is a delta, which has no weights of its bases: give the base itself, or model.start"
                raise UsageError(f"{_key(base, tower)}: {words}")
            config = getattr(config, tower)
    return checked(config, base, tower)


def checked(config: PreTrainedConfig, base: Base, tower: str) -> PreTrainedConfig:
    """The configuration of a base cut to the layers that are wanted, with the settings that its kind needs here.

    Raises:
        UsageError: Quantised, not a checked architecture, or it has fewer layers.
    """
    refuse_quantised(config, _key(base, tower))
    config.update(backbones.backbone(config.model_type, tower).settings)
    if base.layers is None:
        return config
    if base.layers > config.num_hidden_layers:
        raise UsageError(f"model.{tower}.layers={base.layers}: {base.path} has {config.num_hidden_layers} layers")
    return backbones.with_layers(config, base.layers)


def refuse_quantised(config: PreTrainedConfig, key: str) -> None:
    """Refuse a base whose weights are no floating-point numbers: nothing could train them, nor merge adapters in them.

    Raises:
        UsageError: The message begins with `key`, and names the way it was quantised.
    """
    how = getattr(config, "quantization_config", None)
    if how:
        method = how.get("quant_method") if isinstance(how, dict) else getattr(how, "quant_method", None)
        words = f"its weights are quantised ({method or 'by a method that is not named'})"
        raise UsageError(f"{key}: {words}: give the model that it was made from")


def _refuse_pointers(path: Path) -> None:
    """Refuse a folder with pointers of Git LFS in place of its files, or a file that is one."""
    inside = [file for ending in ("json", "safetensors", "model") for file in path.glob(f"*.{ending}")]
    for file in [path] if path.is_file() else sorted(inside):
        refuse_pointer(file, UsageError)


def read_backbone(base: Base, tower: str, attn_implementation: str | None = None) -> nn.Module:
    """The weights of a base, without pooler or head; of layers that are not wanted nothing is held.

    Raises:
        UsageError: Not found or refused.
        LusiferError: Weights in the folder are missing or damaged.
    """
    config = read_config(base, tower)
    cls, facts = backbones.model_class(config.model_type, tower), backbones.backbone(config.model_type, tower)
    renamed = {"key_mapping": facts.renamed} if facts.renamed else {}
    return _read_weights(cls, base, tower, attn_implementation=attn_implementation, **facts.kwargs, **renamed)


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from a table of the tensors that are left out, as poolers and layers are on purpose."""

    def says_more(record: logging.LogRecord) -> bool:
        words = record.getMessage()
        return "LOAD REPORT" not in words or "MISSING" in words or "MISMATCH" in words

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(says_more)
    try:
        yield
    finally:
        logger.removeFilter(says_more)


@_without_report()
def _read_weights(cls: Any, base: Base, tower: str, **kwargs: Any) -> nn.Module:
    """A model of class `cls` whose every tensor came from the base; transformers would draw what is missing."""
    place_of, config = names.base(base.path), read_config(base, tower)
    kind, file = names.base_file(place_of), Path(place_of)
    kwargs |= {"config": config, "dtype": base.dtype, "output_loading_info": True, **place(base.device)}
    kwargs |= {"trust_remote_code": False}
    if kind == "packed":
        kwargs |= {"state_dict": packed.read_weights(file, config, base.dtype)}
        module, info = BertModel.from_pretrained(None, **kwargs)
    elif kind == "gguf":
        kwargs |= {"quantization_config": GgufConfig(dequantize=True)}
        with gguf.reading(file):
            module, info = cls.from_pretrained(**gguf.where(file), **kwargs)
    elif (tensors := _of_own(base, tower)) is not None:
        with backbones.described():
            cls = type(backbones.from_config(config, tower))  # an automatic class wants a folder
        module, info = cls.from_pretrained(None, state_dict=tensors, **kwargs)
    else:
        try:
            with hub.asking(_key(base, tower), UsageError):
                module, info = cls.from_pretrained(place_of, revision=hub.commit(place_of, base.revision), **kwargs)
        except SafetensorError as error:
            raise LusiferError(
                f"{base.path}: its weights are truncated or damaged ({error}); fetch the folder anew"
            ) from error
    if info["missing_keys"]:
        some = sorted(info["missing_keys"])
        raise LusiferError(f"{base.path}: {len(some)} tensors are missing, {some[0]} among them; fetch it anew")
    return module


def fill(module: nn.Module, base: Base, tower: str) -> nn.Module | None:
    """Give a module the numbers that `read_backbone` would read, where that takes no more than reading them.

    transformers makes a second module to read into, and renames, converts and casts where it must: not for a packed
    file or a folder whose tensors bear the module's own names. Reading them alone saves a small model a third of its
    start.

    Args:
        module: Of the base's configuration, on the CPU; its tensors are replaced.
        base: Where the numbers are.
        tower: "encoder" or "llm".

    Returns:
        The module, or None, and then it is as it was.

    Raises:
        LusiferError: The file is truncated or damaged.
    """
    path, wanted = Path(names.base(base.path)), module.state_dict()
    kind, file = names.base_file(path), path / weights.WEIGHTS
    # In float16 transformers keeps some parts in float32.
    if base.dtype == torch.float16 or backbones.backbone(module.config.model_type, tower).renamed:
        return None
    if kind == "packed":
        tensors = packed.read_weights(path, module.config, base.dtype, wanted)
    elif kind is None and file.is_file() and not (path / weights.INDEX).exists():
        with weights.opened(file, "fetch the folder anew") as stored:
            if not wanted.keys() <= set(stored.keys()):
                return None
            tensors = {name: stored.get_tensor(name).to(base.dtype) for name in wanted}
    else:
        return None
    if any(tensors[name].shape != tensor.shape for name, tensor in wanted.items()):
        return None
    module.load_state_dict(tensors, assign=True)
    return module


def is_own(base: Base, tower: str) -> bool:
    """Whether a base is one tower of a finished model of this project, by its `config.json`.

    Raises:
        UsageError: Not found.
    """
    path = names.base(base.path)
    if names.base_file(path) is not None:
        return False
    with hub.asking(_key(base, tower), UsageError):
        file = cached_file(path, "config.json", revision=hub.commit(path, base.revision))
    return json.loads(Path(file).read_text("utf-8")).get("model_type") == names.OWN_TYPE


def _of_own(base: Base, tower: str) -> dict[str, torch.Tensor] | None:
    """The tensors of a tower in a model of this project; None of any other folder or name."""
    if not is_own(base, tower):
        return None
    path = names.base(base.path)
    folder = Path(path)
    if not folder.is_dir():
        folder = hub.fetch(path, hub.MODEL_FILES, hub.commit(path, base.revision))
    found: dict[str, torch.Tensor] = {}
    for file in weights.files(folder, "copy the folder again"):
        with weights.opened(file, "copy the folder again") as tensors:
            own = [name for name in tensors.keys() if name.startswith(f"{tower}.")]  # noqa: SIM118
            found |= {name.partition(".")[2]: tensors.get_tensor(name) for name in own}
    return found


def read_lm_head(base: Base, llm: nn.Module | None = None) -> nn.Module:
    """The LM head of a decoder, frozen.

    The whole LLM is read for it only where nothing less will do.

    Args:
        base: The LLM, and what the head is held in.
        llm: Its backbone as loaded: a head that shares the word embeddings takes them from it.

    Raises:
        UsageError: The LLM is an encoder-style embedder and has none.
    """
    config = read_config(base, "llm")
    if not backbones.is_decoder(config):
        raise UsageError(
            f"model.llm.path={base.path!r} ({config.model_type}) has no LM head: reconstruction and completion need "
            "one; use objectives: {distill: 1}"
        )
    with backbones.described():
        full = AutoModelForCausalLM.from_config(config)
    head = full.get_output_embeddings()
    name = next(f"{name}.weight" for name, module in full.named_modules() if module is head)
    words = llm.get_input_embeddings().weight if llm is not None and config.tie_word_embeddings else None
    found = _one_tensor(base, name) if words is None else words
    if isinstance(head, nn.Linear) and head.bias is None and found is not None and found.shape == head.weight.shape:
        head.weight = nn.Parameter(found.to(base.device, base.dtype), requires_grad=False)
        return head
    full = _read_weights(AutoModelForCausalLM, base, "llm")
    return full.get_output_embeddings().requires_grad_(False)


def _one_tensor(base: Base, name: str) -> torch.Tensor | None:
    """A tensor of a base, read alone from its safetensors file; None where it is in none or cannot be read."""
    path = names.base(base.path)
    if not Path(path).is_dir() and Path(path).exists():
        return None
    with hub.asking(_key(base, "llm"), UsageError):
        keywords = {"revision": hub.commit(path, base.revision), "_raise_exceptions_for_missing_entries": False}
        index = cached_file(path, weights.INDEX, **keywords)
        file = weights.WEIGHTS if index is None else json.loads(Path(index).read_text("utf-8"))["weight_map"].get(name)
        found = cached_file(path, file, **keywords) if file else None
    if found is None:
        return None
    try:
        with safe_open(found, framework="pt") as tensors:
            return tensors.get_tensor(name) if name in tensors.keys() else None  # noqa: SIM118
    except SafetensorError:
        return None  # said by who reads the whole


def _key(base: Base, tower: str) -> str:
    """How messages name a base: by its place in a recipe."""
    at = f" at revision {base.revision!r}" if base.revision else ""
    return f"model.{tower}.path={base.path!r}{at}"
