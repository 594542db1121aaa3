"""Resolve the name of a model or base: a folder, a model of the library, an installed package, or an id on the Hub.

- A folder of that name always comes first.
- `mini` is the model in `models/lusifer-mini`.
- `package:NAME` is the model folder in the installed Python package NAME; for a base also a file with the entire base.
- `tiny:encoder` and `tiny:llm` are the random bases of the recipe `tiny`, made when they are needed.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lusifer.errors import UsageError
from lusifer.extras import EXTRAS
from lusifer.io import packages
from lusifer.io.files import expand_user, read_json, refuse_pointer

OWN_TYPE = "lusifer"
"""The `model_type` in `config.json` of a model of this project."""
EXPORTED = "export.json"
"""A file by which the int8 copy of a model is recognized."""
PREFIX = "lusifer-"
PACKAGE = "package:"
ADAPTERS = "adapter_config.json"
"""The file of a peft folder that names the model of its adapters."""
TINY = ("tiny:encoder", "tiny:llm")
FILES = {b"E5S1": "packed", b"GGUF": "gguf"}
"""The first bytes of a file with an entire base -> its kind."""
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def model(name: str | os.PathLike[str]) -> Path | str:
    """Find a trained model by its name.

    Args:
        name: A folder, the short name of a model of the library, `package:NAME`, or a Hub id (owner/name). A packed
            file (`is_packed`), also in a package, is a complete embedder.

    Returns:
        A path on this machine, or the Hub id unchanged; the Hub is not asked.

    Raises:
        UsageError: The name is none of these, or the package is not installed or has no model.
    """
    text = os.fspath(name)
    if text.startswith(PACKAGE):
        return _embedder_in_package(text)
    path = expand_user(text)
    if text and path.exists():  # an empty name would be this folder
        return path
    found = shipped_model(text)
    if found is not None:
        return found
    if path.name in ("model", "delta") and (path.parent / "recipe.yaml").is_file():
        run = path.parent
        resume = shlex.join(["lusifer", "train", f"{run}/recipe.yaml", "--output", f"{run}", "--resume"])
        raise UsageError(
            f"{name}: no such folder, because the run in {run} is not finished: continue it with `{resume}`"
        )
    if _is_path(text) or text.count("/") != 1:
        shipped = shipped_models()
        near = difflib.get_close_matches(text, shipped, n=1)
        raise UsageError(
            f"{name}: no such folder{f' (did you mean {near[0]}?)' if near else ''}; give a model folder"
            f"{''.join(f', {each}' for each in shipped)}, package:NAME of an installed package, or an id on the "
            "Hugging Face Hub (owner/name)"
        )
    return text


def base(name: str) -> str:
    """Find a base (encoder or LLM) by its name in a recipe.

    Args:
        name: A folder that `save_pretrained` wrote, a file with an entire base, `package:NAME`, `package:NAME/FILE`,
            or a Hub id (owner/name, or name alone). `tiny:` bases must be made first and named by their folder.

    Returns:
        A path on this machine, or the Hub id unchanged; the Hub is not asked.

    Raises:
        UsageError: The name is none of these.
    """
    if name.startswith(PACKAGE):
        return str(_in_package(name))
    path = expand_user(name)
    if path.is_file():
        if base_file(path) is None:
            refuse_pointer(path, UsageError)
            raise UsageError(f"{name}: not a base: give the folder of the base, or a file with an entire base")
        return str(path)
    if _is_path(name) or path.exists():
        if not (path / "config.json").is_file():
            if (path / ADAPTERS).is_file():
                under = read_json(path / ADAPTERS, "save the model again", UsageError, dict).get(
                    "base_model_name_or_path"
                )
                words = f"has only the adapters of {under or 'a model that is not named'}"
                raise UsageError(f"{name}: {words}: merge them into that model and save it (peft: merge_and_unload)")
            raise UsageError(f"{name}: no config.json there; give a folder saved by save_pretrained, or a Hub id")
        return str(path)
    if name.startswith("tiny:"):
        raise UsageError(f"{name}: is unknown here; use {' or '.join(TINY)} in a recipe")
    if not _HUB_ID.fullmatch(name):
        raise UsageError(f"{name}: is neither a folder nor a Hub id (owner/name): correct the name")
    return name


def base_file(path: str | os.PathLike[str]) -> str | None:
    """Return the kind of a file with an entire base, by its first bytes: "packed" or "gguf"; None for other files."""
    if not Path(path).is_file():
        return None
    with Path(path).open("rb") as stream:
        return FILES.get(stream.read(4))


def is_tiny(name: str) -> bool:
    """Whether a name is one of the random bases that a run makes from the seed of its recipe."""
    return name in TINY


def is_packed(path: str | os.PathLike[str]) -> bool:
    """Whether a file has a complete embedder of the E5 kind, with weights and tokenizer."""
    return base_file(path) == "packed"


def _embedder_in_package(name: str) -> Path:
    """The model folder or packed embedder in a package."""
    with suppress(UsageError):
        found = _in_package(name)
        if found.is_dir() or is_packed(found):
            return found
    return package_folder(name)  # raises the error that names what is missing


def package_folder(name: str) -> Path:
    """Find the model folder (config.json and model.safetensors) in an installed package, by `package:NAME`.

    Raises:
        UsageError: The package is not installed, or has no model folder.
    """
    found = _model_folder(_package_roots(name))
    if found is None:
        raise UsageError(f"{name}: no folder with config.json and model.safetensors in that package: name another one")
    return found


def _in_package(name: str) -> Path:
    """A base in a package: the named file, else a model folder, else the largest file with an entire base."""
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
            raise UsageError(f"{name}: no {wanted} {carrier}: name one of {', '.join(file.name for file in files)}")
        raise UsageError(
            f"{name}: neither a folder with config.json and model.safetensors nor a file with a base {carrier}: name "
            "another package"
        )
    return max(named, key=lambda file: file.stat().st_size)


def _joined(package: str) -> Path | None:
    """The file that a package has in parts, joined; None if it has none.

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
    """The folders of the package of `package:NAME`; only installed packages count, not any folder of that name."""
    package = name.removeprefix(PACKAGE)
    if not package.isidentifier():
        raise UsageError(f"{name}: {package!r} is no package name: give the name that Python imports, without dots")
    found = packages.places(package)
    if not found:
        extra = next((extra for extra, modules in EXTRAS.items() if package in modules), None)
        near = difflib.get_close_matches(package, [each for modules in EXTRAS.values() for each in modules], n=1)
        fix = f"pip install 'lusifer[{extra}]'" if extra else "correct the name, or install the package"
        asked = f" (did you mean {PACKAGE}{near[0]}?)" if near and not extra else ""
        raise UsageError(f"{name}: package {package!r} is not installed{asked}: {fix}")
    return found


def shipped_models() -> list[str]:
    """Return the short names of the models that come with the library."""
    folders = [folder for root in roots("models") for folder in root.glob(f"{PREFIX}*")]
    return sorted(folder.name.removeprefix(PREFIX) for folder in folders)


def shipped_model(name: str) -> Path | None:
    """Find the folder of a model of the library by its name, `mini` or `lusifer-mini`; None if there is none."""
    short = name.removeprefix(PREFIX)
    folders = (root / f"{PREFIX}{short}" for root in roots("models"))
    return next((folder for folder in folders if short in shipped_models() and folder.is_dir()), None)


def roots(kind: str) -> list[Path]:
    """Return where the folder `recipes` or `models` may be: inside the installed package, or at the checkout's root."""
    package = Path(__file__).resolve().parents[1]
    return [package / kind, package.parents[1] / kind]


def _is_path(name: str) -> bool:
    """Whether a name can only be meant as a path."""
    return name.startswith((".", "~")) or Path(name).is_absolute()
