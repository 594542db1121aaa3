"""The identity of a model: 12 hexadecimal digits of a SHA-256 over its weights, settings, prompts and limits.

mteb stores scores by model name, and two local folders would share one cache without it. A copy that was loaded and
saved again has the same identity, although libraries write the same model in different ways: other files for the
tensors, explicit defaults, settings of the last call. A LUSIFER model is written in the same way each time, so its
settings count as they are; the settings of another embedder are normalized first. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lusifer.embedder import contents
from lusifer.errors import ModelFolderError
from lusifer.io import hub, names, weights
from lusifer.io.files import sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Versions of libraries, a setting that sentence-transformers turns off on loading, and settings of the last call.
TRACES = ("__version__", "transformers_version", "use_cache", "padding", "truncation")
PLACES = ("_name_or_path", "name_or_path")
"""The place that a model was loaded from."""
# Defaults that libraries may write or leave out: such a value counts as a missing key.
_DEFAULTS = {
    "config.json": {
        "return_dict": True, "output_hidden_states": False, "output_attentions": False, "chunk_size_feed_forward": 0,
        "is_encoder_decoder": False, "is_decoder": False, "add_cross_attention": False, "tie_word_embeddings": True,
        "gradient_checkpointing": False, "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
        "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    },
    "sentence_bert_config.json": {
        "do_lower_case": False, "transformer_task": "feature-extraction", "module_output_name": "token_embeddings",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    },
    "tokenizer_config.json": {
        "padding_side": "right", "truncation_side": "right", "clean_up_tokenization_spaces": False,
    },
    "module": {
        "include_prompt": True, "module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding",
    },
}  # fmt: skip
# Keys that do not change the vectors, or repeat the tensors, `tokenizer.json` or the limit.
_ASIDE = {
    "config.json": ("architectures", "dtype", "torch_dtype"),
    "sentence_bert_config.json": ("max_seq_length",),
    "tokenizer_config.json": (
        "backend", "is_local", "local_files_only", "max_length", "model_max_length", "pad_to_multiple_of",
        "pad_token_type_id", "stride", "truncation_strategy", "special_tokens_map_file", "tokenizer_file",
        "tokenizer_class", "added_tokens_decoder", "extra_special_tokens", "additional_special_tokens",
        "processor_class", "model_input_names", "do_basic_tokenize", "never_split",
    ),
    "module": ("embedding_dimension", "word_embedding_dimension"),
    contents.ADAPTERS: ("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "task_type"),
}  # fmt: skip
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
_NAMED_APART = ("config.json", weights.WEIGHTS, contents.LANGUAGES)
"""Files of a module that are counted separately, or do not change its vectors."""
_POOLINGS = {"cls_token": "cls", "max_tokens": "max", "mean_tokens": "mean", "weightedmean_tokens": "weightedmean"}
"""Older names of pooling modes, after `pooling_mode_`."""


def identity(path: str | os.PathLike[str]) -> str:
    """Compute the identity of a model folder or of a packed file.

    Raises:
        ModelFolderError: A file is damaged.
    """
    folder = Path(path)
    if folder.is_file():
        return sha256(folder)[:12]
    digest = hashlib.sha256()
    if (folder / "config.json").is_file() and contents.is_ours(folder):
        for part in _own(folder):
            digest.update(part)
    else:
        digest.update(_words(list(_other(folder))))
    return digest.hexdigest()[:12]


def of_model(name: str | os.PathLike[str]) -> str:
    """Compute the identity of a model that is named as for `lusifer.load`.

    Returns:
        12 hexadecimal digits; for an embedder on the Hub that is no LUSIFER model its id and commit, "ID@COMMIT".

    Raises:
        UsageError: There is no model of that name.
        ModelFolderError: A file is damaged, or the Hub does not deliver the model.
    """
    found = names.model(name)
    if isinstance(found, Path):
        return identity(found)
    folder = hub.fetch(found, ["config.json"])
    if not (folder / "config.json").is_file() or not contents.is_ours(folder):
        return f"{found}@{folder.name}"
    return identity(hub.fetch(found, contents.FILES))


def identity_in_memory(embedder: SentenceTransformer) -> str:
    """Compute an identity of a model in memory from its weights, settings, prompts and limit.

    It differs from the identity of a folder that the model is saved in.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(embedder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    parts = [getattr(getattr(embedder[0], "model", None), "digest", None)]
    parts += [dict(embedder.prompts), embedder.default_prompt_name, embedder.max_seq_length]
    configs = [getattr(module, "config", None) for module in embedder.modules()]
    parts += [_lasting(config.to_dict(), PLACES) for config in configs if hasattr(config, "to_dict")]
    # Modules that have no transformers configuration, such as pooling.
    parts += [module.get_config_dict() for module in list(embedder)[1:] if hasattr(module, "get_config_dict")]
    digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]


def _own(folder: Path) -> Iterator[bytes]:
    """Yield what counts of a LUSIFER model: its tensors and settings, unchanged."""
    tensors = weights.files(folder, contents.ADVICE)
    if any(file.is_file() for file in tensors):
        yield bytes.fromhex(weights.digest(tensors, contents.ADVICE))
    files = [*sorted(folder.glob("openvino_model.*")), *(folder / name for name in contents.REQUIRED)]
    for module in _modules(folder):
        place = folder / module["path"]
        files += sorted(file for file in place.rglob("*") if file.is_file()) if module["path"] else []
    for file in files:
        if file.is_file():
            yield _words(_own_words(contents.read(file))) if file.suffix == ".json" else bytes.fromhex(sha256(file))


