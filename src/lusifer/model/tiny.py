"""Random bases of a few hundred kilobytes, made on the spot: the whole way can be walked without a download.

They know nothing. A recipe names them `tiny:encoder` (an XLM-R, hidden 32) and `tiny:llm` (a Mistral, hidden 48); each
has two layers and four heads. The sentences of `tiny.txt` make their tokenizers.
"""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lusifer.model import backbones

VOCABULARY = 1024  # rows of every embedding table; the tokenizers have at most as many tokens
MAX_TOKENS = 256


def sentences() -> list[str]:
    """Read the sentences of `tiny.txt`: 41 English ones, then one or two in each of 19 other languages."""
    return resources.files("lusifer.model").joinpath("tiny.txt").read_text(encoding="utf-8").splitlines()


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


def tiny_tokenizer(style: Style) -> PreTrainedTokenizerFast:
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


def encoder_config() -> PreTrainedConfig:
    """Describe `tiny:encoder`."""
    return AutoConfig.for_model(
        "xlm-roberta",
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_TOKENS + 2,  # positions start behind the pad id, which takes two
        initializer_range=0.1,  # at the usual 0.02 so narrow a model gives every text nearly the same vector
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )


def llm_config() -> PreTrainedConfig:
    """Describe `tiny:llm`; it has no pad token."""
    return AutoConfig.for_model(
        "mistral",
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        max_position_embeddings=2 * MAX_TOKENS,
        initializer_range=0.1,
        pad_token_id=None,
        bos_token_id=1,
        eos_token_id=2,
    )


def tiny_model(config: PreTrainedConfig, tower: str, seed: int = 0) -> PreTrainedModel:
    """Make a model with random float32 weights, the same for equal seeds; torch's generator is left as it was.

    A decoder as "llm" gets its LM head.

    Raises:
        UsageError: The architecture is not among those checked for this tower.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if tower == "llm" and backbones.is_decoder(config):
            return AutoModelForCausalLM.from_config(config).eval()
        return backbones.from_config(config, tower).eval()


def make_tiny_bases(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write the bases `tiny:encoder` and `tiny:llm` into `encoder` and `llm` of a folder, with tokenizers; give both.

    The encoder's weights are of the seed, those of the LLM of the next one.
    """
    encoder, llm = folder / "encoder", folder / "llm"
    tiny_model(encoder_config(), "encoder", seed).save_pretrained(encoder)
    tiny_tokenizer(XLM_R).save_pretrained(encoder)
    tiny_model(llm_config(), "llm", seed + 1).save_pretrained(llm)
    tiny_tokenizer(LLM).save_pretrained(llm)
    return encoder, llm
