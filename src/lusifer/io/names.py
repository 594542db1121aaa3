"""What a name means: a folder, something that comes with the library, an installed package, or a hub id.

A folder of that name always comes first. `mini` is the model in `models/lusifer-mini`; `package:NAME` is the model
folder inside the installed Python package NAME, or, of a base, a file there that holds it all; `tiny:encoder` and
`tiny:llm` are the random bases of the recipe `tiny`, made when they are needed.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lusifer.errors import UsageError
from lusifer.extras import EXTRAS
from lusifer.io import packages
from lusifer.io.files import read_json, refuse_pointer

OWN_TYPE = "lusifer"
"""The `model_type` in `config.json` of a model of this project."""
EXPORTED = "export.json"
"""A file that an int8 copy of a model has, and no other folder."""
PREFIX = "lusifer-"
PACKAGE = "package:"
ADAPTERS = "adapter_config.json"
"""Of a folder of peft's: what its adapters belong to."""
TINY = ("tiny:encoder", "tiny:llm")
FILES = {b"E5S1": "packed", b"GGUF": "gguf"}
"""How a file begins that is a whole base, and what it is."""
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def model(name: str | os.PathLike[str]) -> Path | str:
    """Find a trained model: a path on this machine, or the hub id as it was given.

    Args:
        name: A folder, the short name of a model that comes with the library, `package:NAME`, or owner/name. A packed
            file (`is_packed`), also in a package, is an embedder that is whole.

    Raises:
        UsageError: It can be none of these; `package:NAME` is not installed or carries no model.
    """
    text = os.fspath(name)
    if text.startswith(PACKAGE):
        return _embedder_in_package(text)
    path = Path(text).expanduser()
    if text and path.exists():  # an empty name would be this folder
        return path
    found = shipped_model(text)
    if found is not None:
        return found
    if _is_path(text) or text.count("/") != 1:
        shipped = shipped_models()
        near = difflib.get_close_matches(text, shipped, n=1)
        raise UsageError(
            f"{name}: no such folder{f' (did you mean {near[0]}?)' if near else ''}; give a model folder"
            f"{''.join(f', {each}' for each in shipped)}, package:NAME of an installed package, or a hub id of the "
            "form owner/name"
        )
    return text


def base(name: str) -> str:
    """Find one of the two models that a recipe joins: a path on this machine, or the hub id as it was given.

    Args:
        name: A folder that `save_pretrained` wrote, a file that is a whole base, `package:NAME` or `package:NAME/FILE`,
            or a hub id (owner/name, or name alone).

    Raises:
        UsageError: It can be none of these; `tiny:` bases are made first, and then named by their folder.
    """
    if name.startswith(PACKAGE):
        return str(_in_package(name))
    path = Path(name).expanduser()
    if path.is_file():
        if base_file(path) is None:
            refuse_pointer(path, UsageError)
            raise UsageError(f"{name}: is no base: give the folder that it lies in, or a file that is a whole base")
        return str(path)
    if _is_path(name) or path.exists():
        if not (path / "config.json").is_file():
            if (path / ADAPTERS).is_file():
                under = read_json(path / ADAPTERS, "save the model again", UsageError, dict).get(
                    "base_model_name_or_path"
                )
                words = f"holds adapters alone, of {under or 'a model that is not named'}"
                raise UsageError(f"{name}: {words}: merge them into it and save that (peft: merge_and_unload)")
            raise UsageError(f"{name}: no config.json there; give a folder saved by save_pretrained, or a hub id")
        return str(path)
    if name.startswith("tiny:"):
        raise UsageError(f"{name}: is unknown here; use {' or '.join(TINY)} in a recipe")
    if not _HUB_ID.fullmatch(name):
        raise UsageError(f"{name}: is neither a folder nor a hub id (owner/name)")
    return name


def base_file(path: str | os.PathLike[str]) -> str | None:
    """What kind of a base a file is by its first bytes ("packed", "gguf"); None for anything else."""
    if not Path(path).is_file():
        return None
    with Path(path).open("rb") as stream:
        return FILES.get(stream.read(4))


def is_tiny(name: str) -> bool:
    """Whether a base is made from the seed of the recipe."""
    return name in TINY


