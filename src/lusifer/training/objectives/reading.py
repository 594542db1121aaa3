"""Tokenize and pad texts for the encoder, the LLM and the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class TeacherInputs:
    """Tokenizes texts for the LLM as the teacher, truncated to the part that the encoder reads.

    Args:
        tokenizer: The encoder's tokenizer.
        llm_tokenizer: The LLM's tokenizer.
        max_length: The maximum number of the encoder's tokens, special tokens and a prompt included.
        teacher_length: The maximum number of the teacher's tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        llm_tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        teacher_length: int,
    ) -> None:
        self.tokenizer, self.llm_tokenizer = tokenizer, llm_tokenizer
        self.max_length, self.teacher_length = max_length, teacher_length

    def __call__(self, texts: list[str], lengths: Sequence[int], prompt: str = "") -> dict[str, torch.Tensor]:
        """Make teacher_ids and teacher_attention_mask (B, T).

        Args:
            texts: Texts without a prompt: the LLM's own vector of a text has none.
            lengths: The number of tokens of each text that the encoder reads.
            prompt: The prefix of each text for the encoder.
        """
        ids = ids_of(self.llm_tokenizer, self._cut(texts, lengths, prompt), self.teacher_length)
        return {"teacher_ids": pad(ids, padding(self.llm_tokenizer)), "teacher_attention_mask": pad(ones(ids), 0)}

    def _cut(self, texts: list[str], lengths: Sequence[int], prompt: str) -> list[str]:
        """Truncate texts to the part that the encoder reads."""
        if not self.tokenizer.is_fast:  # a slow tokenizer does not give the place of a token in the text
            return texts
        full = [place for place, length in enumerate(lengths) if length >= self.max_length]
        if not full:
            return texts
        read = self.tokenizer(
            [prompt + texts[place] for place in full],
            truncation=True,
            max_length=self.max_length,
            split_special_tokens=True,
            return_offsets_mapping=True,
        )["offset_mapping"]
        ends = (max(0, max(end for _, end in offsets) - len(prompt)) for offsets in read)
        cut = dict(zip(full, ends, strict=True))
        return [text[: cut.get(place)] for place, text in enumerate(texts)]


def padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id for padding; for Mistral and Llama, which have none, another id, since padding is masked."""
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(number for number in ids if number is not None)


def ids_of(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int, add_special_tokens: bool = True
) -> list[list[int]]:
    """Tokenize texts. A truncated text keeps its final special token.

    Args:
        tokenizer: The tokenizer.
        texts: n texts.
        max_length: The maximum number of tokens, special tokens included.
        add_special_tokens: Whether to add the tokenizer's special tokens.

    Returns:
        n lists of ids.
    """
    return tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        add_special_tokens=add_special_tokens,
        split_special_tokens=True,  # "</s>" in a text is text
    )["input_ids"]


def ones(ids: list[list[int]]) -> list[list[int]]:
    """Make the attention mask of rows without padding: a 1 for each id."""
    return [[1] * len(row) for row in ids]


def pad(rows: list[list[int]], value: int) -> torch.Tensor:
    """Pad rows of different lengths on the right with `value`: a tensor (B, longest), int64."""
    import torch

    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows], dtype=torch.long)
