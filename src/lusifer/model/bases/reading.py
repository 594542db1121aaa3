"""Read a base: its configuration, its weights without pooler and head, and its LM head.

A base is an id on the Hub, a folder that `save_pretrained` wrote, a file that contains all of it (`packed`, `gguf`), or
a folder or file inside an installed package.
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
    """The source of a backbone, and the dtype, device and layers to load."""

    path: str
    """A folder, a file, `package:NAME`, or an id on the Hub."""
    revision: str | None = None
    """A commit, tag or branch of an id on the Hub."""
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    layers: int | None = None
    """The number of first layers to load; a norm after the last layer stays. None loads all."""


def place(device: str | torch.device) -> dict[str, Any]:
    """Return the keywords with which transformers loads weights directly to a device, without a copy on the CPU.

    The processes of a machine share its memory, and a 7B LLM in float32 takes 28 GB of it.
    """
    return {} if torch.device(device).type == "cpu" else {"device_map": {"": str(device)}}


def frozen_dtype() -> torch.dtype:
    """Return the dtype of frozen backbones: bfloat16 on a CUDA device that supports it, else float32."""
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def read_config(base: Base, backbone: str) -> PreTrainedConfig:
    """Read the configuration of a base, with the number of layers that `base` requests.

    Args:
        base: The base.
        backbone: "encoder" or "llm".

    Raises:
        UsageError: It is not found, a Git LFS pointer, a delta, adapters alone, quantized or not supported; it is local
            and has a revision; or it has fewer layers.
        LusiferError: A packed file is damaged.
    """
    path = names.base(base.path)
    if base.revision and Path(path).exists():
        words = f"{base.path} is on this machine, and only an id on the Hub has revisions: remove the key"
        raise UsageError(f"model.{backbone}.revision={base.revision!r}: {words}")
    _refuse_pointers(Path(path))
    kind = names.base_file(path)
    if kind is not None:
        config = (packed if kind == "packed" else gguf).read_config(Path(path))
    else:
        with hub.asking(_key(base, backbone), UsageError):
            commit = hub.commit(path, base.revision)
            config = AutoConfig.from_pretrained(path, revision=commit, trust_remote_code=False)
        if config.model_type == names.OWN_TYPE:
            if config.bases:
                words = "is a delta, which does not contain its bases: give the base itself, or use model.start"
                raise UsageError(f"{_key(base, backbone)}: {words}")
            config = getattr(config, backbone)
    return checked(config, base, backbone)


def checked(config: PreTrainedConfig, base: Base, backbone: str) -> PreTrainedConfig:
    """Check a configuration, apply the settings of its architecture, and reduce it to the layers of `base`.

    Args:
        config: The configuration.
        base: The base.
        backbone: "encoder" or "llm".

    Raises:
        UsageError: The base is quantized, not supported, or has fewer layers.
    """
    refuse_quantised(config, _key(base, backbone))
    config.update(backbones.find(config.model_type, backbone).settings)
    if base.layers is None:
        return config
    if base.layers > config.num_hidden_layers:
        has = f"{base.path} has {config.num_hidden_layers} layers: give a smaller number"
        raise UsageError(f"model.{backbone}.layers={base.layers}: {has}")
    return backbones.with_layers(config, base.layers)


def refuse_quantised(config: PreTrainedConfig, key: str) -> None:
    """Refuse a base with quantized weights, which cannot be trained, and into which adapters cannot be merged.

    Args:
        config: The configuration.
        key: The start of the message.

    Raises:
        UsageError: The weights are quantized.
    """
    how = getattr(config, "quantization_config", None)
    if how:
        method = how.get("quant_method") if isinstance(how, dict) else getattr(how, "quant_method", None)
        words = f"its weights are quantized ({method or 'unknown method'})"
        raise UsageError(f"{key}: {words}: give the original model")


def _refuse_pointers(path: Path) -> None:
    """Refuse a file that is a Git LFS pointer, and a folder that has one."""
    inside = [file for ending in ("json", "safetensors", "model") for file in path.glob(f"*.{ending}")]
    for file in [path] if path.is_file() else sorted(inside):
        refuse_pointer(file, UsageError)


def read_backbone(base: Base, backbone: str, attn_implementation: str | None = None) -> nn.Module:
    """Load a base without pooler and head, with the layers that `base` requests.

    Args:
        base: The base.
        backbone: "encoder" or "llm".
        attn_implementation: "sdpa" or "eager". None leaves it to transformers.

    Raises:
        UsageError: The base is not found or cannot be used.
        LusiferError: Weights are missing or damaged.
    """
    config = read_config(base, backbone)
    cls, facts = backbones.model_class(config.model_type, backbone), backbones.find(config.model_type, backbone)
    renamed = {"key_mapping": facts.renamed} if facts.renamed else {}
    return _read_weights(cls, base, backbone, attn_implementation=attn_implementation, **facts.kwargs, **renamed)


@contextmanager
def _without_report() -> Iterator[None]:
    """Suppress transformers' table of unused tensors: poolers and layers are left out on purpose."""

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
def _read_weights(cls: Any, base: Base, backbone: str, **kwargs: Any) -> nn.Module:
    """Load a model of class `cls`, and refuse missing tensors, which transformers fills with random numbers."""
    place_of, config = names.base(base.path), read_config(base, backbone)
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
    elif (tensors := _of_own(base, backbone)) is not None:
        with backbones.described():
            cls = type(backbones.from_config(config, backbone))  # an auto class would need a folder
        module, info = cls.from_pretrained(None, state_dict=tensors, **kwargs)
    else:
        try:
            with hub.asking(_key(base, backbone), UsageError):
                module, info = cls.from_pretrained(place_of, revision=hub.commit(place_of, base.revision), **kwargs)
        except SafetensorError as error:
            raise LusiferError(
                f"{base.path}: its weights are truncated or damaged ({error}): fetch the folder again"
            ) from error
    if info["missing_keys"]:
        some = sorted(info["missing_keys"])
        words = f"{len(some)} tensors are missing, such as {some[0]}: fetch it again"
        raise LusiferError(f"{base.path}: {words}")
    return module


