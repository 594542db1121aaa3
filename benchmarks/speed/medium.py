"""The medium random model and its texts: shapes of XLM-R and Mistral, small enough for a CPU.

Encoder: 6 layers of 384 (feed-forward 1,536, 6 heads). LLM: 8 layers of 512 (feed-forward 1,408, 8 heads, 4 key-value
heads). 32,000 words each, one soft token, adapters of rank 16 on both backbones. Weights are random: speed does not
depend on them, and equal seeds give every peer the same ones.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    MistralConfig,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
)

from lusifer.embedder import folder
from lusifer.embedder.assemble import assemble
from lusifer.model import adapters, build
from lusifer.model.lusifer import LusiferModel

VOCABULARY, LONGEST, RANK = 32_000, 256, 16
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ENCODER = {
    "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536,
    "vocab_size": VOCABULARY, "max_position_embeddings": 514, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
LLM = {
    "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
    "intermediate_size": 1408, "vocab_size": VOCABULARY, "max_position_embeddings": 1024, "sliding_window": None,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip


def words() -> list[str]:
    """As many made-up words as the vocabulary has room for, each a token."""
    chance, found = random.Random(0), {}
    while len(found) < VOCABULARY - len(SPECIALS):
        found["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9)))] = None
    return list(found)


def tokenizer() -> PreTrainedTokenizerFast:
    """Unigram with `<s> text </s>`, in the manner of XLM-R."""
    pieces = [(token, 0.0) for token in SPECIALS] + [("▁" + word, -math.log(VOCABULARY)) for word in words()]
    made = Tokenizer(models.Unigram(pieces, unk_id=SPECIALS.index("<unk>")))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.add_special_tokens(list(SPECIALS))
    frame = [(token, SPECIALS.index(token)) for token in ("<s>", "</s>")]
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=frame)
    names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=LONGEST, padding_side="right",
        model_input_names=["input_ids", "attention_mask"], **dict(zip(names, SPECIALS, strict=True)),
    )  # fmt: skip


def texts(count: int = 256, seed: int = 0) -> list[str]:
    """Texts of log-normal length: median 40 tokens, sigma 0.9, cut to 5..256, special tokens included."""
    chance, known = random.Random(seed), words()
    lengths = [min(max(round(chance.lognormvariate(math.log(40), 0.9)), 5), LONGEST) for _ in range(count)]
    return [" ".join(chance.choices(known, k=length - 2)) for length in lengths]


def save(target: Path) -> None:
    """Write the bases, the adapters and the merged model folder to `target`."""
    torch.manual_seed(0)
    encoder = AutoModel.from_config(XLMRobertaConfig(**ENCODER), add_pooling_layer=False)
    llm = AutoModelForCausalLM.from_config(MistralConfig(**LLM))
    for name, module in (("encoder", encoder), ("llm", llm)):
        module.save_pretrained(target / name)
        tokenizer().save_pretrained(target / name)
    model = adapted(target, trained=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # as after training: 0 would hide a peer that leaves the adapters out
            parameter.data.normal_(std=0.02)
    save_file(adapters.trainable_state_dict(model), target / "adapters.safetensors")
    folder.save(assemble(model, tokenizer(), max_seq_length=LONGEST), target / "model")


def adapted(
    target: Path,
    *,
    encoder: nn.Module | None = None,
    body: nn.Module | None = None,
    trained: bool = True,
    llm: bool = True,
    dropout: float = 0.0,
) -> LusiferModel:
    """The model from its bases, with adapters on the encoder and, if `llm`, on the LLM.

    Args:
        target: where `save` wrote.
        encoder: the base if a peer has loaded it already in its own way; None reads it.
        body: likewise the LLM without its LM head.
        trained: whether adapters, connector and projection are the saved ones; else as at the start of training.
        llm: whether the LLM has adapters.
        dropout: of the adapters.
    """
    parts = {"encoder": encoder, "llm": body}
    for backbone, part in parts.items():
        if part is None:
            parts[backbone] = build.read_backbone(build.Base(str(target / backbone)), backbone)
    model = build.join(**parts, num_soft_tokens=1)
    adapters.freeze(model, {"connector": True, "output_projection": True})
    for backbone in adapters.BACKBONES[: 1 + llm]:
        adapters.attach(model, backbone, RANK, 2 * RANK, dropout)
    if trained:
        kept = load_file(target / "adapters.safetensors")
        adapters.load_trainable_state_dict(
            model, {name: value for name, value in kept.items() if llm or not name.startswith("llm.")}
        )
    return model


def flops(lengths: Sequence[int], soft: int = 1) -> tuple[float, float]:
    """Floating-point operations of the forward pass over texts of these lengths, without padding or word embeddings.

    Args:
        lengths: tokens of each text.
        soft: soft tokens behind it.

    Returns:
        Those of encoder, connector and LLM; those of the output projection.
    """
    h, ff, d, wide = 384, 1536, 512, 1408
    total = 0.0
    for n in lengths:
        m = n + soft
        total += 6 * (2 * n * (4 * h * h + 2 * h * ff) + 4 * n * n * h)
        total += 2 * n * (h * h + h * d)
        total += 8 * (2 * m * (3 * d * d + 3 * d * wide) + 4 * m * m * d)
    return total, len(lengths) * 4.0 * d * d
