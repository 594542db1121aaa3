"""Encoders as they are published, but small: what sets them apart from the plainest of their kind is kept.

Keys and values are those of the config.json of jhu-clsp/mmBERT-small, EuroBERT/EuroBERT-2.1B (more heads than heads of
keys), facebook/nllb-200-distilled-600M, facebook/m2m100_418M, FacebookAI/xlm-roberta-base and
intfloat/multilingual-e5-small, sizes and ids aside.
"""

import json

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedTokenizerFast

from lusifer.errors import UsageError
from lusifer.io import bases as known_bases
from lusifer.model import build
from lusifer.model.bases import reading, tokenizer
from lusifer.model.delta import Delta
from lusifer.model.lusifer import LusiferModel
from lusifer.model.probes import run_probes
from support.tiny_bases import tiny_encoder_config, tiny_llm_config

SMALL = {"vocab_size": 512, "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 4}
SHAPES = {
    "mmBERT": {
        "model_type": "modernbert", **SMALL, "intermediate_size": 72, "max_position_embeddings": 256,
        "position_embedding_type": "sans_pos", "global_attn_every_n_layers": 3, "local_attention": 8,
        "global_rope_theta": 160000, "local_rope_theta": 160000, "initializer_range": 0.1, "norm_bias": False,
        "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "cls_token_id": 1, "sep_token_id": 1,
    },
    "EuroBERT": {
        "model_type": "eurobert", **SMALL, "intermediate_size": 96, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "rope_scaling": None, "rope_theta": 250000, "max_position_embeddings": 256, "mask_token": "<|mask|>",
        "auto_map": {"AutoConfig": "configuration_eurobert.EuroBertConfig", "AutoModel": "modeling_eurobert.EuroBert"},
        "initializer_range": 0.1, "pad_token_id": 509, "bos_token_id": 508, "eos_token_id": 509, "mask_token_id": 510,
    },
    "NLLB": {
        "model_type": "m2m_100", "vocab_size": 512, "d_model": 48, "encoder_layers": 4, "encoder_attention_heads": 4,
        "encoder_ffn_dim": 96, "decoder_layers": 1, "decoder_ffn_dim": 96, "decoder_attention_heads": 4,
        "encoder_layerdrop": 0, "decoder_layerdrop": 0, "num_hidden_layers": 4, "max_position_embeddings": 256,
        "scale_embedding": True, "init_std": 0.1, "pad_token_id": 1, "is_encoder_decoder": True,
        "tokenizer_class": "NllbTokenizer",
    },
    "XLM-R": {
        "model_type": "xlm-roberta", **SMALL, "intermediate_size": 96, "max_position_embeddings": 258,
        "type_vocab_size": 1, "layer_norm_eps": 1e-5, "initializer_range": 0.1, "pad_token_id": 1,
    },
    "multilingual-e5-small": {
        "model_type": "bert", **SMALL, "intermediate_size": 96, "max_position_embeddings": 256,
        "type_vocab_size": 2, "initializer_range": 0.1, "pad_token_id": 0,
    },
}  # fmt: skip
SHAPES["M2M-100"] = SHAPES["NLLB"] | {"encoder_layerdrop": 0.05, "tokenizer_class": "M2M100Tokenizer"}
PUBLISHED = {  # what stands in the folder, and where the encoder is in it
    "mmBERT": ("ModernBertForMaskedLM", "model"),
    "EuroBERT": ("EuroBertForMaskedLM", "model"),
    "NLLB": ("M2M100ForConditionalGeneration", "model.encoder"),
    "M2M-100": ("M2M100ForConditionalGeneration", "model.encoder"),
    "XLM-R": ("XLMRobertaForMaskedLM", "roberta"),
    "multilingual-e5-small": ("BertModel", ""),
}


@pytest.fixture(scope="module", params=SHAPES)
def published(request, tmp_path_factory):
    """A folder with a model of random weights as it is published, and the encoder inside that model."""
    name, inside = PUBLISHED[request.param]
    folder = tmp_path_factory.mktemp("shape")
    (folder / "config.json").write_text(json.dumps(SHAPES[request.param]))
    config = AutoConfig.from_pretrained(folder)
    torch.manual_seed(0)
    whole = getattr(transformers, name)(config).eval()
    whole.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(SHAPES[request.param]))
    return folder, whole.get_submodule(inside)


