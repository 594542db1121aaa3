"""Ours and the pipeline of the benchmark compute the same thing, the authors' way nearly; on small shapes."""

from __future__ import annotations

import importlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from lusifer.training.recipe.load import load_recipe

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def room() -> Iterator[Callable[[str], ModuleType]]:
    """Gives a module of benchmarks/speed, its model small; their plain names are forgotten afterwards."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        for folder in (BENCHMARKS, BENCHMARKS / "speed"):
            patch.syspath_prepend(str(folder))
        medium = importlib.import_module("medium")
        patch.setattr(medium, "VOCABULARY", 400)
        encoder = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        noise = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # gradients of two runs are compared
        llm = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        llm |= {"head_dim": 8, "intermediate_size": 48}
        for name, sizes in (("ENCODER", encoder | noise), ("LLM", llm)):
            patch.setattr(medium, name, {**getattr(medium, name), **sizes, "vocab_size": 400})
        yield importlib.import_module
    for name in set(sys.modules) - before:
        if Path(str(getattr(sys.modules[name], "__file__", ""))).is_relative_to(BENCHMARKS):
            del sys.modules[name]


@pytest.fixture(scope="module")
def folder(room: Callable[[str], ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("medium")
    room("medium").save(target)
    return target


def test_every_way_of_embedding_gives_the_same_vectors(room, folder, monkeypatch):
    case = room("embedding")
    few = room("medium").texts(40)
    monkeypatch.setattr(case, "texts", lambda: few)
    ours = case.prepare(folder, "ours")[0]()
    assert len({tuple(np.round(row, 3)) for row in ours}) > 30  # not all alike
    for way in ("pipeline merged", "pipeline merged, sorted", "pipeline"):
        assert np.abs(case.prepare(folder, way)[0]() - ours).max() < 1e-4, way
    # The authors' code counts padding in positions: another vector for a padded text, though nearly the same.
    theirs = case.prepare(folder, "authors")[0]()
    assert 1e-6 < np.abs(theirs - ours).max() and (theirs * ours).sum(axis=1).min() > 0.98
    half = case.prepare(folder, "ours bfloat16")[0]()
    assert 0.999 < (half * ours).sum(axis=1).min() < 1 - 1e-7


def test_a_peer_without_the_adapters_would_be_noticed(room, folder, monkeypatch):
    case, few = room("embedding"), room("medium").texts(8)
    monkeypatch.setattr(case, "texts", lambda: few)
    ours = case.prepare(folder, "ours")[0]()
    plain = room("medium").adapted
    monkeypatch.setattr(case, "adapted", lambda target, **bases: plain(target, trained=False, **bases))
    assert np.abs(case.prepare(folder, "pipeline")[0]() - ours).max() > 1e-3


@pytest.mark.parametrize("way", ["ours", "bases and adapters, merged", "authors"])
def test_every_way_of_loading_reads_weights_once_and_gives_the_same_model(room, folder, monkeypatch, way):
    work, _ = room("loading").prepare(folder, way)
    read, plain = [], PreTrainedModel.from_pretrained.__func__

    def counted(cls: type, path: object, *args: object, **kwargs: object) -> object:
        read.append(Path(str(path)).name)
        return plain(cls, path, *args, **kwargs)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(counted))
    loaded = work()
    assert sorted(read) == (["model"] if way == "ours" else ["encoder", "llm"])
    text = room("medium").texts(1)  # alone, so that no padding counts in positions
    wanted = room("lusifer").load(folder / "model", device="cpu").encode(text)
    found = loaded[1].encode(loaded[0], text, multiple=1) if way == "authors" else loaded.encode(text)
    assert np.abs(found - wanted).max() < 1e-4


def gradients(
    case: ModuleType, folder: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of a step, and what it leaves in the parameters before it clears them."""
    made, found = [], {}
    plain = case.adapted
    monkeypatch.setattr(case, "adapted", lambda *args, **kwargs: made.append(plain(*args, **kwargs)) or made[-1])
    step = case.prepare(folder, way)[0]
    (model,) = made
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p, name=name: found.update({name: p.grad.clone()}))
    loss = step()
    monkeypatch.undo()
    return loss, found


@pytest.mark.parametrize("case", ["contrastive", "alignment"])
def test_steps_have_the_same_loss_and_gradients(room, folder, monkeypatch, case):
    module = room(case)
    loss, ours = gradients(module, folder, "ours", monkeypatch)
    if case == "alignment":  # in parts, as against the whole batch: the authors' mask and labels are others
        monkeypatch.setattr(module, "ROWS", module.BATCH)
    other_loss, others = gradients(
        module, folder, "ours" if case == "alignment" else "pipeline, mini-batches of 4", monkeypatch
    )
    assert loss > 0.1 and abs(loss - other_loss) < 1e-5 * loss
    assert ours.keys() == others.keys() and len(ours) > 10
    largest = max(float(grad.abs().max()) for grad in ours.values())
    assert max(float((grad - others[name]).abs().max()) for name, grad in ours.items()) < 1e-3 * largest


def test_a_step_of_alignment_is_the_same_in_the_trainers_order_and_as_drawn(room, folder, monkeypatch):
    case = room("alignment_lengths")
    loss, ours = gradients(case, folder, "ours", monkeypatch)
    other_loss, others = gradients(case, folder, "rows as drawn", monkeypatch)
    assert loss > 0.1 and abs(loss - other_loss) < 1e-5 * loss
    largest = max(float(grad.abs().max()) for grad in ours.values())
    assert max(float((grad - others[name]).abs().max()) for name, grad in ours.items()) < 1e-3 * largest


