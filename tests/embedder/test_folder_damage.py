"""A damaged model folder: the file is named, in one line, with the mend; the doctor is red."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import lusifer
from lusifer.embedder import contents, folder
from lusifer.embedder.doctor import examine
from lusifer.embedder.info import describe
from lusifer.errors import ModelFolderError
from lusifer.io.weights import INDEX, WEIGHTS
from lusifer.model import adapters
from support.tiny_folder import tiny_delta

ABOUT = {"name": "one", "tower": "llm", "r": 2, "alpha": 4, "targets": ["q_proj"]}


@pytest.fixture
def copy(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "copy")


@pytest.mark.parametrize("name", [*contents.REQUIRED, WEIGHTS])
def test_a_missing_file_is_named(name, copy):
    (copy / name).unlink()
    with pytest.raises(ModelFolderError, match=rf"{name}: missing") as caught:
        lusifer.load(copy)
    assert caught.value.status == 1
    assert "\n" not in str(caught.value)


def test_a_machine_without_memory_is_no_damaged_folder(model_folder, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    for name in ("lusifer.embedder.folder.Tokenizer", "sentence_transformers.SentenceTransformer"):
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(name, type("Full", (), {"from_file": full, "__init__": full}))
            folder.load(model_folder, "cpu")


@pytest.mark.parametrize("name", [*contents.REQUIRED, WEIGHTS])
@pytest.mark.parametrize("share", (0, 0.01, 0.5, 0.99))
def test_a_truncated_file_is_named(name, share, copy):
    file = copy / name
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    message = rf"{name}: (truncated or )?damaged.*copy or save the folder again"
    with pytest.raises(ModelFolderError, match=message) as caught:
        lusifer.load(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", "{}"),
        ("modules.json", "[]"),
        ("modules.json", "[1]"),
        ("modules.json", '[{"path": ""}]'),
        ("config.json", "[]"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "3"),
        ("tokenizer.json", '{"model": 3}'),
        (INDEX, "[]"),
        (INDEX, "{}"),
    ],
)
def test_json_of_another_shape_is_named(name, content, copy):
    (copy / name).write_text(content)
    with pytest.raises(
        ModelFolderError, match=rf"{name}: damaged, (not? |a module|it lists).*copy or save the folder again"
    ):
        lusifer.load(copy)
    assert [probe.ok for probe in examine(copy)] == [False]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("sentence_transformers.base.", "sentence_transformers.bse.", "damaged, sentence-transformers has no class"),
        ("Normalize", "Normalise", "damaged, sentence-transformers has no class"),
        ("sentence_transformers.base.", "ssentence_transformers.base.", "names the class .* is not part of"),
    ],
)
def test_a_class_that_sentence_transformers_lacks_is_named(old, new, words, copy):
    file = copy / "modules.json"
    assert old in file.read_text()
    modules = [module | {"type": module["type"].replace(old, new)} for module in json.loads(file.read_text())]
    file.write_text(json.dumps(modules))
    with pytest.raises(ModelFolderError, match=rf"modules\.json: {words}.*copy or save the folder again") as caught:
        lusifer.load(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"encoder": 3}, {"tower_dtypes": 3}, {"num_soft_tokens": "x"}])
def test_a_value_of_another_kind_is_named(change, copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelFolderError, match=r"config\.json: damaged, no model can be made .*copy or save") as caught:
        lusifer.load(copy)
    assert "\n" not in str(caught.value)
    assert [probe.ok for probe in examine(copy)] == [False]


def test_a_module_folder_that_is_missing_is_named(copy):
    shutil.rmtree(copy / "1_Normalize")
    with pytest.raises(ModelFolderError, match=r"1_Normalize: missing, and .*modules\.json names it; copy or save"):
        lusifer.load(copy)
    assert [probe.ok for probe in examine(copy)] == [False]


def test_bytes_that_are_no_text_are_named(copy):
    (copy / "config.json").write_bytes(b"\xff\xfe\x00{}")
    with pytest.raises(ModelFolderError, match=r"config\.json: damaged"):
        lusifer.load(copy)


DAMAGES = {
    "missing": (lambda t: t.pop("connector.soft_tokens"), "tensors 1 missing .connector.soft_tokens.; copy"),
    "unexpected": (
        lambda t: t.update(extra=torch.ones(1)),
        "tensors 1 unknown .extra.; copy",
    ),
    "shape": (
        lambda t: t.update({"output_projection.0.bias": torch.ones(3)}),
        "tensors 1 of another shape .output_projection.0.bias.; copy",
    ),
    "connector": (
        lambda t: [t.pop(key) for key in list(t) if key.startswith("connector.")],
        "tensors 5 missing .connector.mapping.ff.0.bias, ",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_tensors_that_do_not_fit_are_named(damage, copy):
    change, message = DAMAGES[damage]
    tensors = load_file(copy / WEIGHTS)
    change(tensors)
    save_file(tensors, copy / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelFolderError, match=message):
        lusifer.load(copy)


def test_an_impossible_configuration_is_named(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"pooling": "max"}))
    with pytest.raises(ModelFolderError, match=r"config\.json: pooling='max' is unknown"):
        lusifer.load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    (
        ({"bases": {"llm": {"files": {}}}}, "bases.llm: expected path, and files"),
        ({"bases": {"llm": {"path": "a/b", "files": {}}}}, "bases.llm: expected path, and files"),
        ({"bases": {"tower": {}}}, "bases: expected encoder and llm"),
        ({"bases": {"llm": {"path": "a", "files": {"a": "b"}, "layers": "2"}}}, r"bases.llm.layers='2': must be 1"),
        ({"bases": {"llm": {"path": "a", "files": {"a": "b"}, "layers": 0}}}, r"bases.llm.layers=0: must be 1 or more"),
        ({"bases": ["llm"]}, "bases: expected encoder and llm"),
        ({"adapters": [{"name": "one", "tower": "llm"}]}, "adapters: expected name, tower, r, alpha and targets"),
        ({"adapters": [ABOUT | {"tower": ["llm"]}]}, r"'one' is on \['llm'\], which is no base"),
        ({"adapters": {"name": "one"}}, "adapters=.*: expected a list"),
        ({"adapters": [ABOUT | {"r": "2"}]}, "'one': r='2', alpha=4: expected numbers"),
        ({"adapters": [ABOUT | {"targets": 3}]}, r"'one': targets=3: expected names"),
        ({"space": {"name": "x"}}, "space=.*expected name and identity"),
        ({"matryoshka_dims": [8, "16"]}, "matryoshka_dims=.*expected numbers above 0"),
    ),
)
def test_what_says_nothing_of_a_base_is_refused(change, message, bases_folder, tmp_path):
    delta = tiny_delta(bases_folder, tmp_path / "delta")
    file = delta / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    for read in (lusifer.load, describe):
        with pytest.raises(ModelFolderError, match=message):
            read(delta)


@pytest.mark.parametrize("quick", (True, False))
def test_adapters_that_make_no_numbers_are_told_by_their_folder(quick, bases_folder, tmp_path):
    delta = tiny_delta(bases_folder, tmp_path / "delta")
    tensors = load_file(delta / "model.safetensors")
    name = next(name for name in tensors if adapters.is_adapter(name))
    save_file(tensors | {name: tensors[name] * torch.nan}, delta / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFolderError, match=r"delta: merging .* NaN or infinite weights; copy the folder again"):
        folder.load(delta, "cpu", vectors_only=quick)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config.json", "connector_kwargs", 3),
        ("config.json", "pooling", ["mean"]),
        ("config.json", "max_position_embeddings", "64"),
        ("config.json", "adapters", {"a": 1}),
        ("config_sentence_transformers.json", "prompts", ["query"]),
        ("config_sentence_transformers.json", "default_prompt_name", 3),
        ("config_sentence_transformers.json", "default_prompt_name", "search"),
        ("sentence_bert_config.json", "modality_config", "text"),
        ("sentence_bert_config.json", "transformer_task", []),
        ("config.json", "dtype", 3),
        ("config_sentence_transformers.json", "__version__", 3),
        ("tokenizer_config.json", "model_max_length", "64"),
        ("tokenizer_config.json", "pad_token", 3),
        ("tokenizer_config.json", "split_special_tokens", "no"),
    ],
)
def test_a_setting_of_another_kind_is_named(name, key, value, copy):
    file = copy / name
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    for read in (lusifer.load, describe):
        with pytest.raises(ModelFolderError, match=rf"{name}: damaged, {key}=.*: expected .*copy or save"):
            read(copy)


@pytest.mark.parametrize("outside", ["../other", "/etc", "1_Normalize/../../other", "a\0b"])
def test_what_a_folder_names_outside_of_itself_is_refused(outside, copy):
    modules = json.loads((copy / "modules.json").read_text())
    (copy.parent / "other").mkdir()
    (copy / "modules.json").write_text(json.dumps([modules[0], modules[1] | {"path": outside}]))
    with pytest.raises(ModelFolderError, match="modules.json: names .*, which is outside its folder"):
        lusifer.load(copy)
    (copy / "modules.json").write_text(json.dumps(modules))
    (copy / INDEX).write_text(json.dumps({"weight_map": {"x": outside}}))
    with pytest.raises(ModelFolderError, match=f"{INDEX}: names .*, which is outside its folder"):
        lusifer.load(copy)


@pytest.mark.parametrize(("old", "new"), [("transformer_task", "ttask"), ("method_output_name", "output")])
def test_settings_that_the_library_does_not_take_are_named(model_folder, tmp_path, old, new):
    broken = shutil.copytree(model_folder, tmp_path / "broken")
    file = broken / "sentence_bert_config.json"
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(ModelFolderError, match=r"sentence_bert_config\.json: damaged \("):
        lusifer.load(broken, device="cpu")


def test_special_tokens_that_the_encoder_has_no_rows_for_are_named(model_folder, tmp_path):
    broken = shutil.copytree(model_folder, tmp_path / "broken")
    file = broken / "tokenizer_config.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"<pad>"', '"[pad]"'), encoding="utf-8")
    with pytest.raises(ModelFolderError, match=r"tokenizer_config\.json: damaged, .* token '\[pad\]' has the id"):
        lusifer.load(broken, device="cpu")
