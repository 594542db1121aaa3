"""A tiny random base of every checked architecture, beside the two that the package makes (`lusifer.model.tiny`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerFast

from lusifer.model import tiny
from lusifer.model.tiny import LLM, MAX_TOKENS, VOCABULARY, XLM_R, Style, byte_level, pieces, tiny_model, unigram


def wordpiece(specials: list[str]) -> Tokenizer:
    """In the manner of BERT: lower case, the longest known piece first, `##` inside a word."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokens = [*specials, *pieces(tokenizer, "##", VOCABULARY - len(specials))]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


_T5 = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_BERT = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip
_QWEN = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}

STYLES: dict[str, Style] = {
    "xlm-roberta": XLM_R,
    "t5": Style(unigram, _T5, "$A </s>"),
    "mt5": Style(unigram, _T5, "$A </s>"),
    "bert": Style(wordpiece, _BERT, "[CLS] $A [SEP]"),
    "electra": Style(wordpiece, _BERT, "[CLS] $A [SEP]"),
    "modernbert": Style(byte_level, _BERT, "[CLS] $A [SEP]"),
    "qwen2": Style(byte_level, _QWEN, "$A"),
    "qwen3": Style(byte_level, _QWEN, "$A"),
}


def tiny_tokenizer(model_type: str) -> PreTrainedTokenizerFast:
    """A tokenizer in the manner of an architecture; those that are not in `STYLES` get that of a LLM."""
    return tiny.tiny_tokenizer(STYLES.get(model_type, LLM))


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
    style = STYLES.get(model_type, LLM)
    values = {"vocab_size": VOCABULARY, **sizes, **_special_ids(model_type, style), **changes}
    return AutoConfig.for_model(model_type, **values)


def tiny_llm_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """Describe a tiny LLM (hidden size 48, two layers, four heads, two for keys) or a target in the manner of BERT.

    Args:
        model_type: An architecture that transformers knows, as in `backbones.LLMS`.
        **changes: Fields that should differ.
    """
    if model_type in ("bert", "electra", "modernbert", "xlm-roberta"):
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
    values = {
        "vocab_size": VOCABULARY,
        **sizes,
        **_special_ids(model_type, STYLES.get(model_type, LLM)),
        **changes,
    }
    return AutoConfig.for_model(model_type, **values)


def _special_ids(model_type: str, style: Style) -> dict[str, int | None]:
    """The ids that a configuration repeats from its tokenizer; a LLM without pad token has none."""
    ids = {f"{name}_id": place for place, name in enumerate(style.specials)}
    allowed = {"pad_token_id", "bos_token_id", "eos_token_id"}
    if model_type == "modernbert":
        allowed |= {"cls_token_id", "sep_token_id"}
    return dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id")) | {
        name: place for name, place in ids.items() if name in allowed
    }


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
