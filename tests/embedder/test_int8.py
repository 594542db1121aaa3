"""An int8 copy gives nearly the vectors of its model, whatever is beside a text, and its folder is checked."""

import json
import pickle
import shutil
from copy import deepcopy

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.utils import filter_repo_objects

from lusifer import cli, load
from lusifer.embedder import contents, doctor, folder, info, int8
from lusifer.embedder.identity import identity, identity_in_memory
from lusifer.embedder.plain import PlainEmbedder
from lusifer.errors import DataError, ModelFolderError, UsageError
from lusifer.evaluation.run.encoder import load_model
from lusifer.io.weights import WEIGHTS
from lusifer.serving.files import TextSource

TEXTS = [f"the {colour} {animal} reads a {size} book" for colour in ("red", "green", "old") for animal in
         ("fox", "cat", "dog") for size in ("small", "large and heavy")]  # fmt: skip


@pytest.fixture(scope="session")
def int8_folder(model_folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("export")
    (place / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    command = ["export", str(model_folder), "--input", str(place / "texts.txt"), "--output", str(place / "int8")]
    assert cli.main(command) == 0
    return place / "int8"


@pytest.fixture
def copy(int8_folder, tmp_path):
    shutil.copytree(int8_folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_vectors_are_near_those_of_the_model(int8_folder, model_folder):
    small, whole = load(int8_folder), load(model_folder, device="cpu")
    one, other = small.encode(TEXTS), whole.encode(TEXTS)
    assert one.shape == other.shape
    likeness = (one * other).sum(axis=1)
    assert likeness.min() > 0.95
    assert likeness.min() < 0.9999999 or not np.array_equal(one, other)  # the numbers are others
    assert np.allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)


def test_the_short_way_gives_the_same_vectors(int8_folder):
    short, whole = folder.load(int8_folder, vectors_only=True), load(int8_folder)
    assert isinstance(short, PlainEmbedder)
    assert short.max_seq_length == whole.max_seq_length
    assert np.array_equal(*(each.encode(TEXTS, prompt="read: ", batch_size=len(TEXTS)) for each in (short, whole)))


def test_word_embeddings_that_are_looked_up_outside_of_the_graph_are_the_same_numbers(int8_folder, monkeypatch):
    short = folder.load(int8_folder, vectors_only=True)
    assert short.model._words[0].dtype == np.int8
    with monkeypatch.context() as patch:
        patch.setattr(int8, "_without_words", lambda *_: None)
        whole = folder.load(int8_folder, vectors_only=True)
    assert np.array_equal(short.encode(TEXTS), whole.encode(TEXTS))


def test_a_name_on_the_hub_is_loaded_like_the_folder(int8_folder, tmp_path, monkeypatch):
    def download(name: str, allow_patterns: list[str], revision: str | None) -> str:
        files = [str(file.relative_to(int8_folder)) for file in int8_folder.rglob("*") if file.is_file()]
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(int8_folder / file, tmp_path / file)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert np.array_equal(load("own/int8").encode(TEXTS[:3]), load(int8_folder).encode(TEXTS[:3]))
    with pytest.raises(UsageError, match="a fixed dtype"):
        load("own/int8", dtype="bfloat16")


def test_a_vector_does_not_depend_on_the_texts_beside_it(int8_folder):
    small = load(int8_folder)
    together = small.encode(["a cat", TEXTS[1] + " " + TEXTS[3]])
    assert np.allclose(small.encode(["a cat"])[0], together[0], atol=1e-5)


def test_prompts_limit_and_identity_travel(int8_folder, model_folder):
    small, whole = load(int8_folder), load(model_folder, device="cpu")
    assert small.prompts == whole.prompts and small.max_seq_length == whole.max_seq_length
    assert identity(int8_folder) != identity(model_folder)
    before = identity_in_memory(small)
    small[0].model.digest = "others"
    assert identity_in_memory(small) != before
    assert load_model(int8_folder, None).instructed == load_model(model_folder, None).instructed


def test_copies_compute_the_same(int8_folder):
    small = load(int8_folder)
    vectors = small.encode(TEXTS)
    for made in (deepcopy(small), pickle.loads(pickle.dumps(small)), pickle.loads(pickle.dumps(small, 2))):
        assert np.array_equal(made.encode(TEXTS), vectors)
        assert made[0].model.graph is not small[0].model.graph
        assert identity_in_memory(made) == identity_in_memory(small)
        assert not made[0].model.training


def test_a_saved_copy_is_a_whole_folder(copy, int8_folder, tmp_path):
    small = load(copy)
    vectors = small.encode(TEXTS)
    for number, save in enumerate((small.save_pretrained, small.save, lambda path: folder.save(small, path))):
        saved = tmp_path / f"saved {number}"
        save(str(saved))
        assert np.array_equal(load(saved).encode(TEXTS), vectors)
        assert (saved / int8.NUMBERS).read_bytes() == (int8_folder / int8.NUMBERS).read_bytes()
    folder.save(small, copy)  # in place of itself
    assert np.array_equal(load(copy).encode(TEXTS), vectors)
    small.save_pretrained(str(copy))  # onto itself
    assert np.array_equal(load(copy).encode(TEXTS), vectors)
    small[0].save(str(tmp_path / "new" / "part"))
    assert (tmp_path / "new" / "part" / int8.GRAPH).read_bytes() == (copy / int8.GRAPH).read_bytes()
    small.max_seq_length, small.prompts = 4, {"query": "ask: "}
    folder.save(small, tmp_path / "short")
    assert load(tmp_path / "short").max_seq_length == 4 and load(tmp_path / "short").prompts["query"] == "ask: "


def test_a_copy_whose_folder_is_gone_says_so(copy):
    small = load(copy)
    shutil.rmtree(copy)
    with pytest.raises((ModelFolderError, FileNotFoundError), match=str(copy)):
        deepcopy(small)
    with pytest.raises(FileNotFoundError, match=str(copy)):
        small.save_pretrained(str(copy.parent / "saved"))


@pytest.mark.slow
@pytest.mark.usefixtures("forked_pools")
def test_several_devices_share_the_texts(int8_folder):
    small = load(int8_folder)
    alone = small.encode(TEXTS)
    assert np.allclose(small.encode(TEXTS, device=["cpu", "cpu"]), alone, atol=1e-6)


def test_weights_are_whole_numbers_in_a_smaller_file(int8_folder, model_folder):
    assert not list(int8_folder.glob("*.safetensors"))
    small = (int8_folder / int8.NUMBERS).stat().st_size
    assert small < (model_folder / WEIGHTS).stat().st_size
    about = json.loads((int8_folder / int8.ABOUT).read_text(encoding="utf-8"))
    assert about["numbers"] == "int8" and about["texts"] == len(TEXTS)


def test_doctor_and_info_know_it(int8_folder):
    assert all(probe.ok for probe in doctor.examine(int8_folder))
    assert info.describe(int8_folder)["numbers"].startswith("int8")


def named(place, name, words=""):
    """Each way to load it, and the doctor, name the file, what is wrong and the mend."""
    said = []
    for quick in (False, True):
        with pytest.raises(ModelFolderError) as error:
            folder.load(place, vectors_only=quick)
        said.append(str(error.value))
    said.append(next(probe.detail for probe in doctor.examine(place) if not probe.ok))
    for line in said:
        assert line.startswith(f"{place / name}: ") and words in line and "\n" not in line
        assert line.endswith(("; export the model again", "; copy or save the folder again", "(git lfs pull)"))


FILES = [name for name in contents.REQUIRED if name != "modules.json"] + [int8.GRAPH, int8.NUMBERS]


@pytest.mark.parametrize("name", [*FILES, "modules.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    named(copy, name, "missing")


@pytest.mark.parametrize("name", [*FILES, int8.ABOUT])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_named(copy, name, share):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: int(len(content) * share)])
    named(copy, name, "truncated" if name == int8.NUMBERS else "damaged")


@pytest.mark.parametrize("name", [int8.GRAPH, int8.NUMBERS, "tokenizer.json"])
def test_a_pointer_in_place_of_a_file_is_named(copy, name):
    (copy / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    named(copy, name, "Git LFS pointer")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (int8.ABOUT, {"max_seq_length": "64"}, "max_seq_length='64': expected a number"),
        (int8.ABOUT, {"max_seq_length": None}, "no key max_seq_length"),
        (int8.ABOUT, {"max_seq_length": 0}, "max_seq_length=0: must be 1 or more"),
        (int8.ABOUT, {"normalize": "yes"}, "normalize='yes': expected true or false"),
        ("config.json", {"model_type": "bert"}, "model_type='bert': expected 'lusifer'"),
        ("config.json", {"encoder": 3}, "no model can be made from it (TypeError"),
        ("config.json", {"pooling": "max"}, "pooling='max' is unknown"),
        ("config.json", {"max_position_embeddings": "64"}, "max_position_embeddings='64': expected a number"),
        ("config.json", {"space": 3}, "space=3: expected name and identity"),
        ("config_sentence_transformers.json", {"prompts": ["query"]}, "prompts=['query']: expected an object"),
        ("config_sentence_transformers.json", {"default_prompt_name": "search"}, "expected one of its prompts"),
        ("tokenizer_config.json", {"model_max_length": "64"}, "model_max_length='64': expected a number"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"7": 3}}, "added_tokens_decoder.7=3: expected an object"),
        ("tokenizer.json", {"added_tokens": {}}, "added_tokens={}: expected a list"),
    ],
)
def test_a_setting_of_another_kind_is_named(copy, name, change, words):
    (copy / name).write_text(json.dumps(json.loads((copy / name).read_text()) | change))
    named(copy, name, words)