@pytest.mark.parametrize("way", ["ours", "authors"])
def test_tokens_are_made(room, folder, monkeypatch, way):
    case, few = room("tokenizing"), room("medium").texts(6)
    monkeypatch.setattr(case, "texts", lambda: few)
    work, facts = case.prepare(folder, way)
    assert facts["texts"] == 60 and work() == facts["tokens"] > facts["texts"]


def test_the_table_has_medians_and_keeps_cases_that_are_not_run_again(room, tmp_path, monkeypatch):
    bench = room("bench")
    runs = [{"seconds": [s], "peak_mb": 100.0, "texts": 8, "flops": 6.0e9, "gemm": 6.0e9} for s in (1.0, 4.0, 2.0)]
    ours, theirs = bench.row(runs), bench.row([one | {"seconds": [6.0]} for one in runs])
    assert (ours["seconds"], ours["texts_per_second"], ours["of_gemm"], ours["runs"]) == (2.0, 4.0, 0.5, 3)
    lines = bench.table({"embedding": {"ours": ours, "theirs": theirs}})
    assert lines[2] == "| embedding | ours | 2.00 | 1.00 to 4.00 | 4.0 |  | 50 % | 6 | 100 |  | 3 |"
    assert lines[3].endswith("| 3.00 | 3 |")
    packages, output = {name: "1" for name in bench.PACKAGES}, tmp_path / "bench"
    bench.write(output, packages, {"embedding": {"ours": ours}})
    assert bench.kept(output, packages) == {"embedding": {"ours": ours}}
    with pytest.raises(SystemExit, match="choose another --output"):  # a table of another machine is not lost
        bench.kept(output, packages | {"torch": "2"})
    with monkeypatch.context() as other:
        other.setattr(bench, "processor", lambda: "another")
        with pytest.raises(SystemExit, match="choose another --output"):
            bench.kept(output, packages)
    with monkeypatch.context() as other:
        other.setattr(bench, "definition", lambda case: "of another day")
        assert bench.kept(output, packages) == {}
    assert list(bench.in_order("embedding", {"authors": theirs, "ours": ours})) == ["ours", "authors"]
    assert json.loads(output.with_suffix(".json").read_text())["cases"]["embedding"]["ours"]["every"] == [1.0, 4.0, 2.0]


def test_a_table_is_of_one_kind_of_processor(room, monkeypatch):
    bench = room("bench")
    for has, name in (({"amx_tile": True, "avx2": True}, "amx"), ({"avx2": True}, "avx2"), ({}, platform.machine())):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert bench.instructions() == name


def test_a_case_that_changes_is_another_one(room, tmp_path, monkeypatch):
    bench = room("bench")
    before = bench.definition("contrastive")
    assert before == bench.definition("contrastive") != bench.definition("alignment")
    shutil.copytree(bench.ROOM, tmp_path / "speed")
    with (tmp_path / "speed" / "peers.py").open("a") as file:
        file.write("# changed")
    apart = {case: bench.definition(case) for case in ("embedding_int8", "tokenizing")}
    monkeypatch.setattr(bench, "ROOM", tmp_path / "speed")
    assert bench.definition("contrastive") != before
    assert bench.definition("embedding_int8") != apart["embedding_int8"]  # by way of embedding.py
    assert bench.definition("tokenizing") == apart["tokenizing"]  # has no peers


def test_a_way_is_warmed_up_by_a_part_and_measured_whole(room, folder, monkeypatch, capsys):
    case, worker, few = room("embedding"), room("worker"), room("medium").texts(16)
    monkeypatch.setattr(case, "texts", lambda: few)
    embedded, plain = [], case.embed
    monkeypatch.setattr(case, "embed", lambda model, rows: embedded.append(len(rows)) or plain(model, rows))
    monkeypatch.setattr(worker, "gemm", lambda: 1e9)
    monkeypatch.setattr(sys, "argv", ["worker", str(folder), "embedding", "ours", "--times", "2"])
    threads = torch.get_num_threads()
    worker.main()
    torch.set_num_threads(threads)
    found = json.loads(capsys.readouterr().out)
    assert embedded == [2, 16, 16] and len(found["seconds"]) == 2 and found["texts"] == 16 and not found["cold"]


@pytest.mark.slow
def test_the_peak_of_a_way_is_its_own_and_not_that_of_who_started_it(room):
    held = np.ones(10**8)  # 800 MB
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS / 'speed')!r}); import worker; print(worker.peak_mb())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 20 < float(found) < held.nbytes / 2**20


@pytest.mark.slow
def test_steps_of_a_recipe_are_timed_without_the_first(room, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    few = ["stages.0.max_steps=4", "stages.1.max_steps=4"]
    found = room("stage_clock").measure(load_recipe("tiny", few), 2)
    assert [(each.stage, len(each.seconds), len(each.processor)) for each in found] == [
        ("alignment", 2, 2),
        ("contrastive", 2, 2),
    ]
    assert all(each.step > 0 and (each.memory is None or each.memory > 0) for each in found)
    assert not list(tmp_path.iterdir())
