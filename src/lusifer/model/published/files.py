"""What lies in the folder of an authors' checkpoint: settings, and tensors by our names.

| theirs | ours |
|-|-|
| `universal_learner.[base_model.model.]K` | `encoder.K`, without the pooler |
| `encoder.[base_model.model.]model.K` | `llm.K` |
| `encoder.[base_model.model.]lm_head.weight` | the LM head, kept apart |
| `K.base_layer.weight`, `K.lora_A.NAME.weight`, `K.lora_B.NAME.weight` | `K.weight` and its adapter |
| `connection_module.added_tokens` | `connector.soft_tokens` |
| `connection_module.K` | `connector.mapping.K` |
| of an embedding table: `connection_module.ff.0.K` | `connector.mapping.vocabulary.K` |
| of an embedding table: `connection_module.embedding.weight` | `connector.mapping.table` |
| `output_projection.K` | `output_projection.K` |
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file

from lusifer.errors import ModelFolderError
from lusifer.io import hub

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Names in their config.json: what they call the universal learner is our encoder, what they call encoder our LLM.
NAMES = {"encoder": "universal_learner_name_or_path", "llm": "encoder_name_or_path"}
TYPES = {"encoder": "universal_learner_backbone_type", "llm": "encoder_backbone_type"}
REQUIRED = (
    *NAMES.values(), *TYPES.values(), "connection_type", "num_added_tokens", "pooling_method", "loar_r", "lora_alpha",
)  # fmt: skip
# What their constructor can build; both are linear layers called `ff`, so the names alone do not tell them apart.
CONNECTIONS = ("ff", "embedding_table")
Adapters = dict[str, tuple[torch.Tensor, torch.Tensor]]

_PREFIXES = (
    (re.compile(r"^universal_learner\.(base_model\.model\.)?"), "encoder."),
    (re.compile(r"^encoder\.(base_model\.model\.)?model\."), "llm."),
    (re.compile(r"^encoder\.(base_model\.model\.)?lm_head\."), "lm_head."),
    (re.compile(r"^connection_module\.added_tokens$"), "connector.soft_tokens"),
    (re.compile(r"^connection_module\."), "connector.mapping."),
)
_TABLE = "connector.mapping.table"
_TABLE_PREFIXES = (
    (re.compile(r"^connector\.mapping\.ff\.0\."), "connector.mapping.vocabulary."),
    (re.compile(r"^connector\.mapping\.embedding\.weight$"), _TABLE),
)
_LORA = re.compile(r"^(.+)\.lora_([AB])\.[^.]+\.weight$")
_HEAD = "lm_head.weight"
_WORDS = "llm.embed_tokens.weight"
# Tied tensors: safetensors stores one of the two.
_TIED = (("encoder.shared.weight", "encoder.encoder.embed_tokens.weight"), (_HEAD, _WORDS))


def rename(key: str, connection_type: str = "ff") -> str:
    """Our name of a tensor; a name that their format does not have comes back as it is."""
    for pattern, replacement in _PREFIXES:
        if pattern.match(key):
            key = pattern.sub(replacement, key).replace(".base_layer.", ".")
            break
    for pattern, replacement in _TABLE_PREFIXES if connection_type == "embedding_table" else ():
        key = pattern.sub(replacement, key)
    return key


def sort_tensors(
    tensors: dict[str, torch.Tensor], connection_type: str = "ff"
) -> tuple[dict[str, torch.Tensor], Adapters, torch.Tensor | None]:
    """Sort a checkpoint's state dict into plain weights, adapters and LM head.

    Args:
        tensors: by their names. Their dtypes may differ; they are handed on as they are.
        connection_type: one of `CONNECTIONS`.

    Returns:
        Plain weights by our names; adapters by our name of the layer, as (A (r, in), B (out, r)); the LM head's
        weight (vocabulary, d), the word embeddings themselves where the two are tied. The pooler is gone with its
        adapters: nothing ever reads it. Half of an adapter stays among the weights, where the check of names refuses
        it.
    """
    plain: dict[str, torch.Tensor] = {}
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name = rename(key, connection_type)
        if name.startswith("encoder.pooler."):
            continue
        adapter = _LORA.match(name)
        if adapter and not name.startswith("lm_head"):
            halves.setdefault(adapter[1], {})[adapter[2]] = tensor
        else:
            plain[name] = tensor
    lora: Adapters = {}
    for layer, half in halves.items():
        if len(half) == 2 and f"{layer}.weight" in plain:
            lora[layer] = (half["A"], half["B"])
        else:
            plain |= {f"{layer}.lora_{side}": tensor for side, tensor in half.items()}
    if _TABLE in plain and _WORDS not in plain:
        # Their table is born in the memory of the LLM's word embeddings; while it stays there, safetensors stores it
        # alone, as the first of the names. A copy, since ours are two weights.
        plain[_WORDS] = plain[_TABLE].clone()
    for one, other in _TIED:
        if (one in plain) != (other in plain):
            plain[one] = plain[other] = plain.get(one, plain.get(other))
    return plain, lora, plain.pop(_HEAD, None)


def locate(source: str | Path) -> Path:
    """The folder of a checkpoint; a hub name is downloaded (configuration and weights only).

    Raises:
        ModelFolderError: no such folder, and the hub does not give it.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists() or str(source).startswith((".", "/", "~")) or str(source).count("/") != 1:
        raise ModelFolderError(f"{source}: no such folder; give the authors' checkpoint, or its hub name (owner/model)")
    with hub.asking(f"{source}: {hub.NO_FOLDER}", ModelFolderError):
        return Path(snapshot_download(str(source), allow_patterns=["config.json", "*.safetensors", INDEX]))


