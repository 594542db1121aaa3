"""Random bases of a few kilobytes, made on the spot: the whole way can be walked without a download.

They know nothing; a recipe names them `tiny:encoder` and `tiny:llm`, and the tests build every checked architecture
from them. Sizes: hidden 32 (encoders) or 48 (LLMs), two layers, four heads. The sentences of `tiny.txt` train their
tokenizers.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lusifer.model import backbones

VOCABULARY = 768  # rows of every embedding table; the tokenizers have at most as many tokens
MAX_TOKENS = 256


class Style(NamedTuple):
    """How a family of tokenizers works: its algorithm, its special tokens in the order of their ids, its frame."""

    algorithm: str
    specials: dict[str, str]
    frame: str


_XLM = {
    "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>",
}  # fmt: skip
_T5 = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_BERT = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip
_LLM = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}

STYLES: dict[str, Style] = {
    "xlm-roberta": Style("unigram", _XLM, "<s> $A </s>"),
    "t5": Style("unigram", _T5, "$A </s>"),
    "mt5": Style("unigram", _T5, "$A </s>"),
    "bert": Style("wordpiece", _BERT, "[CLS] $A [SEP]"),
    "electra": Style("wordpiece", _BERT, "[CLS] $A [SEP]"),
    "modernbert": Style("bytes", _BERT, "[CLS] $A [SEP]"),
}
LLM_STYLE = Style("bytes", _LLM, "<s> $A")


def sentences() -> list[str]:
    """Read the sentences of `tiny.txt`: forty-one English ones, then one or two in each of 16 languages."""
    return resources.files("lusifer.model").joinpath("tiny.txt").read_text(encoding="utf-8").splitlines()


def tiny_tokenizer(model_type: str) -> PreTrainedTokenizerFast:
    """Train a tokenizer in the manner of an architecture.

    Args:
        model_type: A key of `STYLES`; anything else gets that of a LLM (byte-level BPE, `<s>` in front).

    Returns:
        A fast tokenizer with at most `VOCABULARY` tokens, padding on the right.
    """
    style = STYLES.get(model_type, LLM_STYLE)
    tokenizer = _untrained(style)
    tokenizer.train_from_iterator(sentences(), _trainer(style))
    specials = [(token, tokenizer.token_to_id(token)) for token in style.specials.values()]
    tokenizer.post_processor = processors.TemplateProcessing(single=style.frame, special_tokens=specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
        **style.specials,
    )


def _untrained(style: Style) -> Tokenizer:
    """An empty tokenizer with the text handling of its algorithm."""
    unknown = style.specials["unk_token"]
    if style.algorithm == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
    elif style.algorithm == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _trainer(style: Style) -> trainers.Trainer:
    """What fills the vocabulary: the special tokens first, so that their ids are their places in the style."""
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "special_tokens": list(style.specials.values()),
        "show_progress": False,
    }
    if style.algorithm == "wordpiece":
        return trainers.WordPieceTrainer(**common)
    if style.algorithm == "unigram":
        return trainers.UnigramTrainer(unk_token=style.specials["unk_token"], **common)
    return trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **common)


def tiny_encoder_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """Describe a tiny encoder: hidden size 32, two layers, four heads.

    Args:
        model_type: An architecture that transformers knows, as in `backbones.ENCODERS`.
        **changes: Fields that should differ.
    """
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if model_type in ("t5", "mt5"):
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    else:
        # Positions of XLM-R start behind its pad id, which takes two.
        positions = MAX_TOKENS + 2 if model_type == "xlm-roberta" else MAX_TOKENS
        # At the usual 0.02 so narrow a model gives every text nearly the same vector.
        sizes |= {"intermediate_size": 64, "max_position_embeddings": positions, "initializer_range": 0.1}
    if model_type == "electra":
        sizes["embedding_size"] = 32
    style = STYLES.get(model_type, LLM_STYLE)
    values = {"vocab_size": VOCABULARY, **sizes, **_special_ids(model_type, style), **changes}
    return AutoConfig.for_model(model_type, **values)


def tiny_llm_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """Describe a tiny LLM (hidden size 48, two layers, four heads, two for keys) or a target in the manner of BERT.

    Args:
        model_type: An architecture that transformers knows, as in `backbones.LLMS`.
        **changes: Fields that should differ.
    """
    if model_type in STYLES:
        return tiny_encoder_config(model_type, **({"hidden_size": 48} | changes))
    sizes = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2 * MAX_TOKENS,
        "initializer_range": 0.1,
    }
    if model_type != "phi3":
        sizes["head_dim"] = 12  # Gemma and Qwen3 do not derive it from the hidden size
    values = {"vocab_size": VOCABULARY, **sizes, **_special_ids(model_type, LLM_STYLE), **changes}
    return AutoConfig.for_model(model_type, **values)


def _special_ids(model_type: str, style: Style) -> dict[str, int | None]:
    """The ids that a configuration repeats from its tokenizer; a LLM without pad token has none."""
    ids = {f"{name}_id": place for place, name in enumerate(style.specials)}
    allowed = {"pad_token_id", "bos_token_id", "eos_token_id"}
    if model_type == "modernbert":
        allowed |= {"cls_token_id", "sep_token_id"}
    return {"pad_token_id": None} | {name: place for name, place in ids.items() if name in allowed}


def tiny_model(config: PreTrainedConfig, tower: str, seed: int = 0) -> PreTrainedModel:
    """Make a model with random float32 weights; the state of torch's generator is left as it was.

    Args:
        config: From `tiny_encoder_config` or `tiny_llm_config`.
        tower: "encoder" or "llm"; a LLM that is a decoder gets its LM head.
        seed: Equal seeds give equal weights.

    Raises:
        UsageError: The architecture is not among those checked for this tower.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if tower == "llm" and backbones.is_decoder(config):
            return AutoModelForCausalLM.from_config(config).eval()
        return backbones.from_config(config, tower).eval()


def make_tiny_base(folder: Path, tower: str, model_type: str, seed: int = 0) -> Path:
    """Write a tiny base as a folder of transformers: configuration, weights and tokenizer.

    Args:
        folder: Where to; made if missing.
        tower: "encoder" or "llm".
        model_type: A key of `backbones.ENCODERS` or `backbones.LLMS`.
        seed: Of the weights.

    Returns:
        `folder`.
    """
    config = tiny_encoder_config(model_type) if tower == "encoder" else tiny_llm_config(model_type)
    tiny_model(config, tower, seed).save_pretrained(folder)
    tiny_tokenizer(model_type).save_pretrained(folder)
    return folder


def make_tiny_bases(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write the bases that recipes call `tiny:encoder` (XLM-R) and `tiny:llm` (Mistral).

    Args:
        folder: Gets the folders `encoder` and `llm`.
        seed: Of the weights; the LLM takes the next one.

    Returns:
        Both folders.
    """
    encoder = make_tiny_base(folder / "encoder", "encoder", "xlm-roberta", seed)
    return encoder, make_tiny_base(folder / "llm", "llm", "mistral", seed + 1)
