"""Bases by content: which files of a model lie on this machine, or which commit of the hub it is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from lusifer.errors import LusiferError, UsageError
from lusifer.io import hub, names, packages
from lusifer.io.files import sha256

COMMIT = "commit"
ELSEWHERE = (
    "or say where it lies: path under bases in the model's config.json, or in Python "
    'lusifer.load(FOLDER, bases={"encoder": PATH, "llm": PATH})'
)
"""What to do about a base that is not where a folder says, at the end of messages."""
_FILES = (".json", ".safetensors", ".bin", ".txt", ".model", ".gguf")
_READ = re.compile(
    r"config\.json|.*\.(safetensors|safetensors\.index\.json|bin|gguf|model)|(tokenizer|vocab|merges|special_tokens_map|"
    r"added_tokens)[\w.]*"
)
"""Files of a folder that a tower is read from: configuration, weights, tokenizer."""

_PLAIN = re.compile(r"(?:(?:\w|\\\.|\.|\\[dw]|\[(?:\w|\d-\d)+\])[*+?]?|\((?:\?:)?(?:\w|\\\.)+(?:\|(?:\w|\\\.)+)*\))*")
"""Letters, points and classes, each perhaps repeated, and alternatives of words."""


def fingerprint(
    path: str, revision: str | None = None, key: str = "model", raises: type[LusiferError] = UsageError
) -> dict[str, str]:
    """File name -> SHA-256 of a base on this machine; of a hub name "commit" -> its commit.

    Args:
        path: As in a recipe: a folder, a file, `package:NAME` or a hub name.
        revision: Of a hub name.
        key: What messages begin with.
        raises: The kind of error that a name is that cannot be read.
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
    """What a delta says of a base: `path` (absolute where it is one), `revision` or `version`, `files` as `found`."""
    where = names.base(path)
    if path.startswith(names.PACKAGE):
        owner = _distribution(path)
        return {"path": path, "version": owner.version if owner else None, "files": found}
    if Path(where).exists():
        return {"path": os.path.abspath(where), "files": found}  # a link keeps its name, by which a file is known
    return {"path": where, "revision": found[COMMIT], "files": {}}


def _distribution(path: str) -> metadata.Distribution | None:
    """What pip installed that brought the package of `package:NAME`; None where it is not installed."""
    return packages.distribution(path.removeprefix(names.PACKAGE).partition("/")[0])


def refuse_other(known: dict[str, Any], path: str, key: str, raises: type[LusiferError]) -> None:
    """Refuse a base that is not the recorded one; of a hub name the commit is the record.

    Of a folder only files count that a tower is read from: how it pools or generates is nothing to us.

    Args:
        known: As `record` gives it.
        path: Where the base is read from now.
        key: What messages begin with.
        raises: The kind of error.
    """
    expected, place = known["files"] or {COMMIT: known["revision"]}, Path(path).expanduser()
    # A name on the hub has no ending of a file, and is never a base that is known by its files.
    local = place.is_absolute() or path.startswith(".") or COMMIT not in expected or place.suffix in (".bin", ".gguf")
    if local and not path.startswith(names.PACKAGE) and not place.exists():
        mend = f"put it back, {ELSEWHERE}" if path == known["path"] else "correct the path"
        raise raises(f"{key} cannot be had: {path}: no such folder or file: {mend}")
    now = fingerprint(path, known.get("revision"), key, raises)
    if COMMIT in expected and COMMIT not in now:
        raise raises(
            f"{key}: {path} cannot be compared with {known['path']}, which is known by its commit on the hub: fetch it "
            f"with `hf download {known['path']} --revision {known['revision']}`, and it is read from the cache"
        )
    if len(expected) == len(now) == 1 and Path(names.base(path)).is_file() and COMMIT not in expected:
        now = dict.fromkeys(expected, *now.values())  # a file that is a whole base may have another name now
    differ = dict(expected.items() ^ now.items())
    changed = sorted(name for name in differ if name == COMMIT or _READ.fullmatch(name) or len(expected) == 1)
    if changed:
        name = next((each for each in changed if each in known["files"]), changed[0])
        raise raises(
            f"{key}: {path} is not the base that this model was trained on ({name} differs or is not in both): wanted "
            f"{_wanted(known, name)}, {ELSEWHERE}"
        )


def _wanted(known: dict[str, Any], name: str) -> str:
    """A recorded base, one of whose files is called `name`, in words, and how to get it."""
    path, version, revision = known["path"], known.get("version"), known.get("revision")
    digest = f" (sha256 of {name} beginning with {known['files'][name][:12]})" if name in known["files"] else ""
    if path.startswith(names.PACKAGE) and version:
        owner = _distribution(path)
        package = owner.name if owner else path.removeprefix(names.PACKAGE).partition("/")[0]
        return f"{path}, version {version}{digest}: pip install --force-reinstall {package}=={version}"
    if not known["files"]:
        return f"{path} of the hub at commit {revision}: hf download {path} --revision {revision}"
    return f"what was at {path}{digest}: put that back"


def check_settings(said: Mapping[str, Any]) -> None:
    """Refuse (ValueError) settings of a model's `config.json` (`IF_SET`) that nothing can be read from."""
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
    for tower, base in bases.items():
        known = isinstance(base, dict) and isinstance(base.get("path"), str) and isinstance(base.get("files"), dict)
        if not known or not (base["files"] or isinstance(base.get("revision"), str)):
            raise ValueError(f"bases.{tower}: expected path, and files with their SHA-256 or a revision of the hub")
        if base.get("layers") is not None and not (type(base["layers"]) is int and base["layers"] > 0):
            raise ValueError(f"bases.{tower}.layers={base['layers']!r}: must be 1 or more")
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
            words = "is a regular expression that may take without end: write the names of the layers there, as a list"
            raise ValueError(f"adapters: {about['name']!r}: targets={about['targets']!r} {words}")


def _ends(pattern: str) -> bool:
    """Whether a regular expression of somebody else can be asked: matching some may take longer than anyone waits.

    Newer folders list the names of their layers, so this is for older ones. Repeated is one letter or class at most,
    alternatives are different words, and both together are few: what is tried for a name of n letters is below n**4.
    """
    if len(pattern) > 500 or not _PLAIN.fullmatch(pattern):
        return False
    if any(first > last for first, last in re.findall(r"(\d)-(\d)", pattern)):
        return False
    groups = [group.removeprefix("?:").split("|") for group in re.findall(r"\(([^)]*)\)", pattern)]
    repeats = len(re.findall(r"[*+?]", pattern.replace("(?:", "(")))
    return len(groups) + repeats <= 4 and all(len(set(group)) == len(group) for group in groups)