def test_a_graph_of_another_model_is_named(copy):
    graph = (copy / int8.GRAPH).read_text()
    (copy / int8.GRAPH).write_text(graph.replace("attention_mask", "token_type_ids"))
    named(
        copy, int8.GRAPH, "inputs ['input_ids', 'token_type_ids'], output dimension 48: expected input_ids, attention"
    )
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"llm": config["llm"] | {"hidden_size": 96}}))
    (copy / int8.GRAPH).write_text(graph)
    named(copy, int8.GRAPH, "output dimension 48: expected input_ids, attention_mask and 96")


def test_a_number_format_or_another_device_is_refused(int8_folder):
    for wish in ({"dtype": "bfloat16"}, {"device": "cuda"}):
        with pytest.raises(UsageError, match="CPU only|not usable here"):
            load(int8_folder, **wish)


def test_a_text_too_long_for_the_positions_is_refused(int8_folder):
    import torch

    with pytest.raises(UsageError, match="backbones read"):
        load(int8_folder)[0].model(torch.zeros(1, 9999, dtype=torch.long))


def test_few_texts_are_refused_before_a_model_is_loaded(int8_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lusifer.embedder.folder.load", lambda *args, **kwargs: pytest.fail("a model was loaded"))
    (tmp_path / "two.txt").write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(DataError, match="two.txt: 2 texts"):
        int8.sample(TextSource(str(tmp_path / "two.txt")).rows(), "two.txt")
    command = ["export", str(int8_folder), "--input", str(tmp_path / "two.txt"), "--output", str(tmp_path / "out")]
    assert cli.main(command) == 1
    assert "2 texts" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_export_is_not_exported_again(int8_folder, tmp_path):
    with pytest.raises(UsageError, match="expected a LUSIFER model"):
        int8.export(load(int8_folder), tmp_path / "again", TEXTS)
    assert not (tmp_path / "again").exists()
