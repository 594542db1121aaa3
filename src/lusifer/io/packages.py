"""Find installed Python packages that have models, by the records of pip; they are never imported.

A name `package:NAME` may come from a model folder of somebody else. That folder may also be where Python looks for
modules, as the working folder is under `python -m`. So only installed packages count: those that a distribution lists.
"""

from __future__ import annotations

import json
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lusifer.io.files import sha256, write_file

SUMS = "SHA256SUMS"
"""The file with the name and digest of a file that a package has in parts, because it is too large for one package."""


def places(package: str) -> list[Path]:
    """Return the folders of an installed package, by its import name; empty if it is not installed."""
    found = list(dict.fromkeys(place for owner in _owners(package) for place in _folders(owner, package)))
    regular = [place for place in found if (place / "__init__.py").is_file()]  # Python imports only the first of these
    return regular[:1] or found


def distribution(package: str) -> metadata.Distribution | None:
    """Return the distribution that installed a package, by its import name; None if it is not installed."""
    return next(iter(_owners(package)), None)


def joined(package: str) -> Path | None:
    """Join a file that a package has in parts, in `~/.cache/NAME`; return None if the package has no such file.

    `SHA256SUMS` in the package names the file. The parts have its name with `.part00` and so on at the end. They are in
    the package, or in packages next to it that are called NAME_part1 and so on. No code of the package is run.

    Raises:
        ValueError: A part is missing, or the joined file does not match the digest.
        OSError: The file cannot be written.
    """
    own = places(package)
    around = own + [part for place in own for part in sorted(place.parent.glob(f"{package}_part*"))]
    held = sorted((file for place in around for file in place.rglob("*.part*")), key=lambda file: file.name)
    for sums in (file for place in own for file in sorted(place.rglob(SUMS))):
        for line in sums.read_text(encoding="utf-8").splitlines():
            digest, _, name = line.partition(" ")
            name = Path(name.strip().removeprefix("*")).name
            parts = [file for file in held if name and file.name.startswith(f"{name}.part")]
            if not parts:
                continue
            file = Path.home() / ".cache" / package / name
            if not file.exists():
                with write_file(file) as temporary:
                    _join(parts, temporary)
                    _compare(temporary, digest, ", ".join(part.name for part in parts))
            _compare(file, digest, str(file))
            return file
    return None


def _join(parts: list[Path], target: Path) -> None:
    with target.open("wb") as out:
        for part in parts:
            with part.open("rb") as stream:
                while block := stream.read(2**20):
                    out.write(block)


def _compare(file: Path, digest: str, what: str) -> None:
    if sha256(file) != digest.lower():
        raise ValueError(f"{what}: no match with {SUMS} of the package: install it again, or remove the file")


def _owners(package: str) -> list[metadata.Distribution]:
    """The distributions with a package: first one of the same name is tried, then all."""
    where = list(_searched()) if package.isidentifier() else []
    for every in (metadata.distributions(name=package, path=where), metadata.distributions(path=where)):
        found = [owner for owner in every if _folders(owner, package)]
        if found:
            return found
    return []


def _searched() -> Iterator[str]:
    """The folders where Python looks for modules, without the working folder, which may have anybody's files."""
    installed = {os.path.realpath(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    installed.add(os.path.realpath(site.getusersitepackages()))
    for place in sys.path:
        real = os.path.realpath(place)
        if real in installed or real != os.path.realpath(""):
            yield os.path.abspath(place)


def _folders(owner: metadata.Distribution, package: str) -> list[Path]:
    """Where a distribution has a package: next to its own records; of an editable install, in the source folder."""
    record = "\n" + (owner.read_text("RECORD") or "")  # as text: parsing `files` of all distributions takes seconds
    roots = []
    if f"\n{package}/" in record or package in (owner.read_text("top_level.txt") or "").split():
        roots.append(Path(str(owner.locate_file(""))))
    said = owner.read_text("direct_url.json")
    about = json.loads(said) if said else {}
    if about.get("dir_info", {}).get("editable"):
        project = Path(url2pathname(urlsplit(about["url"]).path))
        roots += [project, project / "src"]
        links = [Path(str(owner.locate_file(name))) for name in re.findall(r"\n([^/,\n]+\.pth),", record)]
        roots += [Path(line) for link in links if link.is_file() for line in link.read_text().splitlines()]
    return [root / package for root in roots if root.is_absolute() and (root / package).is_dir()]
