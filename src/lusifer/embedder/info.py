"""What a model folder holds, in words for `lusifer info`, from its configuration and the shapes of its tensors."""

from __future__ import annotations

import math
import os
from pathlib import Path

from lusifer.embedder import folder, int8
from lusifer.errors import ModelFolderError
from lusifer.io import hub, names
from lusifer.io.files import read_json
from lusifer.io.weights import WEIGHTS
from lusifer.model.config import LusiferConfig


def describe(path: str | os.PathLike[str]) -> dict[str, str]:
    """Describe a model, given as to `lusifer.load`: name -> value, in the order to show them.

    Raises:
        ModelFolderError: A file is missing or damaged.
    """
    found = names.model(path)
    root = found if isinstance(found, Path) else hub.fetch(found, folder.FILES)
    folder.check(root)
    config = _read(root / "config.json")
    limits = [
        _read(root / "tokenizer_config.json").get("model_max_length"),
        _read(root / "sentence_bert_config.json").get("max_seq_length"),
    ]
    # Tokenizers without a limit carry a number of thirty digits in its place.
    limit = min((limit for limit in limits if isinstance(limit, int) and limit < 10**9), default=None)
    rows = {"folder": str(found), "identity": folder.identity(root), "kind": config.get("model_type", "unknown")}
    if int8.is_int8(root):
        about = _read(root / int8.ABOUT)
        rows["numbers"] = f"{about.get('numbers')}, {about.get('format')}; scales from {about.get('texts')} texts"
        rows["dimension"] = str(LusiferConfig.from_dict(config).hidden_size)
    elif config.get("model_type") == LusiferConfig.model_type:
        rows |= _composite(LusiferConfig.from_dict(config), folder.weights(root))
    elif (root / WEIGHTS).is_file():
        rows |= {"weights": _count(folder.weights(root), "")}
    rows["tokens"] = f"{limit} a text at most" if limit else "no limit given"
    prompts = _read(root / "config_sentence_transformers.json").get("prompts") or {}
    for name, text in prompts.items():
        rows[f"prompt {name}"] = repr(text)
    return rows


def _composite(config: LusiferConfig, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """The parts of a LUSIFER model."""
    attention = "both directions" if config.bidirectional else "causal"
    kind = config.connector_type
    if config.connector_kwargs:
        kind += " (" + ", ".join(f"{key} {value}" for key, value in config.connector_kwargs.items()) + ")"
    return {
        "encoder": f"{config.encoder.model_type}, {_count(shapes, 'encoder.')}, states of {config.encoder.hidden_size}",
        "connector": f"{kind}, {_count(shapes, 'connector.')}, {config.num_soft_tokens} soft tokens",
        "llm": f"{config.llm.model_type}, {_count(shapes, 'llm.')}, attends in {attention}",
        "pooling": config.pooling
        + (", plus that of the LLM's input" if config.residual else "")
        + (", then output projection" if config.output_projection else ""),
        "positions": f"counted over {config.soft_token_position}",
        "dimension": str(config.hidden_size),
        "weights": _count(shapes, ""),
    }


def _count(shapes: dict[str, tuple[int, ...]], prefix: str) -> str:
    """Numbers in the tensors whose names begin with `prefix`."""
    total = sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(prefix))
    return f"{total:,} parameters"


def _read(file: Path) -> dict:
    """A JSON file; empty where an embedder of another layout has none there."""
    return read_json(file, folder.ADVICE, ModelFolderError) if file.is_file() else {}
