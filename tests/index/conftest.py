"""A tiny model loaded once, and a copy of its folder whose vectors are said to stand in its space."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def embedder(model_folder: Path) -> Any:
    from lusifer import load

    return load(model_folder, device="cpu")


@pytest.fixture(scope="session")
def trained_into(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model (other prompts, so another identity) that says it was trained into the space of `model_folder`."""
    from lusifer.embedder.identity import identity

    target = shutil.copytree(model_folder, tmp_path_factory.mktemp("space") / "reader")
    for file, change in (
        ("config.json", {"space": {"name": "trained", "identity": identity(model_folder)}}),
        ("config_sentence_transformers.json", {"prompts": {"query": "", "document": "", "other": "Other: "}}),
    ):
        content = json.loads((target / file).read_text(encoding="utf-8")) | change
        (target / file).write_text(json.dumps(content), encoding="utf-8")
    return target
