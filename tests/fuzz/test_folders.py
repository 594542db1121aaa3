"""A folder with a damaged file is read, or one line names what is wrong with it: models, scores, runs."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lusifer
from lusifer.calibration import statistics
from lusifer.calibration.fit import Parties, fit
from lusifer.embedder.info import describe
from lusifer.evaluation.run.evaluate import Options, evaluate
from lusifer.evaluation.scores import results
from lusifer.index.index import Index
from lusifer.training.folder import RunFolder
from lusifer.training.recipe.load import load_recipe
from lusifer.training.run import inputs as inputs_of
from lusifer.training.run.bases import concrete
from support.fuzzing import damaged, inputs, tried
from support.offline_files import Oracle, write_split

pytestmark = pytest.mark.slow

TEXTS = ["The river rises in spring.", "Сколько воды нужно?"]


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scored")
    write_split(root, "en", "dev", list(range(12)))
    write_split(root, "es", "dev", list(range(12)))
    options = Options(data=root, languages=["en", "es"], tasks=["SIB200TranslationToEnglishDev"])
    evaluate(Oracle(), options, root / "scores")
    return root / "scores"


@pytest.fixture(scope="module")
def run(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("damaged") / "run"))


@pytest.fixture(scope="module")
def index(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    embedder = lusifer.load(model_folder, device="cpu")
    found = Index.create(tmp_path_factory.mktemp("index") / "whole", model_folder, embedder=embedder)
    found.add([{"id": str(row), "text": f"Text {row}", "lang": "en"} for row in range(4)])
    return found


@pytest.fixture(scope="module")
def copy(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path_factory.mktemp("damaged") / "model"))


@inputs(0.02, 16)
@given(st.data())
def test_damaged_models_give_numbers_or_a_reason(model_folder: Path, copy: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(files(model_folder)))
    whole = (model_folder / name).read_bytes()
    gone = data.draw(st.integers(0, 9)) == 0
    try:
        if gone:
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(data.draw(damaged(whole)))
        with tried("model folders"):
            assert np.isfinite(lusifer.load(copy, device="cpu").encode(TEXTS)).all()
        with tried("model folders, `info`"):
            describe(copy)
    finally:
        (copy / name).write_bytes(whole)


@inputs(0.03, 10)
@given(st.data())
def test_damaged_scores_are_read_or_refused(
    scored: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(files(scored)))
    whole = (scored / name).read_bytes()
    try:
        (scored / name).write_bytes(data.draw(damaged(whole)))
        with tried("scores"):
            results.read(scored)
    finally:
        (scored / name).write_bytes(whole)


@inputs(0.02, 6)
@given(st.data())
def test_damaged_runs_are_opened_or_refused(finished: Path, run: Path, recipe: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["recipe.yaml", "inputs.json", "metrics.jsonl"]))
    whole = (run / name).read_bytes()
    try:
        (run / name).write_bytes(data.draw(damaged(whole)))
        with tried("run folders"), RunFolder.start(run, concrete(load_recipe(recipe)), resume=True) as opened:
            inputs_of.remember(opened, opened.recipe, inputs_of.fingerprints(opened.recipe))
            opened.trim_metrics("align", 2)
    finally:
        for file in ("recipe.yaml", "inputs.json", "metrics.jsonl"):
            (run / file).write_bytes((finished / file).read_bytes())


@inputs(0.02, 12)
@given(st.data())
def test_damaged_indexes_answer_with_numbers_or_are_refused(index: Index, tmp_path: Path, data: st.DataObject) -> None:
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    shutil.copytree(index.folder, tmp_path / "copy")
    file = tmp_path / "copy" / data.draw(st.sampled_from(files(index.folder)))
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    with tried("indexes"):
        opened = Index.open(tmp_path / "copy", embedder=index.embedder)
        assert all(math.isfinite(hit.score) for hit in opened.search("Text 1")[0])


@inputs(0.05, 40)
@given(st.data())
def test_damaged_statistics_are_numbers_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    vectors = {"en": np.eye(3)[:, :2] + 0.1, "sw": np.eye(3)[:, :2] + 0.2}
    file = tmp_path / "languages.safetensors"
    fit(vectors, vectors, Parties("mine", "0123456789ab", "0123456789ab", "", ""), "by hand").write(file)
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    with tried("language statistics"):
        assert np.isfinite(statistics.read(file).query_means).all()
