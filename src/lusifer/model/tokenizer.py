"""The tokenizers of the two bases, made safe: a special token written in a text is text."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lusifer.errors import UsageError
from lusifer.io import hub

FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
"""Any of these makes a tokenizer."""


def read_tokenizer(path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load a tokenizer that pads on the right and reads special tokens in a text as text.

    Args:
        path: Folder or hub name.
        revision: Of a hub name.

    Raises:
        UsageError: There is none at `path`.
    """
    folder = Path(path)
    if folder.is_dir() and not any((folder / name).is_file() for name in FILES):
        raise UsageError(f"{path}: no tokenizer there ({', '.join(FILES)}): save the base's tokenizer into the folder")
    with hub.asking(f"{path}: no tokenizer there", UsageError):
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=hub.commit(path, revision), split_special_tokens=True, padding_side="right"
        )
    return read_specials_as_text(tokenizer)


def read_specials_as_text(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Make sure that no text can hold a special token, whatever is written in it.

    `split_special_tokens` is enough for most tokenizers, not for those whose vocabulary lists the special tokens
    among its pieces (XLM-R, T5): there "</s>" is one piece again. For these a normaliser puts a space behind the
    first character, and the result is kept as a plain fast tokenizer, which loads from its file as it is.

    Args:
        tokenizer: A fast tokenizer with `split_special_tokens=True`.
    """
    leaking = [token for token in tokenizer.all_special_tokens if leaks(tokenizer, token)]
    if not leaking:
        return tokenizer
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    spaced = [normalizers.Replace(token, f"{token[0]} {token[1:]}") for token in leaking]
    # Last in the sequence: a full-width "＜/s＞" becomes "</s>" in the normaliser before.
    own = [backend.normalizer] if backend.normalizer is not None else []
    backend.normalizer = normalizers.Sequence([*own, *spaced])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        split_special_tokens=True,
        padding_side="right",
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        **tokenizer.special_tokens_map,
    )


def leaks(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    """Whether the text `token` becomes the special token of that name."""
    ids = tokenizer(f"a {token} b", add_special_tokens=False)["input_ids"]
    return len(token) > 1 and token != tokenizer.unk_token and tokenizer.convert_tokens_to_ids(token) in ids


def check_tokenizers(encoder: PreTrainedTokenizerBase, llm: PreTrainedTokenizerBase | None = None) -> None:
    """Refuse tokenizers without the special tokens that batches need.

    Args:
        encoder: Needs a pad token.
        llm: Needs EOS, the end of a target; None where no target is predicted.

    Raises:
        UsageError: Names the tokenizer and the token.
    """
    if encoder.pad_token_id is None:
        raise UsageError("model.encoder: its tokenizer has no pad token; set pad_token in its tokenizer_config.json")
    if llm is not None and llm.eos_token_id is None:
        raise UsageError("model.llm: its tokenizer has no eos token; set eos_token in its tokenizer_config.json")
