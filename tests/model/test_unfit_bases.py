"""Bases that cannot be trained on are refused alike by `check` and `train`, before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lusifer import load
from lusifer.embedder import folder as folders
from lusifer.errors import ModelFolderError, UsageError
from lusifer.model import build
from lusifer.model.build import Base

POINTER = (Path(__file__).parents[1] / "cases" / "lfs-pointer.txt").read_bytes()
QUANTISED = {
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "gptq": {"quant_method": "gptq", "bits": 4},
    "fp8": {"quant_method": "fp8"},
    "unknown method": {"bits": 4},
}


def base(tmp_path: Path, backbone: str) -> Path:
    shutil.copytree(build.TINY / backbone, tmp_path / backbone)
    return tmp_path / backbone


@pytest.mark.parametrize("backbone", ["encoder", "llm"])
@pytest.mark.parametrize("method", QUANTISED)
def test_a_quantised_base_is_refused(method: str, backbone: str, tmp_path: Path) -> None:
    path = base(tmp_path, backbone)
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": QUANTISED[method]}))
    words = rf"model\.{backbone}\.path=.*: its weights are quantized \({method}\): give the original model"
    with pytest.raises(UsageError, match=words):
        build.read_config(Base(str(path)), backbone)
    with pytest.raises(UsageError, match=words):
        build.read_backbone(Base(str(path)), backbone)


@pytest.mark.parametrize("under", ["owner/base-on-the-hub", "/gone/base", None])
def test_a_folder_of_adapters_alone_is_no_base(under: str | None, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": under, "peft_type": "LORA"}))
    words = rf"has only the adapters of {under or 'a model that is not named'}: merge them into that model and save it"
    with pytest.raises(UsageError, match=words):
        build.read_config(Base(str(tmp_path)), "llm")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model-1-of-2.safetensors", "tokenizer.json"])
def test_a_base_of_pointers_is_refused(name: str, tmp_path: Path) -> None:
    path = base(tmp_path, "llm")
    (path / name).write_bytes(POINTER)
    with pytest.raises(UsageError, match=rf"{name}: is a Git LFS pointer, not the file itself: fetch it"):
        build.read_config(Base(str(path)), "llm")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "modules.json"])
def test_a_model_folder_of_pointers_is_refused(name: str, model_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model_folder, copy)
    (copy / name).write_bytes(POINTER)
    with pytest.raises(ModelFolderError, match=rf"{name}: is a Git LFS pointer, not the file itself: fetch it"):
        load(copy)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"dtype": "fp16"}, "dtype fp16: unknown dtype: did you mean float16"),
        ({"dtype": "FP16"}, "dtype FP16: unknown dtype: did you mean float16"),
        ({"dtype": "bf16"}, "did you mean bfloat16"),
        ({"dtype": "bfloat"}, "did you mean bfloat16"),
        ({"dtype": "half"}, "did you mean float16"),
        ({"dtype": "int8"}, "dtype int8: unknown dtype: .*use float32, bfloat16, float16"),
        ({"dtype": "float64"}, "dtype float64: unknown dtype"),
        ({"dtype": 8}, "dtype 8: unknown dtype"),
        ({"device": "gpu"}, "device gpu: unknown device: did you mean cuda"),
        ({"device": "GPU:1"}, "device gpu:1: unknown device: did you mean cuda:1"),
        ({"device": "metal"}, "did you mean mps"),
        ({"device": "cdua"}, "did you mean cuda"),
        ({"device": "meta"}, "device meta: not usable here"),
    ],
)
def test_a_device_or_number_format_of_another_name_is_said(wish: dict, words: str, model_folder: Path) -> None:
    with pytest.raises(UsageError, match=words):
        load(model_folder, **wish)


def test_usual_spellings_are_taken(model_folder: Path) -> None:
    import torch

    for dtype in ("Float32", "torch.float32", torch.float32, None):
        assert folders.load(model_folder, device="CPU", dtype=dtype).encode("a text").dtype == "float32"
