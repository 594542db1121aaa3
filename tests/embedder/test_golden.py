"""Golden vectors: written with a finished folder, and they tell when it gives other vectors than it gave."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lusifer
from lusifer.cli import main
from lusifer.embedder import doctor, folder, golden
from lusifer.errors import ModelFolderError
from lusifer.io import names
from support.tiny_folder import tiny_delta, tiny_embedder


@pytest.fixture
def finished(bases_folder, tmp_path):
    folder.save(tiny_embedder(bases_folder), tmp_path / "model", finished=True)
    return tmp_path / "model"


def probe(path, dtype=None):
    return golden.check(lusifer.load(path, device="cpu", dtype=dtype), path)


def test_a_folder_gives_the_vectors_that_are_written_in_it(finished):
    said = json.loads((finished / "golden.json").read_text("utf-8"))
    assert (said["texts"], said["half"]) == (list(golden.TEXTS), False)
    vectors = lusifer.load(finished, device="cpu").encode(said["texts"], batch_size=20)
    assert np.abs(vectors - np.array(said["vectors"])).max() < 1e-6
    assert len(set(map(tuple, said["vectors"]))) == len(golden.TEXTS)
    assert probe(finished).ok


def test_they_are_read_in_half_precision_with_more_room(finished):
    found = probe(finished, "bfloat16")
    assert found.ok and float(found.detail.split()[3]) > golden.FARTHEST


@pytest.mark.parametrize("change", ["a weight", "the limit", "a text"])
def test_another_model_is_told(change, finished):
    if change == "a weight":
        tensors = load_file(finished / "model.safetensors")
        tensors["llm.norm.weight"][:4] *= 1.2
        save_file(tensors, finished / "model.safetensors", {"format": "pt"})
    elif change == "the limit":
        file = finished / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 5}))
    else:
        file = finished / "golden.json"
        file.write_text(file.read_text("utf-8").replace("station?", "stations?"), "utf-8")
    found = probe(finished)
    assert not found.ok and "the folder, a base or a library has changed" in found.detail


def test_doctor_checks_them(finished):
    named = {each.name: each for each in doctor.examine(finished, "cpu")}
    assert named["golden vectors"].ok
    (finished / "golden.json").unlink()
    named = {each.name: each for each in doctor.examine(finished, "cpu")}
    assert "no golden.json in the folder" in named["golden vectors (not checked)"].detail


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{", "golden.json: "),
        ("{}", "damaged, not one vector for each text"),
        ('{"texts": ["a"], "vectors": [[1, "b"]]}', "damaged, not one vector for each text"),
        ('{"texts": ["a", "b"], "vectors": [[1.0]]}', "damaged, not one vector for each text"),
        ('{"texts": ["a"], "vectors": [[1.0, 2.0]]}', "vectors have 48 dimensions, and 2 in golden.json"),
    ],
)
def test_a_damaged_file_is_told(said, words, finished):
    (finished / "golden.json").write_text(said)
    assert not probe(finished).ok and words in probe(finished).detail


def test_what_is_to_embed_for_long_refuses_another_model_at_its_start(finished, model_folder, capsys, monkeypatch):
    for embedder in (lusifer.load(finished, device="cpu"), folder.load(finished, device="cpu", vectors_only=True)):
        assert golden.demand(embedder, finished).detail.endswith("over 20 texts")
    assert "no golden.json" in golden.demand(lusifer.load(model_folder, device="cpu"), model_folder).detail
    tensors = load_file(finished / "model.safetensors")
    tensors["llm.norm.weight"][:4] *= 1.2
    save_file(tensors, finished / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelFolderError, match="model: gives other vectors than when it was written .golden vectors: largest cosine"
    ):
        golden.demand(lusifer.load(finished, device="cpu"), finished)
    monkeypatch.chdir(finished.parent)
    (finished.parent / "in.txt").write_text("water\n" * 3)
    call = ["embed", str(finished), "--input", "in.txt", "--output"]
    assert main([*call, "shards"]) == main(["export", str(finished), "--output", "copy"]) == 1
    assert capsys.readouterr().err.count("gives other vectors than when it was written") == 2
    assert not any((finished.parent / name).exists() for name in ("shards", "copy"))
    assert main([*call, "o.npy"]) == 0  # a short call does without


def test_they_are_in_20_texts_and_all_languages_of_the_evaluation():
    assert len(golden.TEXTS) == len(set(golden.TEXTS)) == 20
    scripts = "LATIN CYRILLIC ARABIC DEVANAGARI BENGALI TELUGU HANGUL CJK HIRAGANA".split()
    found = {unicodedata.name(char).split()[0] for text in golden.TEXTS for char in text if char.isalpha()}
    assert set(scripts) <= found


def test_a_delta_has_those_of_its_whole(bases_folder, tmp_path):
    delta = tiny_delta(bases_folder, tmp_path / "delta")
    folder.export(delta, tmp_path / "whole")
    golden.write(lusifer.load(delta, device="cpu"), delta)
    one, other = (golden.read(path) for path in (delta, tmp_path / "whole"))
    assert torch.equal(one[1], other[1])
    assert golden.check(lusifer.load(delta, device="cpu"), tmp_path / "whole").ok


def test_the_model_that_comes_along_has_them():
    assert probe(names.model("mini")).ok


@pytest.mark.parametrize("texts", ["x" * len(golden.TEXTS), [], [1] * len(golden.TEXTS), None])
def test_what_is_no_list_of_texts_is_damaged(texts, finished):
    file = finished / "golden.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"texts": texts}))
    found = probe(finished)
    assert not found.ok and "golden.json: damaged, not one vector for each text" in found.detail
