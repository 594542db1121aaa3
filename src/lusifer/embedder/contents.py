"""The files, settings and tensor shapes of a model folder, read without torch or transformers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lusifer.errors import ModelFolderError
from lusifer.io import tokenizer_files
from lusifer.io import weights as tensors_on_disk
from lusifer.io.bases import check_settings
from lusifer.io.files import read_json, refuse_pointer, write_file
from lusifer.io.hub import MODEL_FILES
from lusifer.io.names import ADAPTERS, EXPORTED, OWN_TYPE

MODEL_TYPE = OWN_TYPE
"""The `model_type` in `config.json` of a LUSIFER model."""
GRAPH, NUMBERS, ABOUT = "openvino_model.xml", "openvino_model.bin", EXPORTED
"""Files of an int8 folder."""
REQUIRED = (
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
_OF_OTHERS = ("config_sentence_transformers.json", "sentence_bert_config.json", "tokenizer_config.json")
LANGUAGES = "languages.safetensors"
"""The language statistics of a model (`calibration`). They describe its vectors and are no part of its identity."""
FILES = (*MODEL_FILES, GRAPH, NUMBERS)
"""File patterns to fetch from a repository on the Hub."""
ADVICE = "copy or save the folder again"
EXPORT_ADVICE = "export the model again"
COMPLETE = "the folder is complete"
"""The name of the check of `lusifer doctor` that no file is missing or damaged."""
# sentence-transformers loads the model with its own module and our registered class. A module class of ours would
# need `trust_remote_code`.
MODALITY_CONFIG = {"text": {"method": "forward", "method_output_name": "embedding"}}
MODULE_OUTPUT_NAME = "sentence_embedding"
_TRANSFORMER = {
    "transformer_task": "feature-extraction",
    "modality_config": MODALITY_CONFIG,
    "module_output_name": MODULE_OUTPUT_NAME,
}
_NORMALIZE = {"module_input_name": MODULE_OUTPUT_NAME, "module_output_name": MODULE_OUTPUT_NAME}
_AS_WRITTEN = (("sentence_bert_config.json", _TRANSFORMER), ("config.json", _NORMALIZE))
_KINDS: dict[str, dict[str, tuple[type, ...]]] = {
    "config.json": {
        "connector_kwargs": (dict,), "pooling": (str,), "max_position_embeddings": (int,), "adapters": (list,),
        "dtype": (str,),
    },
    "config_sentence_transformers.json": {"prompts": (dict,), "default_prompt_name": (str,), "__version__": (dict,)},
    "sentence_bert_config.json": {"modality_config": (dict,), "transformer_task": (str,)},
    ABOUT: {"max_seq_length": (int,), "normalize": (bool,)},
}  # fmt: skip
"""File -> key -> allowed types, for settings that libraries read without a check; null is the same as no key."""
_WORDS = {dict: "an object", list: "a list", str: "a text", int: "a number", bool: "true or false"}
_PLACES = re.compile(rb'offset="(\d+)" size="(\d+)"')
"""Where a constant of the graph is in `openvino_model.bin`: offset and size in bytes."""
_ADDED = (ADAPTERS, "processor_config.json", "preprocessor_config.json")
_SETTINGS = {"__version__", "model_type", "prompts", "default_prompt_name", "similarity_fn_name"}


def check(path: Path) -> bool:
    """Check that every file of a model folder is there and readable; `folder.check` also compares the tensors.

    Returns:
        True for a LUSIFER model with its tensors. False for an int8 graph, adapters alone and other embedders.

    Raises:
        ModelFolderError: A file is missing or damaged.
    """
    if not path.is_dir():
        raise ModelFolderError(f"{path}: is a file; give the model folder that contains modules.json")
    if is_int8(path):
        check_int8(path)
        _check_modules(path, True)
        return False
    if (path / ADAPTERS).is_file() and not (path / "config.json").is_file():
        if (path / "modules.json").is_file():
            _check_modules(path, False)
        return False
    ours = is_ours(path)
    if ours:
        check_files(path, REQUIRED[1:], ADVICE)
    _check_modules(path, ours)
    return ours


def check_files(folder: Path, required: Iterable[str], advice: str = ADVICE) -> dict[str, dict[str, Any]]:
    """Read the JSON files of a folder, and check the settings that would make a library fail.

    Args:
        folder: The model folder.
        required: Names of the files. `tokenizer.json` is checked and not returned.
        advice: The end of an error message.

    Returns:
        File name -> its content.

    Raises:
        ModelFolderError: A file is missing or damaged, or a setting has the wrong type.
    """
    files = {}
    for name in required:
        file = folder / name
        if name == "tokenizer.json":  # large; the library reads and checks it
            if not file.is_file():
                raise ModelFolderError(f"{file}: missing; {advice}")
            continue
        said = files[name] = read_json(file, advice, ModelFolderError, dict)
        for key, kinds in _KINDS.get(name, {}).items():
            if said.get(key) is not None and type(said[key]) not in kinds:
                words = f"{key}={said[key]!r}: expected {_WORDS[kinds[0]]}"
                raise ModelFolderError(f"{file}: damaged, {words}; {advice}")
        default, known = said.get("default_prompt_name"), {"query", "document", *(said.get("prompts") or ())}
        if default is not None and default not in known:
            words = f"default_prompt_name={default!r}: expected one of its prompts"
            raise ModelFolderError(f"{file}: damaged, {words}; {advice}")
    tokenizer_files.check(folder, advice, ModelFolderError)
    try:
        check_settings(files.get("config.json", {}))
    except ValueError as error:
        raise ModelFolderError(f"{folder / 'config.json'}: {error}; {advice}") from error
    return files


def fault(folder: Path) -> str | None:
    """Describe the first damaged settings file of an embedder of any kind in one line; None if there is none."""
    try:
        if (folder / "modules.json").is_file():
            _check_modules(folder, False)
            for module in read(folder / "modules.json"):
                for file in (folder / module["path"]).glob("config*.json"):
                    read(file, dict)
        check_files(folder, [name for name in _OF_OTHERS if (folder / name).is_file()])
    except ModelFolderError as error:
        return str(error)
    return None


def is_int8(folder: Path) -> bool:
    """Whether a folder contains an int8 model."""
    return (folder / ABOUT).is_file()


def check_int8(folder: Path) -> dict[str, dict[str, Any]]:
    """Check the files of an int8 folder, without loading the graph.

    Returns:
        Name of a JSON file -> its content.

    Raises:
        ModelFolderError: A file is missing, truncated or damaged.
    """
    for name in (GRAPH, NUMBERS, "modules.json"):
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder / name}: missing; {EXPORT_ADVICE}")
        refuse_pointer(folder / name, ModelFolderError)
    files = check_files(folder, (*REQUIRED[1:], ABOUT), EXPORT_ADVICE)
    for key in ("max_seq_length", "normalize"):
        if files[ABOUT].get(key) is None:
            raise ModelFolderError(f"{folder / ABOUT}: no key {key}; {EXPORT_ADVICE}")
    most, kind = files[ABOUT]["max_seq_length"], files["config.json"].get("model_type")
    if most < 1:
        raise ModelFolderError(f"{folder / ABOUT}: max_seq_length={most}: must be 1 or more; {EXPORT_ADVICE}")
    if kind != MODEL_TYPE:
        words = f"model_type={kind!r}: expected {MODEL_TYPE!r}"
        raise ModelFolderError(f"{folder / 'config.json'}: {words}; {EXPORT_ADVICE}")
    graph, held = (folder / GRAPH).read_bytes(), (folder / NUMBERS).stat().st_size
    wanted = max((int(start) + int(size) for start, size in _PLACES.findall(graph)), default=0)
    if held < wanted:  # OpenVINO would name the .xml file in its error
        words = f"truncated, {held:,} bytes, and {GRAPH} reads {wanted:,}"
        raise ModelFolderError(f"{folder / NUMBERS}: {words}; {EXPORT_ADVICE}")
    return files


def is_delta(folder: Path) -> bool:
    """Whether a folder contains a LUSIFER model without the weights of its bases."""
    return is_ours(folder) and bool(read(folder / "config.json", dict).get("bases"))


def is_plain(folder: Path) -> bool:
    """Whether `plain.load` can load a folder: a LUSIFER model as `folder.save` writes it, not int8, no GGUF base.

    Its vectors are then those of the model, scaled to length 1 if `1_Normalize` is there. A folder with additions (a
    module, shortened vectors, adapters, a processor) needs sentence-transformers. Call `check` first.

    Raises:
        ModelFolderError: A file is missing or damaged.
    """
    if is_int8(folder) or not is_ours(folder) or any((folder / name).exists() for name in _ADDED):
        return False
    config = read(folder / "config.json")
    if any(file.endswith(".gguf") for base in (config.get("bases") or {}).values() for file in base["files"]):
        return False  # transformers needs accelerate to read it
    modules = [
        (each["type"].rpartition(".")[2], each["path"], each.keys() <= {"idx", "name", "path", "type"})
        for each in read(folder / "modules.json")
    ]
    known = [("Transformer", "", True), ("Normalize", "1_Normalize", True)]
    saved = read(folder / "config_sentence_transformers.json", dict)
    return (
        modules in (known[:1], known)
        and all(_says(folder / path / name, said) for (_, path, _), (name, said) in zip(modules, _AS_WRITTEN))
        and saved.keys() <= _SETTINGS
        and saved.get("default_prompt_name") in (None, *(saved.get("prompts") or ()))
        and config.get("tower_dtypes") is not None
    )


def _says(file: Path, what: dict[str, Any]) -> bool:
    return file.is_file() and read(file) == what


def is_ours(folder: Path) -> bool:
    """Whether a folder claims to be a LUSIFER model, by its `config.json` or, if that is missing, `modules.json`."""
    if not (folder / "config.json").is_file():
        # A LUSIFER model has its transformer in the root folder; other embedders may not.
        modules = [module for module in read(folder / "modules.json", list) if isinstance(module, dict)]
        return any(module.get("path") == "" and str(module.get("type")).endswith("Transformer") for module in modules)
    config = read(folder / "config.json")
    return not isinstance(config, dict) or config.get("model_type") == MODEL_TYPE


def _check_modules(folder: Path, ours: bool) -> None:
    """Check modules.json and the folders that it names.

    In other embedders Normalize may have no folder: it needs no file, and git does not store empty folders.
    """
    file = folder / "modules.json"
    modules = read(file, list)
    for module in modules:
        known = isinstance(module, dict) and all(isinstance(module.get(key), str) for key in ("name", "path", "type"))
        if not known:
            raise ModelFolderError(f"{file}: damaged, a module lacks name, path or type; {ADVICE}")
        tensors_on_disk.refuse_outside(module["path"], file, ADVICE)
        place = folder / module["path"]
        spared = not ours and module["type"].endswith(".Normalize")
        if not spared and not place.is_dir():
            raise ModelFolderError(f"{place}: missing, and {file} names it; {ADVICE}")
    if not modules:
        raise ModelFolderError(f"{file}: damaged, it lists no module; {ADVICE}")


def refuse_links(folder: Path) -> None:
    """Refuse links out of a folder before it is copied: a prepared folder could otherwise copy files of the user.

    Allowed are links to files of the same folder, links into `blobs` of the Hub's cache, and a link to the folder
    itself.

    Raises:
        ModelFolderError: A link leads out of the folder, or to a folder.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    root = folder.resolve()
    caches = (root.parents[1] if root.parent.name == "snapshots" else None, Path(HF_HUB_CACHE).resolve())
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        some = [name for name in files if any(fnmatch(name, pattern) for pattern in FILES)]
        for link in (Path(place, name) for name in (*folders, *sorted(some))):
            if not link.is_symlink():
                continue
            target = Path(os.path.realpath(link))
            blob = target.parent.name == "blobs" and any(each in target.parents for each in caches)
            if not target.is_file() or not (blob or root in target.parents):
                raise ModelFolderError(
                    f"{folder / link.relative_to(root)}: is a link to {target}, and only links to files of the same "
                    "folder are copied: replace the link by the file, or remove it"
                )


