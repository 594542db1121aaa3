"""The facts that `lusifer info` prints, read from a model's settings and the headers of its tensors.

No weights are loaded. `lusifer doctor` and loading check that the tensors fit the settings.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from lusifer.embedder import contents
from lusifer.embedder.identity import identity, limit
from lusifer.errors import ModelFolderError
from lusifer.io import hub, names
from lusifer.io.files import read_json
from lusifer.io.weights import WEIGHTS

# The defaults of `LusiferConfig` for settings that a folder may leave out.
DEFAULTS = {
    "connector_type": "ff", "connector_kwargs": {}, "num_soft_tokens": 0, "pooling": "mean",
    "output_projection": True, "bidirectional": True, "soft_token_position": "text",
}  # fmt: skip


def describe(path: str | os.PathLike[str]) -> dict[str, str]:
    """Describe a model that is named as for `lusifer.load`.

    Returns:
        Name of a fact -> its value, in the order to print.

    Raises:
        ModelFolderError: A file is missing or damaged.
        LusiferError: A packed file is damaged.
    """
    found = names.model(path)
    root = found if isinstance(found, Path) else hub.fetch(found, contents.FILES)
    if names.is_packed(root):
        return _packed(root)
    contents.check(root)
    config = _read(root / "config.json")
    rows = {"folder": str(found), "identity": identity(root), "kind": config.get("model_type", "unknown")}
    if contents.is_int8(root):
        about = _read(root / contents.ABOUT)
        rows["numbers"] = f"{about.get('numbers')}, {about.get('format')}; calibrated on {about.get('texts')} texts"
        rows["dimension"] = str(_hidden_size(root, config, "llm"))
    elif config.get("model_type") == contents.MODEL_TYPE:
        rows |= _composite(root, config, contents.weights(root))
    elif (root / WEIGHTS).is_file():
        rows |= {"weights": _count(contents.weights(root), "")}
    space = config.get("space") if config.get("model_type") == contents.MODEL_TYPE else None
    if space:
        about = f"{space['name']} (identity {space['identity']})"
        rows["space"] = f"that of {about}: documents embedded by that model need not be embedded again"
    if config.get("matryoshka_dims") and config.get("model_type") == contents.MODEL_TYPE:
        rows["shorter"] = f"trained to be shortened to {', '.join(map(str, config['matryoshka_dims']))} dimensions"
    most = limit(root)
    rows["tokens"] = f"at most {most} a text" if most else "no limit"
    prompts = _read(root / "config_sentence_transformers.json").get("prompts") or {}
    for name, text in prompts.items():
        rows[f"prompt {name}"] = repr(text)
    return rows


def _packed(file: Path) -> dict[str, str]:
    """Describe a packed file."""
    from lusifer.model.bases import packed  # imports torch, which a folder can do without

    config = packed.read_config(file)
    return {
        "file": str(file),
        "identity": identity(file),
        "kind": f"{config.model_type} with {config.num_hidden_layers} layers, packed in 4 bits",
        "dimension": str(config.hidden_size),
        "tokens": f"at most {config.max_position_embeddings} a text",
    }


def _composite(root: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Describe the parts of a LUSIFER model."""
    said = DEFAULTS | {key: value for key, value in config.items() if key in DEFAULTS and value is not None}
    attention = "both directions" if said["bidirectional"] else "causal"
    kind = said["connector_type"]
    if said["connector_kwargs"]:
        kind += " (" + ", ".join(f"{key} {value}" for key, value in dict(said["connector_kwargs"]).items()) + ")"
    encoder, llm = (_hidden_size(root, config, backbone) for backbone in ("encoder", "llm"))
    counts = {backbone: _of_backbone(shapes, config, backbone) for backbone in ("encoder", "llm")}
    return {
        "encoder": f"{config['encoder']['model_type']}, {counts['encoder']}, hidden size {encoder}",
        "connector": f"{kind}, {_count(shapes, 'connector.')}, {said['num_soft_tokens']} soft tokens",
        "llm": f"{config['llm']['model_type']}, {counts['llm']}, attends in {attention}",
        "pooling": said["pooling"] + (", then output projection" if said["output_projection"] else ""),
        "positions": f"counted over {said['soft_token_position']}",
        "dimension": str(llm),
        "weights": _count(shapes, ""),
    }


def _of_backbone(shapes: dict[str, tuple[int, ...]], config: dict[str, Any], backbone: str) -> str:
    """Describe the parameters of a backbone: their number, and in a delta where the base is."""
    here = _count(shapes, f"{backbone}.")
    base = (config.get("bases") or {}).get(backbone)
    if base is None:
        return here
    layers = f"the first {base['layers']} layers of " if base.get("layers") else ""
    state = base.get("revision") or base.get("version")
    where = f"{layers}{base['path']}{f' ({state})' if state else ''}"
    has_adapters = any(about["tower"] == backbone for about in config.get("adapters") or [])
    return f"{here} of adapters in this folder, the others in {where}" if has_adapters else where


def _hidden_size(root: Path, config: dict[str, Any], backbone: str) -> int:
    """The hidden size of a backbone; T5 names the setting `d_model`."""
    settings = config.get(backbone)
    size = (settings.get("hidden_size") or settings.get("d_model")) if isinstance(settings, dict) else None
    if not isinstance(size, int) or "model_type" not in settings:
        words = f"damaged, no model_type or hidden_size of the {backbone}; {contents.ADVICE}"
        raise ModelFolderError(f"{root / 'config.json'}: {words}")
    return size


def _count(shapes: dict[str, tuple[int, ...]], prefix: str) -> str:
    """Count the parameters of the tensors whose names begin with `prefix`."""
    total = sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(prefix))
    return f"{total:,} parameters"


def _read(file: Path) -> dict:
    """Read a JSON file; empty if the embedder has no such file."""
    return read_json(file, contents.ADVICE, ModelFolderError) if file.is_file() else {}
