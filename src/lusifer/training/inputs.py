"""What a run reads, by content: a resume that would go on with other bases or other data is refused.

`inputs.json` in the run folder holds one line a file: the SHA-256 of a local file, the commit of a hub name. A hub
name whose commit cannot be had (no network and not in the cache) is not compared.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from lusifer.data import sources as data_sources
from lusifer.errors import ModelFolderError, UsageError
from lusifer.folders import write_file
from lusifer.model import build
from lusifer.training import recipe as recipes
from lusifer.training.recipe import Recipe

INPUTS = "inputs.json"
_BASE_FILES = ("config.json", "tokenizer.json", "*.safetensors")


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Name and fingerprint of everything that a run reads.

    Args:
        recipe: with bases that exist (`tiny:` ones already made).

    Returns:
        "FILE" -> SHA-256, "HUB NAME" -> commit.
    """
    found: dict[str, str] = {}
    for base in (recipe.model.encoder, recipe.model.llm):
        place = Path(build.resolve(base.path))
        if place.is_dir():
            for pattern in _BASE_FILES:
                found |= {str(file): _sha256(file) for file in sorted(place.glob(pattern))}
        else:
            found |= _commit(base.path, base.revision, "model", "config.json")
    for stage in recipe.stages:
        for source in recipes.sources(recipe, stage)[0]:
            if source.hub is not None:
                found |= _commit(source.hub, source.revision, "dataset", "README.md")
            else:
                found |= {str(file): _sha256(file) for file in data_sources.files(source.path or "")}
    return found


def remember(root: Path, found: dict[str, str]) -> None:
    """Keep the fingerprints of a run's first start; later ones must not contradict them.

    Args:
        root: the run folder.
        found: as `fingerprints` gives them.

    Raises:
        UsageError: names the first input that changed.
        ModelFolderError: the file of fingerprints is damaged.
    """
    file = root / INPUTS
    known: dict[str, str] = {}
    if file.is_file():
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ModelFolderError(f"{file}: damaged ({error}); remove it to go on without this check") from error
    changed = [name for name, value in found.items() if known.get(name, value) != value]
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise UsageError(
            f"{changed[0]}{more}: changed since this run began ({file}); put back what the run was started with, or "
            "start anew in another --output"
        )
    with write_file(file) as temporary:
        temporary.write_text(json.dumps(known | found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _commit(name: str, revision: str | None, kind: str, small: str) -> dict[str, str]:
    """The commit that a hub name stands for now; the cache names a snapshot's folder by it."""
    try:
        folder = snapshot_download(name, revision=revision, repo_type=kind, allow_patterns=[small])
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return {}  # whoever needs the files will say what is wrong
    return {f"{kind} {name}": Path(folder).name}
