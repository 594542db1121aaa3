"""The GPU benchmark runs without a GPU on tiny shapes, and leaves no number where there is none."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from support import processes

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_a_batch_without_padding_gives_the_vectors_of_the_padded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "speed"))
    shapes = importlib.import_module("gpu_model")
    unpadded = shapes.Unpadded()
    padded, packed = (shapes.build("cpu", True, way, torch.float32).eval() for way in ("sdpa", shapes.UNPADDED))
    packed.load_state_dict(padded.state_dict())
    features = shapes.batch([3, 9, 16], 1000, "cpu")
    with torch.inference_mode():
        assert torch.allclose(padded(**features).embedding, unpadded.embed(packed, features), atol=1e-5)


@pytest.mark.slow
def test_small_shapes_run_and_what_is_missing_has_a_reason(tmp_path: Path) -> None:
    words = ["--small", "--times", "1", "--cases", "alignment"]
    done = processes.script(BENCHMARKS / "gpu.py", tmp_path, *words, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = {line.split(" | ")[2].rstrip(" |"): line for line in lines[2:]}
    assert float(rows["sdpa"].split(" | ")[3]) > 0
    if importlib.util.find_spec("flash_attn") is None:
        assert "not measured: the package flash-attn is not installed | | | | |" in rows["flash_attention_2"]
