"""Texts as tensors: what the encoder reads, and what of them a teacher may read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class TeacherInputs:
    """Texts as the LLM reads them where it is the teacher: no further than the encoder, which is to learn the target.

    Args:
        tokenizer: Of the encoder.
        llm_tokenizer: Of the LLM.
        max_length: Most tokens that the encoder reads, special ones and a prompt included.
        teacher_length: Most tokens that the teacher reads.
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
        """Give teacher_ids and teacher_attention_mask, (B, T).

        Args:
            texts: Without prompt: the LLM's own vector of a text has none.
            lengths: Tokens that the encoder reads of each.
            prompt: What stands in front of each where the encoder reads it.
        """
        ids = ids_of(self.llm_tokenizer, self._cut(texts, lengths, prompt), self.teacher_length)
        return {"teacher_ids": pad(ids, padding(self.llm_tokenizer)), "teacher_attention_mask": pad(ones(ids), 0)}

    def _cut(self, texts: list[str], lengths: Sequence[int], prompt: str) -> list[str]:
        """The texts as far as the encoder reads them."""
        if not self.tokenizer.is_fast:  # it cannot say where a token stands in the text
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
    """An id for padding; Mistral and Llama have none, and it is masked in any case."""
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(number for number in ids if number is not None)


def ids_of(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int, add_special_tokens: bool = True
) -> list[list[int]]:
    """Ids with the tokenizer's own special tokens around, the final one kept when the text is cut."""
    return tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        add_special_tokens=add_special_tokens,
        split_special_tokens=True,  # "</s>" in a text is text
    )["input_ids"]


def ones(ids: list[list[int]]) -> list[list[int]]:
    """A one for each id."""
    return [[1] * len(row) for row in ids]


def pad(rows: list[list[int]], value: int) -> torch.Tensor:
    """Rows of different lengths as one (B, longest) tensor, filled up on the right."""
    import torch

    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows], dtype=torch.long)
