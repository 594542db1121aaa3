"""`--dtype auto`: the format that suits the processor, if the model keeps its golden vectors in it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lusifer.cli import main
from lusifer.embedder import folder, golden
from lusifer.errors import UsageError
from lusifer.index.index import Index
from lusifer.index.reindex import reindex
from lusifer.model.bases.backbones import cast_weights
from lusifer.processor import multiplies
from lusifer.server import run
from lusifer.server.metrics import Metrics
from lusifer.server.run import Limits
from lusifer.serving import dtypes
from support.tiny_folder import tiny_embedder

F32, BF16 = frozenset({"float32"}), frozenset({"bfloat16"})
WITH, WITHOUT = {"avx512_bf16": True}, {"avx512_bf16": False, "amx_bf16": False}
TEXTS = [json.dumps({"id": name, "text": f"the {name} is full of water"}) for name in ("river", "lake", "sea")]


@pytest.fixture
def processor(monkeypatch):
    monkeypatch.setattr(dtypes, "multiplies", multiplies)  # `conftest` has put another one there

    def has(flags, architecture="x86_64"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": architecture, **flags})

    return has


@pytest.fixture
def finished(bases_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text("\n".join(TEXTS), encoding="utf-8")
    folder.save(tiny_embedder(bases_folder), tmp_path / "model", finished=True)
    return tmp_path / "model"


def embed(model, output, *words):
    told = ["embed", str(model), "--input", "texts.jsonl", "--output", output, "--device", "cpu", "--unscored", "off"]
    assert main([*told, *words]) == 0
    return np.load(output)


def index(model, *words):
    told = ["index", str(model), "--input", "texts.jsonl", "--output", "INDEX", "--device", "cpu", "--unscored", "off"]
    return main([*told, *words])


@pytest.mark.parametrize(
    ("has_bfloat16", "saved", "wanted"),
    [
        (True, F32, "bfloat16"),
        (True, BF16, None),
        (True, F32 | BF16, "bfloat16"),
        (True, frozenset(), "bfloat16"),
        (False, F32, None),
        (False, BF16, "float32"),
        (False, F32 | BF16, "float32"),
        (None, F32, None),
        (None, BF16, None),
    ],
)
def test_the_fastest_format_is_that_which_the_processor_multiplies(has_bfloat16, saved, wanted):
    assert dtypes.fastest(has_bfloat16, saved) == wanted


@pytest.mark.parametrize(
    ("distance", "limit", "chosen"),
    [(0.0, 1e-3, True), (1e-3, 1e-3, True), (1.1e-3, 1e-3, False), (5e-3, 1e-2, True), (math.inf, 1e-2, False)],
)
@pytest.mark.parametrize("wanted", ["bfloat16", "float32"])
def test_it_is_taken_within_the_limit_alone(wanted, distance, limit, chosen):
    choice = dtypes.choose(wanted, distance, limit)
    assert choice.dtype == (wanted if chosen else None)
    assert choice.line.startswith(f"dtype {wanted if chosen else 'as saved'}: ") and "--dtype" in choice.line


@pytest.mark.parametrize(
    ("flags", "format_"), [(WITH, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), (WITHOUT, "float32")]
)
def test_embed_takes_what_suits_the_processor(flags, format_, finished, processor, capsys, monkeypatch):
    monkeypatch.setattr(dtypes, "FARTHEST", 1e-2)  # the tiny model's weights are random
    wanted = {name: embed(finished, f"{name}.npy", "--dtype", name) for name in ("float32", "bfloat16")}
    assert not np.array_equal(*wanted.values())
    capsys.readouterr()
    processor(flags)
    assert np.array_equal(embed(finished, "auto.npy"), wanted[format_])
    said = capsys.readouterr().err
    dtype = ", computed in bfloat16 (--dtype auto)" if format_ == "bfloat16" else ""
    assert said == f"lusifer: {len(TEXTS)} texts -> auto.npy (48 numbers each){dtype}\n"
    assert np.array_equal(embed(finished, "same.npy", "--dtype", "AUTO"), wanted[format_])


def test_only_long_jobs_hear_of_a_dtype_that_cannot_be_checked(finished, processor, capsys):
    (finished / "golden.json").unlink()
    processor(WITH)
    embed(finished, "few.npy")
    assert capsys.readouterr().err == f"lusifer: {len(TEXTS)} texts -> few.npy (48 numbers each)\n"
    told = ["embed", str(finished), "--input", "texts.jsonl", "--output", "shards", "--device", "cpu"]
    assert main([*told, "--unscored", "off"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("lusifer: dtype as saved: ") and "--dtype bfloat16 sets it" in said[0]


def test_half_precision_becomes_float32_where_it_is_only_emulated(bases_folder, tmp_path, processor):
    made = tiny_embedder(bases_folder)
    for backbone in ("encoder", "llm"):
        cast_weights(getattr(made[0].model, backbone), torch.bfloat16)
    folder.save(made, tmp_path / "model", finished=True)
    processor(WITHOUT)
    found, choice = load(tmp_path / "model")
    assert choice.dtype == "float32" and found[0].model.llm.dtype == torch.float32
    assert "--dtype bfloat16" in choice.line
    processor(WITH)
    assert load(tmp_path / "model")[1] == dtypes.FormatChoice(None)


def load(model, device="cpu"):
    return dtypes.load(model, device, lambda dtype: folder.load(model, device="cpu", dtype=dtype))


def test_a_model_that_goes_astray_stays_as_saved(finished, processor, monkeypatch):
    processor(WITH)
    monkeypatch.setattr(dtypes, "FARTHEST", 0.0)
    found, choice = load(finished)
    assert choice.dtype is None and found[0].model.llm.dtype == torch.float32
    assert choice.line.startswith("dtype as saved: in bfloat16 a test text of the model gets another")
    assert not choice.checked


def test_golden_vectors_are_computed_once_and_those_of_all_texts(finished, processor, monkeypatch, bases_folder):
    monkeypatch.setattr(dtypes, "FARTHEST", 1e-2)
    processor(WITHOUT)
    assert index(finished) == 0
    other = tiny_embedder(bases_folder)
    with torch.no_grad():
        next(other[0].model.connector.parameters()).mul_(1.1)
    folder.save(other, "other", finished=True)
    processor(WITH)
    counts, real = [], golden.vectors
    monkeypatch.setattr(golden, "vectors", lambda embedder, texts: counts.append(len(texts)) or real(embedder, texts))
    embed(finished, "short.npy")
    words = ["--input", "texts.jsonl", "--device", "cpu", "--unscored", "off"]
    assert main(["embed", str(finished), "--output", "shards", *words]) == 0
    assert main(["index", str(finished), "--output", "NEW", *words]) == 0
    run.load(str(finished), Metrics(), Limits(), device="cpu", dtype="auto")
    reindex("INDEX", "other", device="cpu", dtype="auto")
    assert counts == [20] * 5
    del counts[:]
    embed(finished, "float32.npy", "--dtype", "float32")
    assert main(["index", "other", "--output", "OTHER", *words, "--dtype", "float32"]) == 0
    assert counts == [20]  # a short job in a format of the call is not checked


@pytest.mark.parametrize("left", ["nothing", "damaged"])
def test_without_golden_vectors_it_stays_as_saved_and_says_so(left, finished, processor):
    (finished / golden.FILE).unlink()
    if left == "damaged":
        (finished / golden.FILE).write_text("{}", encoding="utf-8")
    processor(WITH)
    found, choice = load(finished)
    assert choice.dtype is None and found[0].model.llm.dtype == torch.float32
    assert "has no golden vectors (golden.json) that can be read" in choice.line and "--dtype bfloat16" in choice.line
    processor(WITHOUT)
    assert load(finished)[1] == dtypes.FormatChoice(None)


def test_elsewhere_than_on_a_known_processor_it_stays_as_saved(finished, processor):
    processor(WITH)
    assert load(finished, device="cuda:0")[1] == dtypes.FormatChoice(None)
    processor(WITH, architecture="aarch64")
    assert load(finished)[1] == dtypes.FormatChoice(None)


def test_a_call_that_goes_on_keeps_its_format(finished, processor, capsys, monkeypatch):
    monkeypatch.setattr(dtypes, "FARTHEST", 1e-2)
    told = ["embed", str(finished), "--input", "texts.jsonl", "--output", "shards", "--device", "cpu"]
    processor(WITHOUT)
    assert main([*told, "--shard-format", "npy"]) == 0
    processor(WITH)
    assert main([*told, "--shard-format", "npy"]) == 0
    assert main([*told, "--shard-format", "npy", "--dtype", "bfloat16"]) == 2
    assert "dtype None, now 'bfloat16'" in capsys.readouterr().err
    assert main([*told, "--shard-format", "npy", "--fresh"]) == 0
    assert json.loads(Path("shards/_manifest.json").read_text())["settings"]["dtype"] == "bfloat16"


def test_workers_continue_begun_work_in_its_format(finished, processor, monkeypatch):
    monkeypatch.setattr(dtypes, "FARTHEST", 1e-2)
    processor(WITH)
    told = ["embed", str(finished), "--input", "texts.jsonl", "--output", "shards", "--device", "cpu"]
    assert main([*told, "--shard-format", "npy"]) == 0
    wishes = []

    def stop(wish, *more):
        wishes.append(wish.dtype)
        raise UsageError("enough")

    monkeypatch.setattr("lusifer.cli.embed._in_workers", stop)
    assert main([*told, "--shard-format", "npy", "--engine", "ray"]) == 2
    assert main([*told[:4], "--output", "other", "--device", "cpu", "--shard-format", "npy", "--engine", "ray"]) == 2
    assert wishes == ["bfloat16", None]


@pytest.mark.parametrize(("first", "later", "format_"), [(WITHOUT, WITH, None), (WITH, WITHOUT, "bfloat16")])
def test_an_index_keeps_its_format(first, later, format_, finished, processor, capsys, monkeypatch):
    monkeypatch.setattr(dtypes, "FARTHEST", 1e-2)
    processor(first)
    assert index(finished) == 0 and Index.open("INDEX").model.dtype == format_
    assert ("embedded in bfloat16" in capsys.readouterr().err) == (format_ is not None)
    processor(later)
    with Path("texts.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"id": "pond", "text": "a pond"}')
    assert index(finished) == 0 and Index.open("INDEX").model.dtype == format_
    said = capsys.readouterr().err
    dtype = " in bfloat16" if format_ else ""
    *before, counts = said.splitlines()  # before: only the line on a slow dtype
    assert counts == f"lusifer: 4 documents -> INDEX: 1 added, 0 replaced, 3 unchanged; 1 passage embedded{dtype}"
    assert len(before) == (format_ is not None)
    assert ("has no instructions for bfloat16" in said) == (format_ is not None)
    loaded, real = [], folder.load
    monkeypatch.setattr(folder, "load", lambda *at, **how: loaded.append(how["dtype"]) or real(*at, **how))
    assert main(["search", "INDEX", "water", "--device", "cpu", "--unscored", "off"]) == 0
    said = capsys.readouterr().err
    assert ("INDEX: its vectors are in bfloat16: this processor" in said) == (format_ is not None)
    assert ("`lusifer reindex INDEX --model " in said) == (format_ is not None)
    run.make([str(finished)], indexes=[Path("INDEX")], device="cpu", dtype="auto")
    assert loaded == [format_, format_]
    other = "float32" if format_ else "bfloat16"
    assert index(finished, "--dtype", other) == 2
    assert f"--dtype {other}: the vectors of the index are in" in capsys.readouterr().err
    assert index(finished, "--dtype", format_ or "float32") == 0  # the same as saved


def test_embed_index_and_search_agree_on_a_processor_with_bfloat16(finished, processor, monkeypatch, capsys):
    monkeypatch.setattr(dtypes, "FARTHEST", 1e-2)
    processor(WITH)
    made = embed(finished, "v.npy")
    assert index(finished) == 0
    rows, vectors = Index.open("INDEX").held()
    order = [[json.loads(text)["id"] for text in TEXTS].index(row["id"]) for row in rows]
    assert (made[order] * vectors).sum(axis=1) == pytest.approx(1, abs=1e-3)
    capsys.readouterr()
    loaded, real = [], folder.load
    monkeypatch.setattr(folder, "load", lambda *at, **how: loaded.append(how["dtype"]) or real(*at, **how))
    question = "the lake is full of water"
    assert main(["search", "INDEX", question, "--device", "cpu", "--unscored", "off", "--json", "--top-k", "1"]) == 0
    said = capsys.readouterr()
    hit = json.loads(said.out)
    assert (hit["id"], loaded, said.err) == ("lake", ["bfloat16"], "") and hit["score"] == pytest.approx(1, abs=1e-3)


def test_another_model_embeds_an_index_anew_in_what_suits_the_processor(finished, processor, monkeypatch, bases_folder):
    monkeypatch.setattr(dtypes, "FARTHEST", 1e-2)
    processor(WITHOUT)
    assert index(finished) == 0
    processor(WITH)
    said = []
    reindex("INDEX", finished, device="cpu", dtype="auto", say=said.append)
    assert Index.open("INDEX").model.dtype is None and not said
    other = tiny_embedder(bases_folder)
    with torch.no_grad():
        next(other[0].model.connector.parameters()).mul_(1.1)
    folder.save(other, "other", finished=True)
    reindex("INDEX", "other", device="cpu", dtype="auto", say=said.append)
    assert Index.open("INDEX").model.dtype == "bfloat16" and said[0].startswith("dtype bfloat16: ")


def test_an_interrupted_reindex_keeps_the_format_in_which_it_began(finished, processor, monkeypatch, bases_folder):
    processor(WITHOUT)
    assert index(finished) == 0
    other = tiny_embedder(bases_folder)
    with torch.no_grad():
        next(other[0].model.connector.parameters()).mul_(1.1)
    folder.save(other, "other", finished=True)

    def stop(*counts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reindex("INDEX", "other", device="cpu", dtype="auto", progress=stop)
    monkeypatch.setattr(dtypes, "FARTHEST", 1e-2)
    processor(WITH)
    report = reindex("INDEX", "other", device="cpu", dtype="auto")
    assert Index.open("INDEX").model.dtype is None and (report.added, report.unchanged) == (0, 3)


def test_a_server_asks_the_index_of_another_model_in_the_saved_format(finished, processor, monkeypatch):
    monkeypatch.setattr(dtypes, "FARTHEST", 1e-2)
    processor(WITH)
    assert index(finished) == 0
    made = Index.open("INDEX").model
    loaded, real = [], folder.load
    monkeypatch.setattr(folder, "load", lambda *at, **how: loaded.append(how["dtype"]) or real(*at, **how))
    for records in ([], [made], [replace(made, identity="another")]):
        run.load(str(finished), Metrics(), Limits(), device="cpu", dtype="auto", indexes=records)
    assert loaded == ["bfloat16", "bfloat16", None]


@pytest.mark.parametrize(
    ("config", "saved"), [({"dtype": "bfloat16"}, BF16), ({"torch_dtype": "float32"}, F32), ({}, frozenset())]
)
def test_the_saved_format_of_another_model_is_that_of_its_configuration(config, saved, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"} | config), encoding="utf-8")
    assert dtypes.formats(tmp_path) == saved


def test_other_commands_know_no_auto(finished, capsys):
    assert main(["evaluate", str(finished), "--dtype", "auto"]) == 2
    assert "--dtype auto: unknown dtype" in capsys.readouterr().err
    with pytest.raises(UsageError):
        folder.load(finished, dtype="auto")
