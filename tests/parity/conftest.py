"""The authors' checkpoints and numbers as fixtures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

NUMBERS = Path(__file__).parent / "numbers"


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `lusifer-lora`, `lusifer-nolora` and `backbones`, as published. Read only."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("published")
    for name in ("backbones", "lusifer-lora", "lusifer-nolora"):
        shutil.copytree(NUMBERS / name, folder / name)
    adapted = load_file(folder / "lusifer-lora" / "model.safetensors")
    plain = {
        key.replace("base_model.model.", "", 1).replace(".base_layer.", "."): tensor
        for key, tensor in adapted.items()
        if ".lora_" not in key
    }
    own = folder / "lusifer-nolora" / "own.safetensors"
    save_file(plain | load_file(own), folder / "lusifer-nolora" / "model.safetensors")
    own.unlink()
    return folder


@pytest.fixture(scope="session")
def numbers() -> Callable[[str, str], dict[str, np.ndarray]]:
    """`numbers("encode", "lora")`: the arrays of a checkpoint with the batch they belong to."""

    def read(group: str, kind: str) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for part in ("batch", kind):
            with np.load(NUMBERS / f"{group}_{part}.npz") as stored:
                arrays |= dict(stored)
        return arrays

    return read


@pytest.fixture(scope="session")
def contrastive() -> dict[str, np.ndarray]:
    """Vectors of 6 queries, 2 positives and 3 negatives each, and what the loss makes of them."""
    with np.load(NUMBERS / "contrastive.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="session")
def inputs() -> dict[str, Any]:
    """The instruction and the texts."""
    return json.loads((NUMBERS / "inputs.json").read_text(encoding="utf-8"))


@pytest.fixture
def ids() -> Callable[[np.ndarray], torch.Tensor]:
    """A stored integer array as a tensor of indices."""
    return lambda array: torch.from_numpy(array.astype(np.int64))


@pytest.fixture
def gradient() -> Callable[[torch.nn.Module, str], torch.Tensor]:
    """`gradient(model, "grad/KEY")`: the gradient of the parameter that the published code calls KEY."""
    from lusifer.model.published import rename

    def read(model: torch.nn.Module, key: str) -> torch.Tensor:
        name = rename(key.split("grad/")[1])
        for theirs in ("universal_learner_lora", "encoder_lora"):
            name = name.replace(f".{theirs}.", ".default.")
        found = model.get_parameter(name).grad
        assert found is not None, f"{name} got no gradient"
        return found

    return read


@pytest.fixture
def lm_head() -> Callable[[Path], torch.nn.Linear]:
    """`lm_head(folder)`: the frozen LM head of a checkpoint, which `read` leaves out."""

    def read(folder: Path) -> torch.nn.Linear:
        from safetensors.torch import load_file

        tensors = load_file(folder / "model.safetensors")
        weight = next(tensor for name, tensor in tensors.items() if name.endswith("lm_head.weight"))
        head = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        head.weight = torch.nn.Parameter(weight, requires_grad=False)
        return head

    return read


@pytest.fixture
def copy_checkpoint(checkpoints: Path, tmp_path: Path) -> Callable[[str], Path]:
    """`copy_checkpoint("lusifer-lora")`: a copy that a test may change, far from its backbones."""
    return lambda name: Path(shutil.copytree(checkpoints / name, tmp_path / "copies" / name / "checkpoint"))


@pytest.fixture
def change_json() -> Callable[..., None]:
    """`change_json(file, key=value)`: set keys of a JSON file."""

    def change(file: Path, **values: Any) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change
