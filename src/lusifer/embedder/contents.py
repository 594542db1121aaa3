"""What lies in a model folder, read without torch or transformers: files, settings, shapes of tensors."""

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
"""What `config.json` of a model of this project says."""
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
"""The language statistics of a model (`calibration`): said of its vectors, and no part of its identity."""
FILES = (*MODEL_FILES, GRAPH, NUMBERS)
"""What is fetched of a repository on the hub."""
ADVICE = "copy or save the folder again"
EXPORT_ADVICE = "export the model again"
# How sentence-transformers calls our model: its own module around a registered class, so that nobody needs
# `trust_remote_code` (a module class of ours would ask for it).
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
"""What settings are that libraries read without a look; null is the same as none."""
_WORDS = {dict: "an object", list: "a list", str: "a text", int: "a number", bool: "true or false"}
_PLACES = re.compile(rb'offset="(\d+)" size="(\d+)"')
"""Where a graph says that a constant lies in its file of numbers, in bytes."""
_ADDED = (ADAPTERS, "processor_config.json", "preprocessor_config.json")
_SETTINGS = {"__version__", "model_type", "prompts", "default_prompt_name", "similarity_fn_name"}


def check(path: Path) -> bool:
    """Refuse a folder of which a file is missing or unreadable; whether tensors fit the model is `folder.check`'s.

    Returns:
        Whether it has a model of ours with its tensors, and not an int8 graph, adapters alone or another embedder.

    Raises:
        ModelFolderError: Names the file and what is wrong with it.
    """
    if not path.is_dir():
        raise ModelFolderError(f"{path}: is a file; give the model folder that holds modules.json")
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
    """Refuse JSON files of which one is missing, or says what the libraries would stumble over; give what they say.

    `advice` is the end of the message.

    Raises:
        ModelFolderError: Names file and key.
    """
    files = {}
    for name in required:
        file = folder / name
        if name == "tokenizer.json":  # left to the library, which takes as long to read it
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
    """One line on the file of settings of any embedder that cannot be what its library wrote; None where none is."""
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
    """Whether a folder is one of these."""
    return (folder / ABOUT).is_file()


def check_int8(folder: Path) -> dict[str, dict[str, Any]]:
    """Refuse a folder that is not whole; give what its JSON files say, by name.

    Raises:
        ModelFolderError: Names the file.
    """
    for name in (GRAPH, NUMBERS, "modules.json"):
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder / name}: missing; {EXPORT_ADVICE}")
        refuse_pointer(folder / name, ModelFolderError)
    files = check_files(folder, (*REQUIRED[1:], ABOUT), EXPORT_ADVICE)
    for key in ("max_seq_length", "normalize"):
        if files[ABOUT].get(key) is None:
            raise ModelFolderError(f"{folder / ABOUT}: no {key} in it; {EXPORT_ADVICE}")
    most, kind = files[ABOUT]["max_seq_length"], files["config.json"].get("model_type")
    if most < 1:
        raise ModelFolderError(f"{folder / ABOUT}: max_seq_length={most}: must be 1 or more; {EXPORT_ADVICE}")
    if kind != MODEL_TYPE:
        words = f"model_type={kind!r}: expected {MODEL_TYPE!r}"
        raise ModelFolderError(f"{folder / 'config.json'}: {words}; {EXPORT_ADVICE}")
    graph, held = (folder / GRAPH).read_bytes(), (folder / NUMBERS).stat().st_size
    wanted = max((int(start) + int(size) for start, size in _PLACES.findall(graph)), default=0)
    if held < wanted:  # the library would name the other file
        words = f"truncated, {held:,} bytes where {GRAPH} reads {wanted:,}"
        raise ModelFolderError(f"{folder / NUMBERS}: {words}; {EXPORT_ADVICE}")
    return files


def is_delta(folder: Path) -> bool:
    """Whether a model of ours lies in a folder without the weights of its bases."""
    return is_ours(folder) and bool(read(folder / "config.json", dict).get("bases"))


def is_plain(folder: Path) -> bool:
    """Whether a folder is one of ours as `folder.save` writes it, no int8 copy, and with no base that is GGUF.

    Its vectors are then those of the model, brought to length 1 if `1_Normalize` is there. In a folder that somebody
    added to (a module, a vector cut short, adapters, a processor) sentence-transformers says what a vector is. The
    folder was checked before; what is wrong raises `ModelFolderError`.
    """
    if is_int8(folder) or not is_ours(folder) or any((folder / name).exists() for name in _ADDED):
        return False
    config = read(folder / "config.json")
    if any(file.endswith(".gguf") for base in (config.get("bases") or {}).values() for file in base["files"]):
        return False  # transformers reads it with accelerate
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
    """Whether a folder claims to be a model of this project; others keep their files where they like."""
    if not (folder / "config.json").is_file():
        # Without it only a folder with a transformer at its root can have been ours.
        modules = [module for module in read(folder / "modules.json", list) if isinstance(module, dict)]
        return any(module.get("path") == "" and str(module.get("type")).endswith("Transformer") for module in modules)
    config = read(folder / "config.json")
    return not isinstance(config, dict) or config.get("model_type") == MODEL_TYPE


def _check_modules(folder: Path, ours: bool) -> None:
    """Refuse a modules.json whose entries say nothing, or whose folders are not there.

    Of other embedders Normalize may lack its folder: it needs no file, and git keeps no empty folder.
    """
    file = folder / "modules.json"
    modules = read(file, list)
    for module in modules:
        known = isinstance(module, dict) and all(isinstance(module.get(key), str) for key in ("name", "path", "type"))
        if not known:
            raise ModelFolderError(f"{file}: damaged, no name, path and type for each; {ADVICE}")
        tensors_on_disk.refuse_outside(module["path"], file, ADVICE)
        place = folder / module["path"]
        spared = not ours and module["type"].endswith(".Normalize")
        if not spared and not place.is_dir():
            raise ModelFolderError(f"{place}: missing, named in {file}; {ADVICE}")
    if not modules:
        raise ModelFolderError(f"{file}: damaged, no module in it; {ADVICE}")


def refuse_links(folder: Path) -> None:
    """Refuse a folder whose files are links to elsewhere, or its folders links at all, before any of it is copied.

    Who made the folder may have had files of whoever copies it in mind. Files of the hub's cache are links into its
    `blobs`, and those stay; so does the folder itself as a link, which is the user's own.

    Raises:
        ModelFolderError: Names the link and where it leads.
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
                    "folder are copied: put there what belongs to the model, or remove the link"
                )


def weights(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the folder's safetensors files, read from their headers.

    Raises:
        ModelFolderError: A file is missing, truncated or no safetensors file.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in tensors_on_disk.files(folder, ADVICE):
        with tensors_on_disk.opened(file, ADVICE, "np") as tensors:
            shapes |= {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    return shapes


def shorten_tokenizer(folder: Path) -> None:
    """Write a folder's `tokenizer.json` on one line, without the cut and the padding that the last call left there.

    The library lays a quarter of a million pieces out for reading, which takes twice the bytes.
    """
    file = folder / "tokenizer.json"
    said = read(file, dict) | {"truncation": None, "padding": None}
    with write_file(file) as temporary:
        temporary.write_text(json.dumps(said, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def read(file: Path, kind: type | None = None) -> Any:
    """Read one of the folder's JSON files, of a `kind` such as dict; what is missing or damaged is refused."""
    if not file.is_file():
        raise ModelFolderError(f"{file}: missing; a model folder is what `lusifer train` or `lusifer convert` writes")
    return read_json(file, ADVICE, ModelFolderError, kind)