def is_packed(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds a whole embedder of the E5 kind, weights and tokenizer."""
    return base_file(path) == "packed"


def _embedder_in_package(name: str) -> Path:
    """The model folder of a package, else its packed embedder."""
    with suppress(UsageError):
        found = _in_package(name)
        if found.is_dir() or is_packed(found):
            return found
    return package_folder(name)  # which says what is wrong


def package_folder(name: str) -> Path:
    """Find the model folder (config.json and weights) that an installed package carries, by `package:NAME`.

    Raises:
        UsageError: The package is not installed, or carries no model.
    """
    found = _model_folder(_package_roots(name))
    if found is None:
        raise UsageError(f"{name}: no folder with config.json and model.safetensors in that package")
    return found


def _in_package(name: str) -> Path:
    """A base in a package: the file that is named, else a model folder, else the largest file that is a base."""
    package, _, wanted = name.partition("/")
    roots = _package_roots(package)
    folder = None if wanted else _model_folder(roots)
    if folder is not None:
        return folder
    whole = (file for root in roots for file in sorted(root.rglob("*")) if file.suffix in (".bin", ".gguf"))
    files = [file for file in whole if base_file(file)]
    named = [file for file in files if wanted in ("", file.name)]
    if not named and not wanted:
        joined = _joined(package.removeprefix(PACKAGE))
        named = [] if joined is None else [joined]
    if not named:
        carrier = f"in package {package.removeprefix(PACKAGE)!r}"
        if files:
            raise UsageError(f"{name}: no {wanted} {carrier}: it has {', '.join(file.name for file in files)}")
        raise UsageError(
            f"{name}: no folder with config.json and model.safetensors {carrier}, nor a file that is a base"
        )
    return max(named, key=lambda file: file.stat().st_size)


def _joined(package: str) -> Path | None:
    """The file that a package brings in parts, joined; None where it brings none.

    Raises:
        UsageError: A part is missing or damaged, or the file cannot be written.
    """
    try:
        return packages.joined(package)
    except (OSError, ValueError) as error:
        raise UsageError(f"{PACKAGE}{package}: its parts cannot be joined ({error})") from error


def _model_folder(roots: Sequence[Path]) -> Path | None:
    """The first folder with config.json and weights."""
    configs = (config for root in roots for config in sorted(root.rglob("config.json")))
    return next((config.parent for config in configs if (config.parent / "model.safetensors").exists()), None)


def _package_roots(name: str) -> list[Path]:
    """Where the package of `package:NAME` lies: only what was installed counts, not a folder that bears its name."""
    package = name.removeprefix(PACKAGE)
    if not package.isidentifier():
        raise UsageError(f"{name}: {package!r} cannot be the name of a package: give what Python imports, without dots")
    found = packages.places(package)
    if not found:
        extra = next((extra for extra, modules in EXTRAS.items() if package in modules), None)
        near = difflib.get_close_matches(package, [each for modules in EXTRAS.values() for each in modules], n=1)
        mend = f"pip install 'lusifer[{extra}]'" if extra else "correct the name, or install what brings it"
        asked = f" (did you mean {PACKAGE}{near[0]}?)" if near and not extra else ""
        raise UsageError(f"{name}: package {package!r} is not installed{asked}: {mend}")
    return found


def shipped_models() -> list[str]:
    """The short names of the models that come with the library."""
    folders = [folder for root in roots("models") for folder in root.glob(f"{PREFIX}*")]
    return sorted(folder.name.removeprefix(PREFIX) for folder in folders)


def shipped_model(name: str) -> Path | None:
    """The folder of a model that comes with the library, by `mini` or `lusifer-mini`; None if there is no such one."""
    short = name.removeprefix(PREFIX)
    folders = (root / f"{PREFIX}{short}" for root in roots("models"))
    return next((folder for folder in folders if short in shipped_models() and folder.is_dir()), None)


def roots(kind: str) -> list[Path]:
    """Folders where `recipes` or `models` lie: in the wheel inside the package, in a checkout at its root."""
    package = Path(__file__).resolve().parents[1]
    return [package / kind, package.parents[1] / kind]


def _is_path(name: str) -> bool:
    """Whether a name can only be meant as a path."""
    return name.startswith((".", "~")) or Path(name).is_absolute()
