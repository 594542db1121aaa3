"""Record the bases of a model by content (files with their SHA-256, or a commit on the Hub), and check them later."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from lusifer.errors import LusiferError, UsageError
from lusifer.io import hub, names, packages
from lusifer.io.files import expand_user, sha256

SOFT_TOKEN_POSITIONS = ("text", "padding")
DTYPES = ("float32", "bfloat16", "float16")
COMMIT = "commit"
ELSEWHERE = (
    "or give its place: path under bases in the model's config.json, or in Python "
    'lusifer.load(FOLDER, bases={"encoder": PATH, "llm": PATH})'
)
"""What to do about a base that is not where a model folder expects it; the end of messages."""
_FILES = (".json", ".safetensors", ".bin", ".txt", ".model", ".gguf")
_READ = re.compile(
    r"config\.json|.*\.(safetensors|safetensors\.index\.json|bin|gguf|model)|(tokenizer|vocab|merges|special_tokens_map|"
    r"added_tokens)[\w.]*"
)
"""Files from which a backbone is loaded: configuration, weights, tokenizer."""

_PLAIN = re.compile(r"(?:(?:\w|\\\.|\.|\\[dw]|\[(?:\w|\d-\d)+\])[*+?]?|\((?:\?:)?(?:\w|\\\.)+(?:\|(?:\w|\\\.)+)*\))*")
"""Letters, dots and classes, each with an optional repetition, and alternatives of words."""


def fingerprint(
    path: str, revision: str | None = None, key: str = "model", raises: type[LusiferError] = UsageError
) -> dict[str, str]:
    """Identify a base by its content.

    Args:
        path: As in a recipe: a folder, a file, `package:NAME` or a Hub id.
        revision: The revision of a Hub id.
        key: The start of the message.
        raises: The error to raise if the Hub cannot be read.

    Returns:
        File name -> SHA-256 for a base on this machine; "commit" -> commit for a Hub id.

    Raises:
        UsageError: The path is no base.
        LusiferError: Of the kind `raises`.
    """
    place = Path(names.base(path))
    if place.is_dir():
        files = [file for file in sorted(place.rglob("*")) if file.suffix in _FILES and file.is_file()]
        return {str(file.relative_to(place)): sha256(file) for file in files}
    if place.is_file():
        return {place.name: sha256(place)}
    with hub.asking(f"{key}: {place}", raises):
        return {COMMIT: hub.commit(str(place), revision) or ""}


def record(path: str, found: dict[str, str]) -> dict[str, Any]:
    """Return the record of a base for the `config.json` of a delta.

    Args:
        path: The base, as in a recipe.
        found: What `fingerprint` returned for it.

    Returns:
        `path` (made absolute), `files`, and `revision` for a Hub id or `version` for a package.
    """
    where = names.base(path)
    if path.startswith(names.PACKAGE):
        owner = _distribution(path)
        return {"path": path, "version": owner.version if owner else None, "files": found}
    if Path(where).exists():
        return {"path": os.path.abspath(where), "files": found}  # links are not resolved: their names are recorded
    return {"path": where, "revision": found[COMMIT], "files": {}}


def _distribution(path: str) -> metadata.Distribution | None:
    """The distribution that installed the package of `package:NAME`; None if it is not installed."""
    return packages.distribution(path.removeprefix(names.PACKAGE).partition("/")[0])


def refuse_other(known: dict[str, Any], path: str, key: str, raises: type[LusiferError]) -> None:
    """Refuse a base that differs from the recorded one; a Hub id is compared by its commit.

    In a folder only the files count from which a backbone is loaded, not its settings for pooling or generation.

    Args:
        known: The record, as `record` returns it.
        path: Where the base is read from now.
        key: The start of the message.
        raises: The error to raise.

    Raises:
        LusiferError: Of the kind `raises`: the base is missing, differs or cannot be compared.
    """
    expected, place = known["files"] or {COMMIT: known["revision"]}, expand_user(path)
    # A Hub id does not end like a file, and its record has no files.
    local = place.is_absolute() or path.startswith(".") or COMMIT not in expected or place.suffix in (".bin", ".gguf")
    if local and not path.startswith(names.PACKAGE) and not place.exists():
        mend = f"put it back, {ELSEWHERE}" if path == known["path"] else "correct the path"
        raise raises(f"{key}: {path}: no such folder or file: {mend}")
    now = fingerprint(path, known.get("revision"), key, raises)
    if COMMIT in expected and COMMIT not in now:
        raise raises(
            f"{key}: {path} cannot be compared with {known['path']}, which is recorded by its commit on the Hub: "
            f"download it with `hf download {known['path']} --revision {known['revision']}` and leave out the path"
        )
    if len(expected) == len(now) == 1 and Path(names.base(path)).is_file() and COMMIT not in expected:
        now = dict.fromkeys(expected, *now.values())  # a file with an entire base may have been renamed
    differ = dict(expected.items() ^ now.items())
    changed = sorted(name for name in differ if name == COMMIT or _READ.fullmatch(name) or len(expected) == 1)
    if changed:
        name = next((each for each in changed if each in known["files"]), changed[0])
        raise raises(
            f"{key}: {path} is not the base that this model was trained on ({name} differs or is not in both): the "
            f"base is {_wanted(known, name)}, {ELSEWHERE}"
        )


def _wanted(known: dict[str, Any], name: str) -> str:
    """Describe a recorded base and how to get it; `name` is the file whose digest is given."""
    path, version, revision = known["path"], known.get("version"), known.get("revision")
    digest = f" (sha256 of {name} beginning with {known['files'][name][:12]})" if name in known["files"] else ""
    if path.startswith(names.PACKAGE) and version:
        owner = _distribution(path)
        package = owner.name if owner else path.removeprefix(names.PACKAGE).partition("/")[0]
        return f"{path}, version {version}{digest}: pip install --force-reinstall {package}=={version}"
    if not known["files"]:
        return f"{path} on the Hub at commit {revision}: hf download {path} --revision {revision}"
    return f"the one that was at {path}{digest}: put it back"


def check_positions_and_dtypes(said: Mapping[str, Any]) -> None:
    """Check `soft_token_position` and `tower_dtypes` of a model's `config.json`.

    Raises:
        ValueError: A setting is unknown; the message names the key.
    """
    position = said.get("soft_token_position", SOFT_TOKEN_POSITIONS[0])
    if position not in SOFT_TOKEN_POSITIONS:
        allowed = ", ".join(SOFT_TOKEN_POSITIONS)
        raise ValueError(f"soft_token_position={position!r} is unknown: use one of {allowed}")
    for backbone, dtype in (said.get("tower_dtypes") or {}).items():
        if backbone not in ("encoder", "llm") or dtype not in DTYPES:
            raise ValueError(f"tower_dtypes: {backbone}: {dtype}: use encoder or llm, and one of {', '.join(DTYPES)}")


def check_settings(said: Mapping[str, Any]) -> None:
    """Check the settings of a model's `config.json` about its bases, adapters, space and Matryoshka dimensions.

    Raises:
        ValueError: A setting is invalid; the message names the key.
    """
    space = said.get("space")
    if space is not None and not (isinstance(space, dict) and {"name", "identity"} <= space.keys()):
        raise ValueError(f"space={space!r}: expected name and identity of an embedder")
    dims = said.get("matryoshka_dims")
    if dims is not None and not (isinstance(dims, list) and all(type(size) is int and size > 0 for size in dims)):
        raise ValueError(f"matryoshka_dims={dims!r}: expected numbers above 0")
    bases = said.get("bases")
    if not bases:
        return
    if not isinstance(bases, dict) or not set(bases) <= {"encoder", "llm"}:
        raise ValueError("bases: expected encoder and llm, each with path and files")
    for backbone, base in bases.items():
        known = isinstance(base, dict) and isinstance(base.get("path"), str) and isinstance(base.get("files"), dict)
        if not known or not (base["files"] or isinstance(base.get("revision"), str)):
            raise ValueError(f"bases.{backbone}: expected path, and files with their SHA-256 or a revision on the Hub")
        if base.get("layers") is not None and not (type(base["layers"]) is int and base["layers"] > 0):
            raise ValueError(f"bases.{backbone}.layers={base['layers']!r}: must be 1 or more")
    adapters = said.get("adapters") or []
    for about in adapters if isinstance(adapters, list) else [None]:
        if not isinstance(about, dict) or not {"name", "tower", "r", "alpha", "targets"} <= about.keys():
            raise ValueError("adapters: expected name, tower, r, alpha and targets of each")
        if not isinstance(about["tower"], str) or about["tower"] not in bases:
            raise ValueError(f"adapters: {about['name']!r} is on {about['tower']!r}, which is no base")
        if not (type(about["r"]) is int and about["r"] > 0 and type(about["alpha"]) in (int, float)):
            raise ValueError(
                f"adapters: {about['name']!r}: r={about['r']!r}, alpha={about['alpha']!r}: expected numbers"
            )
        targets = [about["targets"]] if isinstance(about["targets"], str) else about["targets"]
        if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
            raise ValueError(f"adapters: {about['name']!r}: targets={targets!r}: expected names of layers")
        if isinstance(about["targets"], str) and about["targets"] != "all-linear" and not _ends(about["targets"]):
            words = "is a regular expression that may take too long to match: give the names of the layers, as a list"
            raise ValueError(f"adapters: {about['name']!r}: targets={about['targets']!r} {words}")


def _ends(pattern: str) -> bool:
    """Whether a regular expression from a model folder is matched in bounded time; some would take practically forever.

    This is for older folders; newer ones list the names of their layers. Only single characters or classes may repeat,
    alternatives must be different words, and both together must be few. So a name of n letters takes fewer than n**4
    steps.
    """
    if len(pattern) > 500 or not _PLAIN.fullmatch(pattern):
        return False
    if any(first > last for first, last in re.findall(r"(\d)-(\d)", pattern)):
        return False
    groups = [group.removeprefix("?:").split("|") for group in re.findall(r"\(([^)]*)\)", pattern)]
    repeats = len(re.findall(r"[*+?]", pattern.replace("(?:", "(")))
    return len(groups) + repeats <= 4 and all(len(set(group)) == len(group) for group in groups)