def fill(module: nn.Module, base: Base, backbone: str) -> nn.Module | None:
    """Fill a module that only embeds with the weights of a base, if its tensors need no renaming.

    `read_backbone` makes a second module. Without it, a small model starts in two thirds of the time. Word embeddings
    of a packed base stay packed (`packed.WordEmbeddings`).

    Args:
        module: A module of the base's configuration, on the CPU. Its tensors are replaced.
        base: The base.
        backbone: "encoder" or "llm".

    Returns:
        The module; None if `read_backbone` is needed, and the module is unchanged.

    Raises:
        LusiferError: The file is truncated or damaged.
    """
    path, wanted = Path(names.base(base.path)), module.state_dict()
    words = None
    kind, file = names.base_file(path), path / weights.WEIGHTS
    # With float16, transformers keeps some parts in float32.
    if base.dtype == torch.float16 or backbones.find(module.config.model_type, backbone).renamed:
        return None
    if kind == "packed":
        if wanted.pop(packed.WORDS, None) is not None:
            words = packed.WordEmbeddings(path, module.config, base.dtype)
        tensors = packed.read_weights(path, module.config, base.dtype, wanted)
    elif kind is None and file.is_file() and not (path / weights.INDEX).exists():
        with weights.opened(file, "fetch the folder again") as stored:
            if not wanted.keys() <= set(stored.keys()):
                return None
            tensors = {name: stored.get_tensor(name).to(base.dtype) for name in wanted}
    else:
        return None
    if any(tensors[name].shape != tensor.shape for name, tensor in wanted.items()):
        return None
    if words is not None:
        module.set_input_embeddings(words)
    module.load_state_dict(tensors, strict=words is None, assign=True)
    return module


def is_own(base: Base, backbone: str) -> bool:
    """Whether a base is a LUSIFER model, by its `config.json`; one of its backbones is then the base.

    Args:
        base: The base.
        backbone: "encoder" or "llm", for the error message.

    Raises:
        UsageError: The base is not found.
    """
    path = names.base(base.path)
    if names.base_file(path) is not None:
        return False
    with hub.asking(_key(base, backbone), UsageError):
        file = cached_file(path, "config.json", revision=hub.commit(path, base.revision))
    return json.loads(Path(file).read_text("utf-8")).get("model_type") == names.OWN_TYPE


def _of_own(base: Base, backbone: str) -> dict[str, torch.Tensor] | None:
    """Read the tensors of a backbone in a LUSIFER model; None for any other base."""
    if not is_own(base, backbone):
        return None
    path = names.base(base.path)
    folder = Path(path)
    if not folder.is_dir():
        folder = hub.fetch(path, hub.MODEL_FILES, hub.commit(path, base.revision))
    found: dict[str, torch.Tensor] = {}
    for file in weights.files(folder, "copy the folder again"):
        with weights.opened(file, "copy the folder again") as tensors:
            own = [name for name in tensors.keys() if name.startswith(f"{backbone}.")]  # noqa: SIM118
            found |= {name.partition(".")[2]: tensors.get_tensor(name) for name in own}
    return found


def read_lm_head(base: Base, llm: nn.Module | None = None) -> nn.Module:
    """Load the frozen LM head of a decoder. The complete LLM is loaded only if the head cannot be read alone.

    Args:
        base: The LLM, with the dtype and device of the head.
        llm: The loaded LLM. A head that is tied to the word embeddings takes them from it.

    Raises:
        UsageError: The LLM is an encoder-style embedder and has no LM head.
    """
    config = read_config(base, "llm")
    if not backbones.is_decoder(config):
        raise UsageError(
            f"model.llm.path={base.path!r} ({config.model_type}): has no LM head, which reconstruction and completion "
            "need: use objectives: {distill: 1}"
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
    """Read one tensor of a base from its safetensors file; None if there is none or it cannot be read."""
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
        return None  # loading the complete LLM reports the damage


def _key(base: Base, backbone: str) -> str:
    """Return the name of a base in messages: its key in a recipe."""
    at = f" at revision {base.revision!r}" if base.revision else ""
    return f"model.{backbone}.path={base.path!r}{at}"
