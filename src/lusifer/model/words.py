"""Statistics of the encoder's hidden states and the LLM's embeddings of the same words, to initialize a connector.

Both tokenizers give the characters of a token. The hidden state of a token is paired with the mean of the LLM's
embeddings of the tokens that share characters with it. The first special tokens of both are paired, and the last ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from lusifer.errors import UsageError

RIDGE = 1e-2  # relative to the variance of the states, which is 1 when the map is fitted
Span = tuple[int, int]


@dataclass
class Moments:
    """Sums over pairs of hidden states (h,) and embeddings (d,), float64, from which a linear map can be fitted."""

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
        """The mean of the states, (h,)."""
        return self.states / self.count

    @property
    def word_mean(self) -> torch.Tensor:
        """The mean of the embeddings, (d,)."""
        return self.words / self.count

    @property
    def deviation(self) -> torch.Tensor:
        """The standard deviation of the states, (h,)."""
        return self._covariance.diagonal().clamp(min=0).sqrt()

    @property
    def _covariance(self) -> torch.Tensor:
        return self.squares / self.count - torch.outer(self.mean, self.mean)

    def map(self, scale: torch.Tensor) -> torch.Tensor:
        """Fit the ridge regression (h, d) from centered states times `scale` (h,) to centered embeddings."""
        square = scale[:, None] * self._covariance * scale
        cross = scale[:, None] * (self.products / self.count - torch.outer(self.mean, self.word_mean))
        return torch.linalg.solve(square + RIDGE * torch.eye(len(square), dtype=square.dtype), cross)


def refuse_slow(**tokenizers: PreTrainedTokenizerBase) -> None:
    """Refuse slow tokenizers, which do not give the characters of a token; the keywords are the backbones.

    Raises:
        UsageError: A tokenizer is a slow one.
    """
    for backbone, tokenizer in tokenizers.items():
        if not tokenizer.is_fast:
            raise UsageError(
                f"model.connector.start_from_words: the tokenizer of the {backbone} is a slow one and does not give "
                "the positions of tokens in a text: set start_from_words to false"
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
    """Run the encoder on texts and sum its hidden states and the LLM's embeddings of the same characters.

    Args:
        encoder: The encoder.
        llm: The LLM, for its word embeddings.
        tokenizer: The encoder's tokenizer, a fast one.
        llm_tokenizer: The LLM's tokenizer, a fast one.
        texts: Texts in a language of the LLM.
        max_length: The maximum number of tokens of a text.
        batch_size: Texts of one forward pass.

    Raises:
        UsageError: No tokens of the two tokenizers share characters.
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
        raise UsageError("model.connector.start_from_words: the first texts contain no words: set it to false")
    return found


def together(spans: Sequence[Span | str], known: Sequence[Span | str]) -> Iterator[tuple[int, list[int]]]:
    """Pair the tokens of two tokenizers that share characters.

    Args:
        spans: The tokens of one tokenizer in order: start and end character, or "first" or "last" for a special token.
        known: The same of the other tokenizer.

    Yields:
        The index of a token in `spans`, and the indices in `known` that share characters with it.
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
    """The spans of tokens as in `together`, without the space before a word."""
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
