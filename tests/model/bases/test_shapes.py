"""Encoders as they are published, but small: what sets them apart from the plainest of their kind is kept."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedTokenizerFast

from lusifer.model import build
from lusifer.model.bases import backbones, reading, tokenizer
from lusifer.model.probes import run_probes
from support.tiny_bases import tiny_llm_config

ROPE = {"rope_type": "default", "rope_theta": 160000.0}
SMALL = {"vocab_size": 512, "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 4}
SHAPES = {
    "mmBERT": {
        "model_type": "modernbert", **SMALL, "intermediate_size": 72, "max_position_embeddings": 256,
        "position_embedding_type": "sans_pos", "global_attn_every_n_layers": 3, "local_attention": 8,
        "rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}, "initializer_range": 0.1,
        "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "cls_token_id": 1, "sep_token_id": 1,
    },
    "EuroBERT": {
        "model_type": "eurobert", **SMALL, "intermediate_size": 96, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 250000.0}, "max_position_embeddings": 256,
        "initializer_range": 0.1, "pad_token_id": 509, "bos_token_id": 508, "eos_token_id": 509, "mask_token_id": 510,
    },
    "NLLB": {
        "model_type": "m2m_100", "vocab_size": 512, "d_model": 48, "encoder_layers": 4, "encoder_attention_heads": 4,
        "encoder_ffn_dim": 96, "encoder_layerdrop": 0, "max_position_embeddings": 256, "scale_embedding": True,
        "init_std": 0.1, "pad_token_id": 1,
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


@pytest.fixture(scope="module", params=SHAPES)
def encoder(request, tmp_path_factory):
    """An encoder of random weights, written to a folder and read again."""
    values = dict(SHAPES[request.param])
    folder = tmp_path_factory.mktemp("shape")
    torch.manual_seed(0)
    backbones.from_config(AutoConfig.for_model(values.pop("model_type"), **values), "encoder").save_pretrained(folder)
    return reading.read_backbone(reading.Base(str(folder)), "encoder").eval()


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
