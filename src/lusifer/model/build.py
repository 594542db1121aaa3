"""Make one model from two bases: an encoder and an LLM, each a hub name or a folder; read their tokenizers.

The tokenizers are made safe: a special token written in a text is text. Two random bases of a few hundred kilobytes are
made on the spot, so that the whole way can be walked without a download.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Regex, Tokenizer, normalizers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import cached_file

from lusifer.errors import LusiferError, UsageError
from lusifer.io import hub, names, weights
from lusifer.io.files import refuse_pointer
from lusifer.model import backbones
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferModel
from lusifer.prompts import INVISIBLE

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt",
)  # fmt: skip
"""Any of these makes a tokenizer."""
TINY = Path(__file__).with_name("tiny_bases")
"""Configuration and tokenizer of `tiny:encoder` (an XLM-R, hidden 32) and `tiny:llm` (a Mistral, hidden 48), by tower;
`tests/support/tiny_bases.py` has the code that made the tokenizers."""
UNSEEN = "\u00ad\u034f\u061c\u115f\u17b5\u180b\u200b\u200e\u2060\u3164\ufe0f\ufeff\ufff9\U000e0101"
"""Characters of `INVISIBLE` of each sort."""


@dataclass(frozen=True)
class Base:
    """Where a backbone comes from: hub name or folder, `revision` for a hub name; where and in what it is held."""

    path: str
    revision: str | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


def place(device: str | torch.device) -> dict[str, Any]:
    """Keywords by which transformers loads weights straight to a device: by way of the CPU they would be there twice.

    Processes of one machine share its memory, and a 7B LLM in float32 takes 28 GB of it.
    """
    return {} if torch.device(device).type == "cpu" else {"device_map": {"": str(device)}}


def frozen_dtype() -> torch.dtype:
    """bf16 where the machine computes in it at speed (a CUDA device that supports it), else float32."""
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def read_config(base: Base, tower: str) -> PreTrainedConfig:
    """The configuration of a base, refused unless its architecture was checked.

    Raises:
        UsageError: Not found, adapters alone, a pointer of Git LFS, quantised, or not a checked architecture.
    """
    path = names.base(base.path)
    _refuse_pointers(Path(path))
    with hub.asking(_key(base, tower), UsageError):
        config = AutoConfig.from_pretrained(path, revision=hub.commit(path, base.revision))
    refuse_quantised(config, _key(base, tower))
    backbones.backbone(config.model_type, tower)
    return config


def refuse_quantised(config: PreTrainedConfig, key: str) -> None:
    """Refuse a base whose weights are no floating-point numbers: nothing could train them, nor merge adapters in them.

    Raises:
        UsageError: The message begins with `key`, and names the way it was quantised.
    """
    how = getattr(config, "quantization_config", None)
    if how:
        method = how.get("quant_method") if isinstance(how, dict) else getattr(how, "quant_method", None)
        words = f"its weights are quantised ({method or 'by a method that is not named'})"
        raise UsageError(f"{key}: {words}: give the model that it was made from")


def _refuse_pointers(folder: Path) -> None:
    """Refuse a folder with pointers of Git LFS in place of its files."""
    for file in sorted(file for ending in ("json", "safetensors", "model") for file in folder.glob(f"*.{ending}")):
        refuse_pointer(file, UsageError)


def read_backbone(base: Base, tower: str, attn_implementation: str | None = None) -> nn.Module:
    """The weights of a base, without pooler or head.

    Raises:
        UsageError: Not found or refused.
        LusiferError: Weights in the folder are missing or damaged.
    """
    config = read_config(base, tower)
    cls, kwargs = backbones.model_class(config.model_type, tower), backbones.backbone(config.model_type, tower).kwargs
    return _read_weights(cls, base, tower, attn_implementation=attn_implementation, **kwargs)


def _read_weights(cls: Any, base: Base, tower: str, **kwargs: Any) -> nn.Module:
    """A model of class `cls` whose every tensor came from the base; transformers would draw what is missing."""
    path = names.base(base.path)
    try:
        with hub.asking(_key(base, tower), UsageError):
            commit = hub.commit(path, base.revision)
            module, info = cls.from_pretrained(
                path, revision=commit, dtype=base.dtype, output_loading_info=True, **place(base.device), **kwargs
            )
    except SafetensorError as error:
        raise LusiferError(
            f"{base.path}: its weights are truncated or damaged ({error}); fetch the folder anew"
        ) from error
    if info["missing_keys"]:
        some = sorted(info["missing_keys"])
        raise LusiferError(f"{base.path}: {len(some)} tensors are missing, {some[0]} among them; fetch the folder anew")
    return module


def read_lm_head(base: Base, llm: nn.Module | None = None) -> nn.Module:
    """The LM head of a decoder, frozen.

    The whole LLM is read for it only where nothing less will do.

    Args:
        base: The LLM, and what the head is held in.
        llm: Its backbone as loaded: a head that shares the word embeddings takes them from it.

    Raises:
        UsageError: The LLM is an encoder-style embedder and has none.
    """
    config = read_config(base, "llm")
    if not backbones.is_decoder(config):
        raise UsageError(
            f"model.llm.path={base.path!r} ({config.model_type}) has no LM head: reconstruction and completion need "
            "one; use objectives: {distill: 1}"
        )
    with torch.device("meta"):
        full = AutoModelForCausalLM.from_config(config)
    head = full.get_output_embeddings()
    name = next(f"{name}.weight" for name, module in full.named_modules() if module is head)
    words = llm.get_input_embeddings().weight if llm is not None and config.tie_word_embeddings else None
    found = _one_tensor(base, name) if words is None else words
    if isinstance(head, nn.Linear) and head.bias is None and found is not None and found.shape == head.weight.shape:
        head.weight = nn.Parameter(found.to(base.device, base.dtype), requires_grad=False)
        return head
    full = _read_weights(AutoModelForCausalLM, base, "llm")
    return full.get_output_embeddings().requires_grad_(False)


def _one_tensor(base: Base, name: str) -> torch.Tensor | None:
    """A tensor of a base, read alone from its safetensors file; None where it is in none or cannot be read."""
    path = names.base(base.path)
    with hub.asking(_key(base, "llm"), UsageError):
        keywords = {"revision": hub.commit(path, base.revision), "_raise_exceptions_for_missing_entries": False}
        index = cached_file(path, weights.INDEX, **keywords)
        file = weights.WEIGHTS if index is None else json.loads(Path(index).read_text("utf-8"))["weight_map"].get(name)
        found = cached_file(path, file, **keywords) if file else None
    if found is None:
        return None
    try:
        with safe_open(found, framework="pt") as tensors:
            return tensors.get_tensor(name) if name in tensors.keys() else None  # noqa: SIM118
    except SafetensorError:
        return None  # said by who reads the whole


def _key(base: Base, tower: str) -> str:
    """How messages name a base: by its place in a recipe."""
    at = f" at revision {base.revision!r}" if base.revision else ""
    return f"model.{tower}.path={base.path!r}{at}"


def read_tokenizer(path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load a tokenizer, from a folder or hub name, that pads on the right and reads special tokens in a text as text.

    Raises:
        UsageError: There is none at `path`.
    """
    folder = Path(path)
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        files = ", ".join(TOKENIZER_FILES)
        raise UsageError(f"{path}: no tokenizer there ({files}): save the base's tokenizer into the folder")
    with hub.asking(f"{path}: no tokenizer there", UsageError):
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=hub.commit(path, revision), split_special_tokens=True, padding_side="right"
        )
    return read_safely(tokenizer)


