"""What a model is made of, in words, from its folder; the weights stay on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lusifer.embedder import exported, folder
from lusifer.errors import ModelFolderError
from lusifer.model.config import LusiferConfig


def describe(path: str | os.PathLike[str]) -> dict[str, str]:
    """Describe a model.

    Args:
        path: A sentence-transformers folder, or the name of one on the hub.

    Returns:
        Name -> value, in the order to show them.

    Raises:
        ModelFolderError: A file is missing or damaged.
    """
    root = Path(path).expanduser()
    if not root.exists():
        if root.is_absolute() or os.fspath(path).startswith((".", "~")) or os.fspath(path).count("/") != 1:
            raise ModelFolderError(f"{path}: no such folder")
        root = folder.fetch(os.fspath(path))
    folder.check(root)
    config = _read(root / "config.json")
    limit = _limit(root)
    rows = {"folder": str(path), "identity": folder.identity(root), "kind": config.get("model_type", "unknown")}
    if exported.is_exported(root):
        about = _read(root / exported.ABOUT)
        rows["numbers"] = f"{about.get('numbers')}, {about.get('format')}; scales from {about.get('texts')} texts"
        rows["dimension"] = str(LusiferConfig.from_dict(config).hidden_size)
    elif config.get("model_type") == LusiferConfig.model_type:
        rows |= _lusifer(LusiferConfig.from_dict(config), folder.weights(root))
    elif (root / folder.WEIGHTS).is_file():
        rows |= {"weights": _count(folder.weights(root), "")}
    rows["tokens"] = f"{limit} a text at most" if limit else "no limit given"
    prompts = _read(root / "config_sentence_transformers.json").get("prompts") or {}
    for name, text in prompts.items():
        rows[f"prompt {name}"] = repr(text)
    return rows


def _lusifer(config: LusiferConfig, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
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
    total = 0
    for name, shape in shapes.items():
        if name.startswith(prefix):
            size = 1
            for length in shape:
                size *= length
            total += size
    return f"{total:,} parameters"


def _limit(root: Path) -> int | None:
    """Most tokens of a text: the smallest limit that the folder names."""
    named = [
        _read(root / "tokenizer_config.json").get("model_max_length"),
        _read(root / "sentence_bert_config.json").get("max_seq_length"),
    ]
    # Tokenizers without a limit carry a number of thirty digits in its place.
    return min((limit for limit in named if isinstance(limit, int) and limit < 10**9), default=None)


def _read(file: Path) -> dict:
    """A JSON file; empty where an embedder of another layout has none there."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