def read_settings(folder: Path) -> dict[str, Any]:
    """The constructor's arguments in config.json, as their constructor understands them.

    It makes an `ff` of `attn` without added tokens, and an embedding table has no added tokens whatever is asked for.

    Raises:
        ModelFolderError: missing, damaged, or not the authors' format.
    """
    settings = _read_json(folder / "config.json")
    missing = [key for key in REQUIRED if key not in settings]
    if missing:
        raise ModelFolderError(
            f"{folder / 'config.json'}: no {', '.join(missing)}; this is not a checkpoint in the authors' format "
            "(a folder of this project needs no conversion)"
        )
    if settings["connection_type"] == "attn" and settings["num_added_tokens"] == 0:
        settings["connection_type"] = "ff"
    if settings["connection_type"] == "embedding_table":
        settings["num_added_tokens"] = 0
    if settings["connection_type"] not in CONNECTIONS:
        raise ModelFolderError(
            f"{folder / 'config.json'}: connection_type={settings['connection_type']!r} cannot be converted; the "
            f"published code builds {' and '.join(CONNECTIONS)} only ('attn' is among its options, and is 'ff' where "
            "num_added_tokens is 0)"
        )
    return settings


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of model.safetensors, or of the files that its index names.

    Raises:
        ModelFolderError: a file is missing or damaged.
    """
    names = [WEIGHTS]
    if not (folder / WEIGHTS).exists() and (folder / INDEX).exists():
        names = sorted(set(_read_json(folder / INDEX)["weight_map"].values()))
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        try:
            tensors |= load_file(folder / name)
        except FileNotFoundError as error:
            raise ModelFolderError(f"{folder / name}: missing; fetch the checkpoint again") from error
        except SafetensorError as error:
            raise ModelFolderError(f"{folder / name}: truncated or damaged ({error}); fetch it again") from error
    return tensors


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFolderError(f"{file}: missing; give the authors' checkpoint") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelFolderError(f"{file}: truncated or damaged ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{file}: not a JSON object; give the authors' checkpoint")
    return content
