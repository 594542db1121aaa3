"""A step on tensors without memory holds what the same step holds on real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lusifer.model import adapters, build
from lusifer.training.estimate import rehearsal
from lusifer.training.estimate.rehearsal import Live, Setting

F32 = {"encoder": torch.float32, "llm": torch.float32}


def setting(**changes: object) -> Setting:
    plain = {
        "rows": 4, "length": 24, "target": changes.get("length", 24), "predicts": False, "teacher": False,
        "repeated": True,
        "dtypes": F32, "bf16": False, "checkpointing": False,
        "chunk": 16,
    }  # fmt: skip
    return Setting(**(plain | changes))


def held(make, setting: Setting, kind: str = "cpu") -> float:  # noqa: ANN001
    return rehearsal.rehearse(make, setting, kind).bytes


@pytest.fixture
def make(bases_folder: tuple[Path, Path]):  # noqa: ANN201
    """Builds the tiny model with adapters on both backbones, on a device."""
    from lusifer.model.config import LusiferConfig
    from lusifer.model.lusifer import LusiferModel

    encoder, llm = (
        build.read_config(build.Base(str(p)), t) for p, t in zip(bases_folder, adapters.BACKBONES, strict=True)
    )

    def made(device: str = "meta", lora: tuple[str, ...] = adapters.BACKBONES) -> LusiferModel:
        with torch.device(device):
            model = LusiferModel(LusiferConfig(encoder=encoder, llm=llm, num_soft_tokens=1))
            adapters.freeze(model, {"connector": True})
            for backbone in lora:
                adapters.attach(model, backbone, 4, 8, 0.1)
        return model

    return made


def kept(model: nn.Module, rows: int, length: int) -> int:
    """Bytes of the storages that autograd keeps on real tensors, each once, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    held = []  # so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    ids = torch.ones(rows, length, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(ids, torch.ones_like(ids)).embedding.sum()
    return sum(sizes.values())


def test_what_is_counted_is_what_autograd_keeps(make) -> None:  # noqa: ANN001
    real = kept(make("cpu").train(), 4, 64)
    counted = held(make, setting(length=64))
    trained = sum(4 * p.numel() for p in make().parameters() if p.requires_grad)
    # On top of what is kept: gradients of weights, and what comes and goes within a layer.
    assert real < counted < 1.15 * real + 2 * trained


def test_a_rehearsal_counts_as_real_tensors_do(make) -> None:  # noqa: ANN001
    model = make("cpu").train()
    ids = torch.ones(4, 24, dtype=torch.long)
    with Live() as live:
        for _ in range(2):
            loss = model(ids, torch.ones_like(ids)).embedding.sum()
            loss.backward()
            del loss
    assert held(make, setting()) == pytest.approx(live.peak, rel=0.05)


def test_a_part_that_is_not_the_first_finds_the_gradients_of_those_before(make) -> None:  # noqa: ANN001
    def whole(device: str = "meta"):  # noqa: ANN202
        model = make(device, lora=())
        adapters.freeze(model, {"encoder": True, "connector": True})
        return model

    model, peaks = whole("cpu").train(), []
    ids = torch.ones(4, 24, dtype=torch.long)
    with Live() as live:
        for _ in range(2):
            loss = model(ids, torch.ones_like(ids)).embedding.sum()
            loss.backward()
            del loss
            peaks.append(live.peak)
    first, later = (held(whole, setting(repeated=repeated)) for repeated in (False, True))
    assert later - first == peaks[1] - peaks[0] > 100_000


def test_rows_and_length_and_labels_cost(make) -> None:  # noqa: ANN001
    few = held(make, setting())
    assert held(make, setting(rows=8)) > 1.8 * few
    target = held(make, setting(predicts=True))
    assert held(make, setting(predicts=True, target=12)) < target > few
    # One (chunk, vocabulary) array of floats at a time.
    assert held(make, setting(predicts=True, chunk=96)) - target <= 80 * 1024 * 4 * 3


def test_a_gpu_keeps_less_of_dropout_and_half_precision_less_of_all(make) -> None:  # noqa: ANN001
    cpu, gpu = (held(make, setting(length=64), kind) for kind in ("cpu", "cuda"))
    half = held(make, setting(length=64, bf16=True), "cuda")
    assert half < gpu < cpu


def test_checkpointing_keeps_less(make) -> None:  # noqa: ANN001
    plain, less = (held(make, setting(length=64, checkpointing=on), "cuda") for on in (False, True))
    assert less < plain


def test_flops_are_those_of_the_layers_that_run(make) -> None:  # noqa: ANN001
    model = make("cpu").train()
    ids = torch.ones(4, 24, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            model(ids, torch.ones_like(ids)).embedding.sum()
    counted = rehearsal.rehearse(make, setting(), "cpu")
    assert counted.forward == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert 1.5 * counted.forward < counted.flops < 3 * counted.forward
    head = rehearsal.rehearse(make, setting(predicts=True), "cpu")
    teacher = rehearsal.rehearse(make, setting(teacher=True), "cpu")
    assert counted.flops < teacher.flops < head.flops
