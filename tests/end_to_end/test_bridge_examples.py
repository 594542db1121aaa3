"""A tower alone, finetuned by a recipe's last stage (examples/bridge/alone.py)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from lusifer.model.build import make_tiny_bases

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "bridge" / "alone.py"
TEXTS = ["The station is in the north.", "A ferry leaves at noon.", "The station"]


@pytest.fixture(scope="module")
def alone() -> ModuleType:
    spec = importlib.util.spec_from_file_location("alone", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    encoder, llm = make_tiny_bases(tmp_path_factory.mktemp("bases"))
    return ["--set", f"model.encoder.path={encoder}", "--set", f"model.llm.path={llm}"]


def run(alone: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["alone.py", *map(str, words)])
    return alone.main()


@pytest.mark.parametrize(("tower", "train"), [("llm", "lora"), ("encoder", "lora"), ("encoder", "linear")])
def test_what_trains_moves_the_vectors_of_a_tower(
    tower: str, train: str, alone: ModuleType, bases: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for how in ("none", train):
        words = ("tiny", "--tower", tower, "--train", how, "--output", tmp_path / how, *bases)
        assert run(alone, monkeypatch, *words, "--set", "stages.contrastive.max_steps=4") == 0
    before, after = (SentenceTransformer(str(tmp_path / how), device="cpu").encode(TEXTS) for how in ("none", train))
    assert np.allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5) and np.isfinite(after).all()
    assert np.abs(after - before).max() > 1e-4
    assert not [name for name, _ in SentenceTransformer(str(tmp_path / train)).named_parameters() if "lora" in name]


def test_the_llm_alone_attends_in_both_directions(
    alone: ModuleType, bases: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(alone, monkeypatch, "tiny", "--tower", "llm", "--train", "none", "--output", tmp_path / "m", *bases) == 0
    model = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    ids = model.tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % 100
    with torch.inference_mode():
        first, second = (model[0].model(input_ids=each).last_hidden_state[0, 0] for each in (ids, other))
    assert (first - second).abs().max() > 1e-5


def test_a_wrong_call_is_refused(
    alone: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(alone, monkeypatch, "tiny", "--tower", "llm", "--output", tmp_path) == 2
    assert f"{tmp_path} exists: choose a new folder" in capsys.readouterr().err
    words = ("mini", "--tower", "llm", "--output", tmp_path / "m", "--set", "data_root=nowhere")
    assert run(alone, monkeypatch, *words) == 2 and "no such file" in capsys.readouterr().err