def read_safely(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Make sure that no text can hold a special token, whatever is written in it, and that what nobody sees is dropped.

    `split_special_tokens` is enough for most tokenizers, not for those whose vocabulary lists the special tokens
    among its pieces (XLM-R, T5): there "</s>" is one piece again. For these a normaliser puts a space behind the
    first character. Another one drops `INVISIBLE` characters, which would become unknown tokens. The result is kept as
    a plain fast tokenizer, which loads from its file as it is.
    """
    leaking = [token for token in tokenizer.all_special_tokens if leaks(tokenizer, token)]
    if not leaking and drops_invisible(tokenizer):
        return tokenizer
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    spaced = [normalizers.Replace(token, f"{token[0]} {token[1:]}") for token in leaking]
    own = [backend.normalizer] if backend.normalizer is not None else []
    # Spaces last in the sequence: a full-width "＜/s＞" becomes "</s>" in the normaliser before.
    backend.normalizer = normalizers.Sequence([normalizers.Replace(Regex(INVISIBLE), ""), *own, *spaced])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        split_special_tokens=True,
        padding_side="right",
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        **tokenizer.special_tokens_map,
    )


def drops_invisible(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether characters that nobody sees leave no trace in the tokens."""
    plain, *others = tokenizer(["ab", *(f"a{character}b" for character in UNSEEN)], add_special_tokens=False)[
        "input_ids"
    ]
    return all(ids == plain for ids in others)


def leaks(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    """Whether the text `token` becomes the special token of that name."""
    ids = tokenizer(f"a {token} b", add_special_tokens=False)["input_ids"]
    return len(token) > 1 and token != tokenizer.unk_token and tokenizer.convert_tokens_to_ids(token) in ids


def check_tokenizers(encoder: PreTrainedTokenizerBase, llm: PreTrainedTokenizerBase | None = None) -> None:
    """Refuse an encoder's tokenizer without pad token, and an LLM's that ends its targets with no EOS.

    Raises:
        UsageError: Names the tokenizer and the token.
    """
    if encoder.pad_token_id is None:
        raise UsageError("model.encoder: its tokenizer has no pad token; set pad_token in its tokenizer_config.json")
    if llm is not None and llm.eos_token_id is None:
        raise UsageError("model.llm: its tokenizer has no eos token; set eos_token in its tokenizer_config.json")


def join(encoder: nn.Module, llm: nn.Module, seed: int = 0, **settings: Any) -> LusiferModel:
    """A LUSIFER model around two loaded backbones; connector and projection start at random.

    The model is in evaluation mode; backbones keep their dtype, the new parts are float32.

    Args:
        encoder: Module as `read_backbone` gives it.
        llm: Likewise.
        seed: Of the connector and the projection.
        **settings: The other fields of `LusiferConfig`.
    """
    # Left out, the composite's configuration sets both towers back to the default kernel.
    kernel = llm.config._attn_implementation
    config = LusiferConfig(encoder=encoder.config, llm=llm.config, attn_implementation=kernel, **settings)
    with torch.device("meta"):  # the backbones' weights exist already: allocate nothing for them a second time
        model = LusiferModel(config)
    model.encoder, model.llm = encoder, llm
    model.config.encoder, model.config.llm = encoder.config, llm.config
    new_parts = [part for part in (model.connector, model.output_projection) if part is not None]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in new_parts:
            part.to_empty(device="cpu").to(torch.float32).apply(model._init_weights)
    model.connector.mapping.start_from(llm)
    for part in new_parts:
        part.to(llm.device)
    if config.bidirectional:
        llm.config.is_causal = False
    return model.eval()


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

    They know nothing. The encoder's weights are of the seed, those of the LLM of the next one.
    """
    for number, tower in enumerate(("encoder", "llm")):
        tiny_model(AutoConfig.from_pretrained(TINY / tower), tower, seed + number).save_pretrained(folder / tower)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(TINY / tower / file, folder / tower / file)
    return folder / "encoder", folder / "llm"