def _own_words(content: Any) -> Any:
    """Return the settings of a LUSIFER model that count; of a delta's bases the content counts, not the place.

    The keys `space` and `matryoshka_dims` describe the vectors and do not change them.
    """
    content = _lasting(content)
    if isinstance(content, dict) and content.get("model_type") == contents.MODEL_TYPE:
        content = {key: value for key, value in content.items() if key not in ("space", "matryoshka_dims")}
    if isinstance(content, dict) and isinstance(content.get("bases"), dict):
        places = ("path", "version")
        bases = {
            backbone: {k: v for k, v in base.items() if k not in places} for backbone, base in content["bases"].items()
        }
        content["bases"] = bases
    return content


def _other(folder: Path) -> Iterator[Any]:
    """Yield what counts of each module of another embedder, or of adapters alone, normalized."""
    for module in _modules(folder) or [{"type": "Transformer", "path": ""}]:
        kind, place = module["type"].rsplit(".", 1)[-1], folder / module["path"]
        yield [kind, *(_transformer(place) if kind == "Transformer" else _module(place))]
    settings = _json(folder / "config_sentence_transformers.json")
    prompts = settings.get("prompts")
    yield {name: text for name, text in (prompts if isinstance(prompts, dict) else {}).items() if text}
    yield settings.get("default_prompt_name")


def _transformer(place: Path) -> Iterator[Any]:
    """Yield what counts of the transformer: adapters and their base, tensors, configuration, tokenizer, limit."""
    if (place / contents.ADAPTERS).is_file():
        yield from _adapters(place)
    config = _json(place / "config.json")
    if "rope_theta" in config and "rope_parameters" not in config:  # written by transformers 4
        rope = {"rope_type": "default", "rope_theta": config.pop("rope_theta")} | (config.pop("rope_scaling", 0) or {})
        config["rope_parameters"] = rope
    tensors = [file for file in weights.files(place, contents.ADVICE) if file.is_file()]
    if tensors:
        yield weights.digest(tensors, contents.ADVICE)
        yield config.get("dtype") or config.get("torch_dtype") or _DTYPES.get(weights.first_dtype(tensors[0]))
    else:
        yield [sha256(file) for file in sorted(place.glob("*.bin"))]
    yield _plain(config, "config.json")
    names = ("sentence_bert_config.json", "tokenizer_config.json")
    yield [_plain(_json(place / name), name) for name in names]
    if (place / "tokenizer.json").is_file():
        yield _lasting(_json(place / "tokenizer.json"))
    else:
        yield [sha256(file) for file in sorted([*place.glob("*.model"), *place.glob("vocab*"), *place.glob("merges*")])]
    yield limit(place)


def _adapters(place: Path) -> Iterator[Any]:
    """Yield what counts of peft adapters: their settings, their tensors and their base."""
    settings = _json(place / contents.ADAPTERS)
    base = settings.get("base_model_name_or_path")
    plain = _plain(settings, contents.ADAPTERS)
    yield {key: sorted(value) if _is_set(value) else value for key, value in plain.items()}
    yield weights.digest([place / "adapter_model.safetensors"], contents.ADVICE)
    yield identity(base) if base and Path(base).is_dir() else base


def _is_set(value: Any) -> bool:
    """Whether a value may be a set in peft, which writes sets in any order."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _module(place: Path) -> Iterator[Any]:
    """Yield what counts of a module after the transformer, such as pooling or a projection."""
    settings = _plain(_json(place / "config.json"), "module")
    modes = settings.pop("pooling_mode", [])
    modes = [modes] if isinstance(modes, str) else list(modes)
    for key in [key for key in settings if key.startswith("pooling_mode_")]:
        word = key.removeprefix("pooling_mode_")
        modes += [_POOLINGS.get(word, word)] if settings.pop(key) else []
    yield settings | ({"pooling_mode": sorted(modes)} if modes else {})
    tensors = place / weights.WEIGHTS
    yield weights.digest([tensors], contents.ADVICE) if tensors.is_file() else None
    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else []
    yield [sha256(file) for file in files if file.name not in _NAMED_APART]


def limit(folder: Path) -> int | None:
    """Read the maximum number of tokens of a text from the settings of a folder; None if they set no limit."""
    limits = [
        _json(folder / "tokenizer_config.json").get("model_max_length"),
        _json(folder / "sentence_bert_config.json").get("max_seq_length"),
    ]
    # Tokenizers without a limit store a number of thirty digits.
    return min((number for number in limits if isinstance(number, int) and number < 10**9), default=None)


def _plain(settings: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return settings without traces of a call, defaults, and keys that do not count."""
    defaults, aside = _DEFAULTS.get(kind, {}), _ASIDE.get(kind, ())
    return {
        key: value
        for key, value in _lasting(settings, PLACES).items()
        if value is not None and key not in aside and (key not in defaults or value != defaults[key])
    }


def _modules(folder: Path) -> list[dict[str, str]]:
    """Read `modules.json`; empty if there is none."""
    file = folder / "modules.json"
    found = contents.read(file, list) if file.is_file() else []
    if not all(isinstance(module, dict) and {"type", "path"} <= module.keys() for module in found):
        raise ModelFolderError(f"{file}: damaged, a module lacks path or type; {contents.ADVICE}")
    return found


def _json(file: Path) -> dict[str, Any]:
    """Read a JSON object from a file; empty if the embedder has no such file."""
    return contents.read(file, dict) if file.is_file() else {}


def _words(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _lasting(content: Any, more: tuple[str, ...] = ()) -> Any:
    """Return settings without the keys that loading, a call or another library version changes."""
    if not isinstance(content, dict):
        return content
    return {key: _lasting(value, more) for key, value in content.items() if key not in (*TRACES, *more)}