@pytest.fixture(scope="module")
def encoder(published):
    return reading.read_backbone(reading.Base(str(published[0])), "encoder").eval()


def test_the_encoder_is_read_from_the_whole_model(published, encoder):
    kept, (ids, mask) = published[1], texts(encoder, [40, 3, 17])
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, kept.state_dict()[name]), name
    with torch.no_grad():
        found, wanted = (each(input_ids=ids, attention_mask=mask).last_hidden_state for each in (encoder, kept))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_its_first_layers_are_read_from_the_whole_model(published, layers):
    """The last norm, where there is one, is left out of the comparison: it stands behind other layers."""
    cut = reading.read_backbone(reading.Base(str(published[0]), layers=layers), "encoder").eval()
    found, wanted = [], []
    for model, into in ((cut, found), (published[1], wanted)):
        blocks = model.layers if hasattr(model, "layers") else model.encoder.layer
        blocks[layers - 1].register_forward_hook(lambda _, __, out, into=into: into.append(out))
        with torch.no_grad():
            model(**dict(zip(("input_ids", "attention_mask"), texts(cut, [40, 3, 17]), strict=True)))
    assert len(blocks) == 4 and cut.config.num_hidden_layers == layers
    assert sum(parameter.numel() for parameter in cut.parameters()) < sum(p.numel() for p in published[1].parameters())
    first, second = (out[0] if isinstance(out, tuple) else out for out in (found[0], wanted[0]))
    assert torch.equal(first, second)


def test_no_layer_is_left_out_while_it_trains(encoder):
    assert getattr(encoder, "layerdrop", 0) == 0


def test_frequencies_of_positions_are_those_of_the_base(encoder):
    """The defaults of both kinds are others."""
    rope = getattr(encoder.config, "rope_parameters", None) or {}
    if encoder.config.model_type == "modernbert":
        assert {kind: facts["rope_theta"] for kind, facts in rope.items()} == {
            "full_attention": 160_000, "sliding_attention": 160_000,
        }  # fmt: skip
    if encoder.config.model_type == "eurobert":
        assert rope["rope_theta"] == 250_000


def assert_delta_loads(encoder, tmp_path):
    """Its settings in the delta agree with those of the base, which a larger class of transformers has written."""
    llm = tmp_path / "llm"
    build.tiny_model(tiny_llm_config("mistral"), "llm").save_pretrained(llm)
    bases = {"encoder": str(encoder), "llm": str(llm)}
    model = build.join(*(reading.read_backbone(reading.Base(path, layers=2), name) for name, path in bases.items()))
    records = {name: known_bases.record(path, known_bases.fingerprint(path)) for name, path in bases.items()}
    model.delta = Delta({name: record | {"layers": 2} for name, record in records.items()})
    model.save_pretrained(str(tmp_path / "delta"))
    again = LusiferModel.from_pretrained(tmp_path / "delta").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_a_delta_of_it_loads(published, tmp_path):
    assert_delta_loads(published[0], tmp_path)


@pytest.mark.parametrize("kind", ["T5", "MT5"])
def test_a_delta_of_an_encoder_with_a_decoder_loads(kind, tmp_path):
    config = tiny_encoder_config(kind.lower(), is_encoder_decoder=True)
    getattr(transformers, f"{kind}ForConditionalGeneration")(config).save_pretrained(tmp_path / "encoder")
    assert json.loads((tmp_path / "encoder" / "config.json").read_text())["is_encoder_decoder"]
    assert_delta_loads(tmp_path / "encoder", tmp_path)