def weights(folder: Path) -> dict[str, tuple[int, ...]]:
    """Read the name and shape of every tensor from the headers of the safetensors files.

    Raises:
        ModelFolderError: A file is missing, truncated or no safetensors file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in tensors_on_disk.files(folder, ADVICE):
        with tensors_on_disk.opened(file, ADVICE, "np") as tensors:
            shapes |= {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    return shapes


def shorten_tokenizer(folder: Path) -> None:
    """Rewrite `tokenizer.json` on one line, without the truncation and padding settings of the last call.

    The library writes an indented file, which takes twice the bytes for a vocabulary of 250,000 tokens.
    """
    file = folder / "tokenizer.json"
    said = read(file, dict) | {"truncation": None, "padding": None}
    with write_file(file) as temporary:
        temporary.write_text(json.dumps(said, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def read(file: Path, kind: type | None = None) -> Any:
    """Read a JSON file of a model folder.

    Args:
        file: The file.
        kind: The type that its content must have, such as dict. None allows any.

    Raises:
        ModelFolderError: The file is missing or damaged, or its content has another type.
    """
    if not file.is_file():
        raise ModelFolderError(f"{file}: missing; give a model folder that `lusifer train` or `lusifer convert` wrote")
    return read_json(file, ADVICE, ModelFolderError, kind)
