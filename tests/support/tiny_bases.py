"""A tiny random base of every checked architecture; also what made the tokenizers of `lusifer/model/tiny_bases`."""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerFast

from lusifer.model.build import tiny_model

VOCABULARY = 1024  # rows of every embedding table; the tokenizers have at most as many tokens
MAX_TOKENS = 256
SENTENCES = Path(__file__).with_name("tiny.txt")


def sentences() -> list[str]:
    """Read the sentences of `tiny.txt`: 41 English ones, then one or two in each of 19 other languages."""
    return SENTENCES.read_text(encoding="utf-8").splitlines()


class Style(NamedTuple):
    """How a family of tokenizers works: what makes it, its special tokens in the order of their ids, its frame."""

    make: Callable[[list[str]], Tokenizer]
    specials: dict[str, str]
    frame: str


def unigram(specials: list[str]) -> Tokenizer:
    """In the manner of XLM-R: a space is a sign of its own, a piece is as likely as it is frequent."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    counts = pieces(tokenizer, "", VOCABULARY - len(specials))
    total = sum(counts.values())
    weighted = [(piece, math.log(count / total)) for piece, count in counts.items()]
    vocabulary = [(token, 0.0) for token in specials] + weighted
    tokenizer.model = models.Unigram(vocabulary, unk_id=specials.index("<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def byte_level(specials: list[str]) -> Tokenizer:
    """In the manner of GPT: merges of bytes, so that no text has an unknown part."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    return tokenizer


def pieces(tokenizer: Tokenizer, inner: str, room: int) -> dict[str, int]:
    """Count the parts of the words of `tiny.txt`: single signs, then the weightiest longer parts.

    The trainers of `tokenizers` for these two algorithms give another vocabulary on every run, and then two trainings
    from one seed would differ.

    Args:
        tokenizer: Whose normaliser and word splitting to use.
        inner: What marks a part inside a word.
        room: The most parts to keep.

    Returns:
        Part -> how often it occurs, at least 1, in a fixed order.
    """
    counts = Counter({(mark, sign): 1 for mark in {"", inner} for sign in string.printable[:94]})
    for sentence in sentences():
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(sentence)):
            for start in range(len(word)):
                for end in range(start + 1, min(start + 8, len(word)) + 1):
                    counts[inner if start else "", word[start:end]] += 1
    ranked = sorted(counts, key=lambda part: (len(part[1]) > 1, -counts[part] * len(part[1]), part))
    return {mark + sign: counts[mark, sign] for mark, sign in ranked[:room]}


XLM_R = Style(
    unigram,
    {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"},
    "<s> $A </s>",
)
LLM = Style(byte_level, {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}, "<s> $A")


def make_tokenizer(style: Style) -> PreTrainedTokenizerFast:
    """Make a tokenizer of a style, padding on the right; the same one each time, with at most `VOCABULARY` tokens."""
    tokenizer = style.make(list(style.specials.values()))
    specials = [(token, tokenizer.token_to_id(token)) for token in style.specials.values()]
    tokenizer.add_special_tokens(list(style.specials.values()))
    tokenizer.post_processor = processors.TemplateProcessing(single=style.frame, special_tokens=specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
        **style.specials,
    )


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
    "eurobert": Style(byte_level, LLM.specials | {"pad_token": "<pad>", "mask_token": "<mask>"}, "<s> $A </s>"),
    "m2m_100": XLM_R,
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
    return make_tokenizer(STYLES.get(model_type, LLM))


def tiny_encoder_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """Describe a tiny encoder: hidden size 32, two layers, four heads.

    Args:
        model_type: An architecture that transformers knows, as in `backbones.table("encoder")`.
        **changes: Fields that should differ.
    """
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if model_type == "m2m_100":
        sizes = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}
        sizes |= {"max_position_embeddings": MAX_TOKENS, "init_std": 0.1, "encoder_layerdrop": 0.0}
    elif model_type in ("t5", "mt5"):
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
        model_type: An architecture that transformers knows, as in `backbones.table("llm")`.
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


def make_tiny_base(folder: Path, backbone: str, model_type: str, seed: int = 0) -> Path:
    """Write a tiny base as a folder of transformers: configuration, weights and tokenizer.

    Args:
        folder: Where to; made if missing.
        backbone: "encoder" or "llm".
        model_type: A key of `backbones.table("encoder")` or `backbones.table("llm")`.
        seed: Of the weights.

    Returns:
        `folder`.
    """
    config = tiny_encoder_config(model_type) if backbone == "encoder" else tiny_llm_config(model_type)
    tiny_model(config, backbone, seed).save_pretrained(folder)
    tiny_tokenizer(model_type).save_pretrained(folder)
    return folder
