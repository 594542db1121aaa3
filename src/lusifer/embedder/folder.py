"""The model folder: how it is written, checked, loaded and identified; models of others are loaded too."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer

from lusifer.embedder import int8
from lusifer.errors import ModelFolderError, UsageError
from lusifer.io import hub, names
from lusifer.io.files import read_json, sha256, write_folder
from lusifer.io.weights import files, misfit, opened
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferModel

REQUIRED = (
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
# Of a repository on the hub nothing else is fetched: others keep the same weights in three formats.
FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md", int8.GRAPH, int8.NUMBERS)
ADAPTERS = "adapter_config.json"
ADVICE = "copy or save the folder again"
# Versions of libraries; a switch that sentence-transformers turns off when it loads; what the last call asked for.
TRACES = ("__version__", "transformers_version", "use_cache", "padding", "truncation")


def save(embedder: SentenceTransformer, target: str | os.PathLike[str], card: str | None = None) -> None:
    """Write an embedder as a complete folder, whole or not at all, in place of an old one; adapters are merged in it.

    `card` is the text of README.md; without it there is none.
    """
    with write_folder(target) as temporary:
        embedder.save_pretrained(str(temporary), create_model_card=False)
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")


def load(
    name_or_path: str | os.PathLike[str],
    device: str | None = None,
    *,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> SentenceTransformer:
    """Load one of our models, which is checked first, or any embedder of sentence-transformers.

    Args:
        name_or_path: A folder, the name of a model that comes with the library, `package:NAME`, or a hub id.
        device: None takes the best one of the machine.
        dtype: Number format of the backbones, as in "bfloat16"; None is the one they were saved in.
        attn_implementation: "sdpa" or "eager"; None leaves it to transformers.

    Raises:
        ModelFolderError: A file is missing or damaged, or the hub does not give the model.
        MissingExtraError: An int8 folder, and OpenVINO is not installed.
        UsageError: There is no model of that name, or an int8 folder does not have this device, dtype or attention.
    """
    wishes = {"dtype": dtype, "attn_implementation": attn_implementation}
    wishes = {key: value for key, value in wishes.items() if value is not None}
    found = names.model(name_or_path)
    if isinstance(found, Path):
        check(found)
    else:
        start = hub.fetch(found, ["config.json"])
        config = start / "config.json"
        if not config.is_file() or _read_json(config).get("model_type") != LusiferConfig.model_type:
            with hub.asking(found, ModelFolderError):
                # The folder is called by its commit.
                return SentenceTransformer(found, device=device, revision=start.name, model_kwargs=wishes)
        name, found = found, hub.fetch(found, FILES)
        try:
            check(found)  # transformers would draw a missing tensor
        except ModelFolderError as error:
            raise ModelFolderError(f"{name}: what the hub gives is not whole: {error}") from error
    if int8.is_int8(found):
        return int8.load(found, device, **wishes)
    try:
        made = SentenceTransformer(str(found), device=device, local_files_only=True, model_kwargs=wishes)
    except (OSError, ValueError, ImportError) as error:
        if _is_ours(found):
            raise
        raise ModelFolderError(f"{found}: sentence-transformers cannot load it: {hub.why(error)}") from error
    has_transformer = (found / "config.json").is_file()  # which was given the number format
    return made if has_transformer or dtype is None else made.to(getattr(torch, str(dtype).removeprefix("torch.")))


def load_cross_encoder(
    name_or_path: str, *, device: str | None = None, batch_size: int = 32
) -> Callable[[Sequence[tuple[str, str]]], np.ndarray]:
    """Load a cross-encoder of sentence-transformers, from a folder or the hub.

    Returns:
        Pairs -> (n,) float32, higher for a text that answers the query.

    Raises:
        UsageError: It cannot be loaded, or gives more than one score for a pair.
    """
    try:
        model = CrossEncoder(name_or_path, device=device, local_files_only=Path(name_or_path).is_dir())
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{name_or_path}: is no cross-encoder that can be loaded ({first})") from error
    if model.num_labels != 1:
        raise UsageError(f"{name_or_path}: gives {model.num_labels} scores a pair: take a cross-encoder with one")

    def scores(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        return np.asarray(model.predict(list(pairs), batch_size=batch_size, show_progress_bar=False), np.float32)

    return scores


def check(path: str | os.PathLike[str]) -> None:
    """Refuse a folder that is not whole: files, JSON, and every tensor the configuration asks for.

    Raises:
        ModelFolderError: Names the file and what is wrong with it.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelFolderError(f"{folder}: is a file; give the model folder that holds modules.json")
    if int8.is_int8(folder):
        int8.check(folder)
        return
    if (folder / ADAPTERS).is_file() and not (folder / "config.json").is_file():
        _check_adapters(folder)
        return
    ours = _is_ours(folder)
    for name in REQUIRED[1:] if ours else ():
        _read_json(folder / name, dict)
    _check_modules(folder, ours)
    if not ours:
        return  # an embedder of another kind (MiniLM, say): sentence-transformers checks it
    try:
        Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises nothing more special
        words = f"damaged, no tokenizer ({error}); {ADVICE}"
        raise ModelFolderError(f"{folder / 'tokenizer.json'}: {words}") from error
    config = _read_json(folder / "config.json")
    found = weights(folder)
    try:
        with torch.device("meta"):
            model = LusiferModel(LusiferConfig.from_dict(config))
    except ValueError as error:
        raise ModelFolderError(f"{folder / 'config.json'}: {error}") from error
    except (TypeError, AttributeError, KeyError) as error:  # a text where a number belongs, a number for an object
        words = f"makes no model ({type(error).__name__}: {error}); {ADVICE}"
        raise ModelFolderError(f"{folder / 'config.json'}: {words}") from error
    for one, other in model.all_tied_weights_keys.items():  # T5: one tensor, stored under one of its two names
        if (one in found) != (other in found):
            found[one] = found[other] = found.get(one) or found[other]
    wrong = misfit({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, found)
    if wrong:
        raise ModelFolderError(f"{folder}: the weights do not fit config.json: tensors {wrong}; {ADVICE}")


def _check_adapters(folder: Path) -> None:
    """Refuse a folder with peft's adapters alone unless they and their base, where that is a folder, are there."""
    base = _read_json(folder / ADAPTERS, dict).get("base_model_name_or_path")
    with opened(folder / "adapter_model.safetensors", ADVICE):
        pass
    if not base:
        raise ModelFolderError(f"{folder / ADAPTERS}: names no base model: save the whole model instead")
    if Path(base).is_dir():
        check(base)
    elif Path(base).is_absolute():
        words = f"{base}, the base of these adapters, is not there: put it back, or save the whole model instead"
        raise ModelFolderError(f"{folder / ADAPTERS}: {words}")


def _is_ours(folder: Path) -> bool:
    """Whether a folder claims to be a model of this project; others keep their files where they like."""
    if not (folder / "config.json").is_file():
        # Without it only a folder with a transformer at its root can have been ours.
        modules = [module for module in _read_json(folder / "modules.json", list) if isinstance(module, dict)]
        return any(module.get("path") == "" and str(module.get("type")).endswith("Transformer") for module in modules)
    config = _read_json(folder / "config.json")
    return not isinstance(config, dict) or config.get("model_type") == LusiferConfig.model_type


def _check_modules(folder: Path, ours: bool) -> None:
    """Refuse a modules.json whose entries say nothing, or whose folders are not there.

    Of other embedders Normalize may lack its folder: it needs no file, and git keeps no empty folder.
    """
    file = folder / "modules.json"
    modules = _read_json(file, list)
    for module in modules:
        known = isinstance(module, dict) and all(isinstance(module.get(key), str) for key in ("name", "path", "type"))
        if not known:
            raise ModelFolderError(f"{file}: damaged, no name, path and type for each; {ADVICE}")
        place = folder / module["path"]
        spared = not ours and module["type"].endswith(".Normalize")
        if not spared and not place.is_dir():
            raise ModelFolderError(f"{place}: missing, named in {file}; {ADVICE}")
    if not modules:
        raise ModelFolderError(f"{file}: damaged, no module in it; {ADVICE}")


def weights(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the folder's safetensors files, read from their headers.

    Raises:
        ModelFolderError: A file is missing, truncated or no safetensors file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files(folder, ADVICE):
        with opened(file, ADVICE) as tensors:
            shapes |= {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    return shapes


def identity(path: str | os.PathLike[str]) -> str:
    """A name for exactly these weights, prompts and limits: 12 hexadecimal digits of a SHA-256.

    mteb keeps scores by model name; two folders without names of their own would share one cache.
    """
    folder = Path(path)
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("openvino_model.*")]):
        digest.update(bytes.fromhex(sha256(file)))
    files = [folder / name for name in REQUIRED if (folder / name).exists()]
    # Of another embedder a pooling, a projection or the whole backbone may lie in a folder of its own.
    modules = _read_json(folder / "modules.json") if (folder / "modules.json").is_file() else []
    for place in sorted(module["path"] for module in modules if module.get("path")):
        files += sorted(file for file in (folder / place).rglob("*") if file.is_file())
    for file in files:
        if file.suffix == ".json":
            digest.update(json.dumps(_lasting(_read_json(file)), sort_keys=True).encode())
        else:
            digest.update(bytes.fromhex(sha256(file)))
    return digest.hexdigest()[:12]


def identity_in_memory(embedder: SentenceTransformer) -> str:
    """Name the weights, settings, prompts and limit of a model that lies in no folder, as `identity` does for one."""
    digest = hashlib.sha256()
    for name, tensor in sorted(embedder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    parts = [getattr(getattr(embedder[0], "model", None), "digest", None)]
    parts += [dict(embedder.prompts), embedder.default_prompt_name, embedder.max_seq_length]
    configs = [getattr(module, "config", None) for module in embedder.modules()]
    parts += [_lasting(config.to_dict()) for config in configs if hasattr(config, "to_dict")]
    digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]


def _lasting(content: Any) -> Any:
    """What a folder says, without the traces that loading, a call or another version of a library leaves in it."""
    if not isinstance(content, dict):
        return content
    return {key: _lasting(value) for key, value in content.items() if key not in TRACES}


def _read_json(file: Path, kind: type | None = None) -> Any:
    if not file.is_file():
        raise ModelFolderError(f"{file}: missing; a model folder is what `lusifer train` or `lusifer convert` writes")
    return read_json(file, ADVICE, ModelFolderError, kind)
