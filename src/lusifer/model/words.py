"""How the encoder's states of words go with the LLM's own embeddings of the same words: where a connector can start.

Both tokenizers say which characters a token stands for. A state belongs to the mean of the LLM's embeddings of the
tokens that share characters with it; the first and the last special token of both belong together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from lusifer.errors import UsageError

RIDGE = 1e-2  # of the states' variance, which is 1 where the map is fitted
Span = tuple[int, int]


@dataclass
class Moments:
    """Sums over states (h) and embeddings (d), float64: enough for a linear map, however many words there are."""

    count: int
    states: torch.Tensor
    """(h,)"""
    words: torch.Tensor
    """(d,)"""
    squares: torch.Tensor
    """(h, h)"""
    products: torch.Tensor
    """(h, d)"""

    @property
    def mean(self) -> torch.Tensor:
        """Of the states, (h,)."""
        return self.states / self.count

    @property
    def word_mean(self) -> torch.Tensor:
        """Of the embeddings, (d,)."""
        return self.words / self.count

    @property
    def deviation(self) -> torch.Tensor:
        """Of the states, (h,)."""
        return self._covariance.diagonal().clamp(min=0).sqrt()

    @property
    def _covariance(self) -> torch.Tensor:
        return self.squares / self.count - torch.outer(self.mean, self.mean)

    def map(self, scale: torch.Tensor) -> torch.Tensor:
        """The ridge map (h, d) from states, less their mean and times `scale` (h,), to embeddings less their mean."""
        square = scale[:, None] * self._covariance * scale
        cross = scale[:, None] * (self.products / self.count - torch.outer(self.mean, self.word_mean))
        return torch.linalg.solve(square + RIDGE * torch.eye(len(square), dtype=square.dtype), cross)


def refuse_slow(**tokenizers: PreTrainedTokenizerBase) -> None:
    """Refuse tokenizers that cannot say where a token stands in a text (UsageError)."""
    for tower, tokenizer in tokenizers.items():
        if not tokenizer.is_fast:
            raise UsageError(
                f"model.connector.start_from_words: the {tower}'s tokenizer cannot say where a token stands in a text "
                "(it is a slow one): set it to false"
            )


@torch.no_grad()
def moments(
    encoder: nn.Module,
    llm: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    llm_tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
    batch_size: int = 32,
) -> Moments:
    """Read texts by the encoder and sum up its states with the LLM's embeddings of the same characters.

    Args:
        encoder: Reads the texts.
        llm: Has the embeddings.
        tokenizer: Of the encoder, a fast one.
        llm_tokenizer: Of the LLM, a fast one.
        texts: In the language of the LLM.
        max_length: Most tokens of a text.
        batch_size: Texts read at once.

    Raises:
        UsageError: No token of either stands for the same characters.
    """
    h, d = encoder.config.hidden_size, llm.config.hidden_size
    wide = {"dtype": torch.float64}
    found = Moments(
        0, torch.zeros(h, **wide), torch.zeros(d, **wide), torch.zeros(h, h, **wide), torch.zeros(h, d, **wide)
    )
    embed, device = llm.get_input_embeddings(), encoder.device
    settings = {"truncation": True, "return_offsets_mapping": True, "return_special_tokens_mask": True}
    settings |= {"split_special_tokens": True, "max_length": max_length}
    for start in range(0, len(texts), batch_size):
        part = list(texts[start : start + batch_size])
        ours = tokenizer(part, padding=True, return_tensors="pt", **settings)
        ids, mask = ours["input_ids"].to(device), ours["attention_mask"].to(device)
        states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float().cpu()
        theirs = llm_tokenizer(part, **settings | {"max_length": 4 * max_length})
        for row, text in enumerate(part):
            count = int(ours["attention_mask"][row].sum())
            spans = _spans(
                ours["offset_mapping"][row][:count].tolist(), ours["special_tokens_mask"][row].tolist(), text
            )
            known = _spans(theirs["offset_mapping"][row], theirs["special_tokens_mask"][row], text)
            words = embed(torch.tensor(theirs["input_ids"][row], device=llm.device)).double().cpu()
            places, targets = [], []
            for place, tokens in together(spans, known):
                places.append(place)
                targets.append(words[tokens].mean(dim=0))
            if places:
                _add(found, states[row, places].double(), torch.stack(targets))
    if not found.count:
        raise UsageError("model.connector.start_from_words: the texts hold no word: set it to false")
    return found


def together(spans: Sequence[Span | str], known: Sequence[Span | str]) -> Iterator[tuple[int, list[int]]]:
    """Which tokens stand for the same characters.

    Args:
        spans: Of one tokenizer, in order: from which character to which, or "first" and "last" for special tokens.
        known: Of the other.

    Yields:
        The place of a token of `spans` with the places in `known` that share characters with it.
    """
    start = 0
    for place, span in enumerate(spans):
        if isinstance(span, str):
            if span in known:
                yield place, [known.index(span)]
            continue
        tokens = []
        for other in range(start, len(known)):
            if isinstance(known[other], str):
                continue
            begins, ends = known[other]
            if begins >= span[1]:
                break
            if ends <= span[0]:
                start = other
            elif begins < ends and span[0] < span[1]:
                tokens.append(other)
        if tokens:
            yield place, tokens


def _spans(offsets: Sequence[Sequence[int]], special: Sequence[int], text: str) -> list[Span | str]:
    """Where tokens stand, without the space before a word; special ones by their side of the text."""
    found: list[Span | str] = []
    for (start, end), is_special in zip(offsets, special, strict=False):  # padding, on the right, has no offsets here
        start, end = int(start), int(end)
        if is_special:
            found.append("last" if any(not isinstance(span, str) for span in found) else "first")
            continue
        while start < end and text[start].isspace():
            start += 1
        found.append((start, end))
    return found


def _add(moments: Moments, states: torch.Tensor, words: torch.Tensor) -> None:
    moments.count += len(states)
    moments.states += states.sum(dim=0)
    moments.words += words.sum(dim=0)
    moments.squares += states.T @ states
    moments.products += states.T @ words
