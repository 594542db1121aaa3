"""GGUF: small files made with the package's own writer, read as any base; packages that join one from parts."""

import hashlib
import shutil
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from lusifer.errors import MissingExtraError, UsageError
from lusifer.io import bases, names
from lusifer.model import build
from lusifer.model.bases import gguf as bases_gguf
from lusifer.model.probes import run_probes

WORDS = ["<unk>", "</s>", "<s>", *map(chr, range(33, 127)), "Ġ", "Ġa", "in", "Ġin"]
MERGES = ["Ġ a", "i n", "Ġ in"]
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
NAMES |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
NAMES |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
OUTSIDE |= {"lm_head.weight": "output.weight"}
Q8 = gguf.GGMLQuantizationType.Q8_0


def stored_name(name):
    """A tensor's name in the file."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    number, _, rest = name.removeprefix("model.layers.").partition(".")
    part, _, kind = rest.rpartition(".")
    return f"blk.{number}.{NAMES[part]}.{kind}"


def write(file, packed=False, tied=False):
    """Write a Qwen2 of two layers; give the model whose weights it has."""
    config = Qwen2Config(
        vocab_size=len(WORDS), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=tied, rms_norm_eps=1e-5,
        bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_name("small")
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(WORDS) - 3))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if packed and values.ndim == 2:
            few = gguf.quants.quantize(values, Q8)
            parameter.data = torch.from_numpy(gguf.quants.dequantize(few, Q8))
            writer.add_tensor(stored_name(name), few, raw_dtype=Q8)
        else:
            writer.add_tensor(stored_name(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "8 bits"])
def small(request, tmp_path_factory):
    file = tmp_path_factory.mktemp("gguf") / "small.gguf"
    return file, write(file, packed=request.param)


def test_configuration_weights_and_head_are_those_that_were_written(small):
    file, model = small
    base = build.Base(str(file))
    config = build.read_config(base, "llm")
    assert (config.model_type, config.num_hidden_layers, config.vocab_size) == ("qwen2", 2, len(WORDS))
    llm = build.read_backbone(base, "llm")
    for name, parameter in llm.named_parameters():
        assert torch.equal(parameter, model.get_parameter(f"model.{name}")), name
    assert torch.equal(build.read_lm_head(base, llm).weight, model.lm_head.weight)
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        assert torch.allclose(llm.eval()(ids).last_hidden_state, model.model(ids).last_hidden_state, atol=1e-6)


def test_it_is_no_quantised_model_once_it_is_read(small, tmp_path):
    llm = build.read_backbone(build.Base(str(small[0]), dtype=torch.bfloat16), "llm")
    assert {parameter.dtype for parameter in llm.parameters()} == {torch.bfloat16}
    assert {type(part) for part in llm.modules() if isinstance(part, torch.nn.Linear)} == {torch.nn.Linear}
    llm.save_pretrained(tmp_path)
    again = build.read_backbone(build.Base(str(tmp_path), dtype=torch.bfloat16), "llm")
    assert all(torch.equal(p, again.get_parameter(name)) for name, p in llm.named_parameters())


def test_a_head_that_shares_the_words_is_the_words(tmp_path):
    model = write(tmp_path / "tied.gguf", tied=True)
    llm = build.read_backbone(build.Base(str(tmp_path / "tied.gguf")), "llm")
    assert llm.config.tie_word_embeddings
    head = build.read_lm_head(build.Base(str(tmp_path / "tied.gguf")), llm)
    assert torch.equal(head.weight, model.model.embed_tokens.weight)


def test_the_first_layers_of_it(small):
    file, model = small
    llm = build.read_backbone(build.Base(str(file), layers=1), "llm")
    assert len(llm.layers) == llm.config.num_hidden_layers == len(llm.config.layer_types) == 1
    assert torch.equal(llm.norm.weight, model.model.norm.weight)
    with pytest.raises(UsageError, match=r"model\.llm\.layers=3: .*small\.gguf has 2 layers"):
        build.read_config(build.Base(str(file), layers=3), "llm")


def test_its_tokenizer_comes_with_it(small):
    tokenizer = build.read_tokenizer(str(small[0]))
    assert tokenizer.tokenize("a in b") == ["a", "Ġin", "Ġ", "b"]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.padding_side) == ("<s>", "</s>", "right")
    assert tokenizer.eos_token_id not in tokenizer("a </s> b")["input_ids"]


def test_its_tokenizer_is_read_once_and_each_caller_has_its_own(small, monkeypatch):
    first = build.read_tokenizer(str(small[0]))
    first.padding_side = "left"
    monkeypatch.setattr("lusifer.model.bases.gguf.read_tokenizer", None)
    second = build.read_tokenizer(str(small[0]))
    assert second.padding_side == "right" and second.get_vocab() == first.get_vocab()
    assert second("The river runs.").input_ids == first("The river runs.").input_ids


def test_a_process_goes_twice_through_the_file(tmp_path, monkeypatch):
    """Once for the configuration, once for the weights: with a large vocabulary each takes ten seconds."""
    write(tmp_path / "tied.gguf", tied=True)
    read, base = [], build.Base(str(tmp_path / "tied.gguf"))

    class Counted(gguf.GGUFReader):
        def __init__(self, *args, **kwargs):
            read.append(args)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    build.read_tokenizer(base.path)
    assert len(read) == 1
    for _ in range(2):
        build.read_config(base, "llm")
        build.read_tokenizer(base.path)
    build.read_lm_head(base, build.read_backbone(base, "llm"))
    assert len(read) == 2
    plain = bases_gguf.read_tokenizer(Path(base.path))
    monkeypatch.setattr(bases_gguf, "_typed", lambda *args: {})
    found_out = bases_gguf.read_tokenizer(Path(base.path))  # the kind, by transformers
    assert len(read) == 3 and type(plain) is type(found_out) and plain.init_kwargs == found_out.init_kwargs
    assert plain.backend_tokenizer.to_str() == found_out.backend_tokenizer.to_str()


def test_the_probes_pass_behind_an_encoder(small, encoder_folder, batch):
    encoder = build.read_backbone(build.Base(str(encoder_folder)), "encoder")
    model = build.join(encoder, build.read_backbone(build.Base(str(small[0])), "llm"))
    for probe in run_probes(model, *batch([7, 3, 5])):
        assert probe.ok, probe


def test_it_is_known_by_its_digest(small):
    digest = hashlib.sha256(small[0].read_bytes()).hexdigest()
    assert bases.fingerprint(str(small[0])) == {"small.gguf": digest}


@pytest.mark.parametrize("size", [4, 10, 100, 900, 3000])
def test_a_truncated_file_is_refused_by_name(size, small, tmp_path):
    (tmp_path / "short.gguf").write_bytes(small[0].read_bytes()[:size])
    with pytest.raises(UsageError, match=r"short\.gguf: cannot be read as GGUF \(.*\): fetch it again") as caught:
        build.read_config(build.Base(str(tmp_path / "short.gguf")), "llm")
    assert "\n" not in str(caught.value)


def test_weights_that_end_early_are_refused(small, tmp_path):
    (tmp_path / "short.gguf").write_bytes(small[0].read_bytes()[:-20_000])
    with pytest.raises(UsageError, match=r"short\.gguf: cannot be read as GGUF"):
        build.read_backbone(build.Base(str(tmp_path / "short.gguf")), "llm")


def test_other_kinds_of_models_are_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "mystery")
    writer.add_name("x")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UsageError, match=r"other\.gguf: cannot be read as GGUF \(.*mystery.*not supported"):
        build.read_config(build.Base(str(tmp_path / "other.gguf")), "llm")


def test_without_the_package_the_install_line_is_said(small, tmp_path, monkeypatch):
    fresh = shutil.copy(small[0], tmp_path / "fresh.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"this needs the package gguf: pip install 'lusifer\[gguf\]'"):
        build.read_tokenizer(str(fresh))


def test_a_file_in_parts_is_joined_once_and_no_code_of_its_packages_runs(small, tmp_path, monkeypatch):
    data = small[0].read_bytes()
    for name, part in (("parted_gguf_model", 0), ("parted_gguf_model_part1", 1)):
        package = tmp_path / "site" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise AssertionError('imported')")
        (package / f"small.gguf.part0{part}").write_bytes(data[5000 * part : None if part else 5000])
        records = tmp_path / "site" / f"{name}-1.0.dist-info"
        records.mkdir()
        (records / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (records / "RECORD").write_text(f"{name}/__init__.py,,\n")
    sums = tmp_path / "site" / "parted_gguf_model" / "SHA256SUMS"
    sums.write_text(f"{hashlib.sha256(data).hexdigest()}  small.gguf\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    joined = tmp_path / ".cache" / "parted_gguf_model" / "small.gguf"
    for _ in range(2):
        assert names.base("package:parted_gguf_model") == str(joined)
    assert joined.read_bytes() == data
    assert build.read_config(build.Base("package:parted_gguf_model"), "llm").model_type == "qwen2"
    joined.write_bytes(b"GGUF other")
    with pytest.raises(
        UsageError, match=r"parted_gguf_model: its parts cannot be joined \(.*small\.gguf: no match with SHA256SUMS"
    ):
        names.base("package:parted_gguf_model")
    joined.unlink()
    (tmp_path / "site" / "parted_gguf_model_part1" / "small.gguf.part01").unlink()
    with pytest.raises(UsageError, match=r"cannot be joined \(small\.gguf\.part00: no match with SHA256SUMS"):
        names.base("package:parted_gguf_model")
    assert not joined.exists()
