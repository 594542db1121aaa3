"""Fewer and smaller numbers: what they are, what they are made from, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.util import quantize_embeddings

from lusifer import load
from lusifer.cli import main
from lusifer.errors import DataError
from lusifer.serving import bulk, forms
from lusifer.serving.files import TextSource
from lusifer.serving.forms import VectorForm

VECTORS = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def nested(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says it was trained for 8 and 24 of its 48 numbers."""
    made = shutil.copytree(model_folder, tmp_path_factory.mktemp("nested") / "model")
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"matryoshka_dims": [8, 24]}))
    return made


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    found = [f"water {number} and stone {number * 7}" for number in range(30)]
    Path("in.txt").write_text("\n".join(found) + "\n")
    return found


@pytest.mark.parametrize("precision", forms.PRECISIONS)
def test_they_are_those_of_sentence_transformers(precision):
    form = VectorForm(precision=precision)
    form = form.calibrated(VECTORS, "these") if form.needs_ranges else form
    ranges = np.stack([VECTORS.min(axis=0), VECTORS.max(axis=0)])
    expected = quantize_embeddings(VECTORS, precision, ranges=ranges)
    found = form.apply(VECTORS)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_what_lies_outside_the_ranges_is_the_last_step_and_no_other():
    form = VectorForm(precision="int8").calibrated(VECTORS, "these")
    assert (form.apply(VECTORS + 100) == 127).all() and (form.apply(VECTORS - 100) == -128).all()


def test_int8_vectors_give_the_numbers_back_within_a_step():
    form = VectorForm(precision="int8").calibrated(VECTORS, "these")
    steps = (form.ranges[1] - form.ranges[0]) / 255
    again = (form.apply(VECTORS).astype(np.float32) + 128.5) * steps + form.ranges[0]
    assert (np.abs(again - VECTORS) <= steps / 2 + 1e-6).all()


@given(st.integers(1, 16))
def test_a_cut_vector_has_length_1(size):
    short = VectorForm(dimensions=size).apply(VECTORS)
    assert short.shape == (50, size)
    assert np.allclose(np.linalg.norm(short, axis=1), 1 if size < 16 else np.linalg.norm(VECTORS, axis=1), atol=1e-6)


def test_dimensions_are_those_the_model_was_trained_for(nested, model_folder, texts, capsys):
    assert main(["embed", str(nested), "--input", "in.txt", "--output", "o.npy", "--dimensions", "8"]) == 0
    whole = load(model_folder, device="cpu").encode(texts)[:, :8]
    found = np.load("o.npy")
    assert np.abs(found - whole / np.linalg.norm(whole, axis=1, keepdims=True)).max() < 1e-6
    assert main(["embed", str(nested), "--input", "in.txt", "--output", "p.npy", "--dimensions", "16"]) == 2
    assert "--dimensions 16: this model was trained for 8, 24, 48: use one of them" in capsys.readouterr().err
    assert main(["embed", str(model_folder), "--input", "in.txt", "--output", "p.npy", "--dimensions", "8"]) == 2
    assert "--dimensions 8: this model was trained for all 48 dimensions only" in capsys.readouterr().err
    assert not Path("p.npy").exists()


def test_the_ranges_of_int8_are_written_down_and_taken_again(model_folder, texts, capsys):
    call = ["embed", str(model_folder), "--input", "in.txt", "--precision", "int8"]
    assert main([*call, "--output", "one.npy"]) == 0
    assert np.load("one.npy").dtype == np.int8
    said = json.loads(Path("one.npy.calibration.json").read_text())["calibration"]
    assert said["of"] == "30 texts of in.txt, all"
    ranges, vectors = np.array(said["ranges"]), load(model_folder, device="cpu").encode(texts)
    assert np.abs(ranges - np.stack([vectors.min(axis=0), vectors.max(axis=0)])).max() < 1e-6
    Path("in.txt").write_text("\n".join(texts[:5]) + "\n")
    assert main([*call, "--output", "two.parquet", "--calibration", "one.npy.calibration.json"]) == 0
    two = np.stack(parquet.read_table("two.parquet")["embedding"].to_numpy(zero_copy_only=False))
    assert two.dtype == np.int8
    assert np.abs(two.astype(int) - np.load("one.npy")[:5]).max() <= 1  # where rounding lies on a step
    capsys.readouterr()
    for words, message in (
        (["--precision", "binary", "--calibration", "one.npy.calibration.json"], "binary has no ranges"),
        (["--precision", "int8", "--calibration", "in.txt"], "in.txt: damaged"),
        (["--precision", "int8", "--calibration", "one.npy.calibration.json", "--dimensions", "8"], "same --dim"),
    ):
        assert main(["embed", str(model_folder), "--input", "in.txt", "--output", "x.npy", *words]) in (1, 2)
        assert message in capsys.readouterr().err


def test_ranges_come_from_texts_over_the_whole_input_and_stay_when_it_goes_on(model_folder, texts, monkeypatch):
    monkeypatch.setattr(bulk, "CALIBRATION_TEXTS", 10)
    embedder = load(model_folder, device="cpu")

    def job(output: str) -> bulk.EmbedJob:
        return bulk.EmbedJob(TextSource("in.txt"), Path(output), VectorForm(precision="int8"), rows=8)

    engine = bulk.local(embedder, 64)
    bulk.run(job("whole"), engine)
    said = json.loads(Path("whole/_manifest.json").read_text())
    assert said["calibration"]["of"] == "10 texts of in.txt, one in 3 from the first on"
    vectors = embedder.encode(texts[::3])
    assert np.abs(np.array(said["calibration"]["ranges"])[1] - vectors.max(axis=0)).max() < 1e-6
    calls = []

    def stopped(plan):
        for done in engine(plan):
            calls.append(done[0])
            yield done
            if len(calls) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bulk.run(job("again"), stopped)
    monkeypatch.setattr(forms.VectorForm, "calibrated", None)  # it is not asked for anew
    bulk.run(job("again"), engine)
    assert {f.name: f.read_bytes() for f in Path("again").iterdir()} == {
        f.name: f.read_bytes() for f in Path("whole").iterdir()
    }


def test_one_text_gives_no_ranges():
    with pytest.raises(DataError, match="--precision int8: the vectors of one text are all the same"):
        VectorForm(precision="int8").calibrated(VECTORS[:1], "one text")