def texts(encoder, lengths):
    """Random ids and mask, padded on the right; longer than the window of a layer that looks about itself alone."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(8, 500, mask.shape, generator=generator)
    return ids.masked_fill(mask == 0, encoder.config.pad_token_id), mask


def test_the_probes_hold_behind_it(encoder):
    torch.manual_seed(1)
    llm = build.tiny_model(tiny_llm_config("qwen3"), "llm")
    model = build.join(encoder, getattr(llm, "model", llm), num_soft_tokens=1)
    for probe in run_probes(model, *texts(encoder, [40, 3, 17])):
        assert probe.ok, probe


def test_it_reads_both_ways_over_the_whole_text(encoder):
    ids, mask = texts(encoder, [30])
    with torch.no_grad():
        before = encoder(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        last, first = ids.clone(), ids.clone()
        last[0, -1], first[0, 0] = 7, 7
        after = encoder(input_ids=last, attention_mask=mask).last_hidden_state[0]
        assert (after[0] - before[0]).abs().max() > 1e-6
        after = encoder(input_ids=first, attention_mask=mask).last_hidden_state[0]
        assert (after[-1] - before[-1]).abs().max() > 1e-6


def test_a_text_is_the_same_alone_and_among_others(encoder):
    ids, mask = texts(encoder, [40, 3, 17])
    with torch.no_grad():
        together = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        for row, length in enumerate(mask.sum(1).tolist()):
            alone = encoder(input_ids=ids[row : row + 1, :length], attention_mask=mask[row : row + 1, :length])
            assert torch.allclose(together[row, :length], alone.last_hidden_state[0], atol=1e-5)


def test_a_tokenizer_in_the_manner_of_gemma_reads_special_tokens_as_text():
    """Gemma's, which mmBERT has too: merges of signs, bytes for what it does not know, a sign for the space."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    words = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(33, 127)), "▁a", "in"]
    backend = Tokenizer(
        models.BPE(
            {word: place for place, word in enumerate(words)},
            [("▁", "a"), ("i", "n")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    backend.add_special_tokens(specials)
    plain = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        mask_token="<mask>", split_special_tokens=True, padding_side="right",
    )  # fmt: skip
    safe = tokenizer.read_safely(plain)
    ids = safe("b a in <eos> <mask>水")["input_ids"]
    assert (ids[0], ids[-1]) == (2, 1)
    assert not {0, 1, 2, 3, 4} & set(ids[1:-1])
    assert safe.convert_ids_to_tokens(ids)[1:5] == ["b", "▁a", "▁", "in"]
    assert safe("a\u200bb")["input_ids"] == safe("ab")["input_ids"]
    assert safe(["a", "a a a"], padding=True)["attention_mask"][0] == [1, 1, 1, 0, 0]


def test_a_tokenizer_of_nllb_reads_languages_and_special_tokens_as_text(tmp_path):
    """It begins every text by the language that it is set to, English here; texts may be in any."""
    signs = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"aben g_Lt</s>"]
    vocabulary = {sign: place for place, sign in enumerate(dict.fromkeys([*signs, "▁a"]))}
    plain = transformers.NllbTokenizer(vocab=vocabulary, merges=[("▁", "a")])
    plain.save_pretrained(tmp_path)
    safe = tokenizer.read_tokenizer(str(tmp_path))
    first, *ids, last = safe("eng_Latn a</s>\u200b")["input_ids"]
    assert safe.convert_ids_to_tokens([first, last]) == ["eng_Latn", "</s>"]
    assert not {first, last} & set(ids) and "".join(safe.convert_ids_to_tokens(ids)) == "▁eng_Latn▁a</s>"


def test_a_slow_tokenizer_is_refused_and_the_way_out_leads_out(tmp_path):
    """That of M2M-100 is a vocabulary beside a model of sentencepiece."""
    (tmp_path / "config.json").write_text(json.dumps(SHAPES["M2M-100"]))
    (tmp_path / "vocab.json").write_text(json.dumps({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}))
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "M2M100Tokenizer"}))
    with pytest.raises(UsageError, match=r"add an equal tokenizer\.json .*nllb-200"):
        tokenizer.read_tokenizer(str(tmp_path))
    backend = Tokenizer(models.BPE({"<pad>": 0, "</s>": 1, "a": 2}, []))
    backend.save(str(tmp_path / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(facts))
    assert tokenizer.read_tokenizer(str(tmp_path))("a")["input_ids"] == [2]
