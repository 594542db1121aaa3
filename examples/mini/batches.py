"""Tokenised translation pairs and the batches drawn from them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from corpus import Row


@dataclass
class Clock:
    """The end of a training phase: after ``steps`` steps where given, else after ``minutes`` minutes.

    With steps a run can be repeated exactly; with minutes it ends when a machine of any speed has had its time.
    """

    steps: int | None
    minutes: float

    def __post_init__(self) -> None:
        self.step = 0
        self._start = time.monotonic()

    def elapsed(self) -> float:
        """Minutes since the start."""
        return (time.monotonic() - self._start) / 60

    def tick(self) -> float:
        """Count one step and return the share of the phase that was over before it, in [0, 1)."""
        done = self.step / self.steps if self.steps is not None else self.elapsed() / self.minutes
        self.step += 1
        return done


def learning_rate(peak: float, progress: float, warmup: float = 0.03) -> float:
    """Linear warm-up over the share ``warmup`` of a phase, then linear decay to a tenth of ``peak``."""
    return peak * min(1.0, (progress + 0.002) / warmup) * (1.0 - 0.9 * progress)


class Texts:
    """Piece ids of many texts in one flat array; a list of a million lists would not fit in memory well."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, texts: list[str], longest: int) -> None:
        """Tokenise without special pieces; at most ``longest`` pieces of each text are kept."""
        backend: Tokenizer = tokenizer.backend_tokenizer
        parts: list[np.ndarray] = []
        sizes: list[int] = []
        for start in range(0, len(texts), 10_000):
            for encoding in backend.encode_batch_fast(texts[start : start + 10_000], add_special_tokens=False):
                # An empty text would have no mean: it becomes one unknown piece.
                ids = encoding.ids[:longest] or [tokenizer.unk_token_id]
                parts.append(np.asarray(ids, dtype=np.int32))
                sizes.append(len(ids))
        self.flat = np.concatenate(parts)
        self.sizes = np.asarray(sizes)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])

    def bag(self, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Pieces (total,) and offsets (texts,) as torch's embedding_bag takes them."""
        ids = np.concatenate([self.flat[self.starts[i] : self.starts[i] + self.sizes[i]] for i in index])
        offsets = np.concatenate([[0], np.cumsum(self.sizes[index])[:-1]])
        return torch.from_numpy(ids).long(), torch.from_numpy(offsets)

    def padded(self, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """As `pad` gives them."""
        return pad([self.flat[self.starts[i] : self.starts[i] + self.sizes[i]] for i in index])


def pad(texts: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """``<s> text </s>`` padded on the right: ids and mask, both (texts, longest + 2)."""
    width = max(map(len, texts)) + 2
    ids = np.full((len(texts), width), 1, dtype=np.int64)
    mask = np.zeros((len(texts), width), dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, 0] = 0
        ids[row, 1 : len(text) + 1] = text
        ids[row, len(text) + 1] = 2
        mask[row, : len(text) + 2] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


class English:
    """English texts as pieces, and the numbers of the teacher's vectors of them; short ones are drawn less often."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, texts: list[str], teacher: np.ndarray, longest: int) -> None:
        """Tokenise; ``teacher`` is (texts,)."""
        self.texts = Texts(tokenizer, texts, longest)
        self.teacher = teacher
        self._cumulative = np.cumsum(np.where(self.texts.sizes > 5, 1.0, 0.1))

    def draw(self, size: int, generator: np.random.Generator, pools: int = 1) -> Iterator[np.ndarray]:
        """Yield numbers of ``size`` texts for ever; with ``pools`` above one, texts of like length together."""
        while True:
            drawn = np.searchsorted(self._cumulative, generator.random(size * pools) * self._cumulative[-1])
            drawn = np.minimum(drawn, len(self.teacher) - 1)
            batches = np.array_split(drawn[np.argsort(self.texts.sizes[drawn], kind="stable")], pools)
            for position in generator.permutation(pools):
                yield batches[position]


class Pairs:
    """Translation pairs as pieces, which of them are the same text on one side, and the teacher's vectors."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, rows: list[Row], teacher: np.ndarray, longest: int) -> None:
        """Tokenise both sides of ``rows``; ``teacher`` is (rows,), as `Teacher.find` gives it."""
        self.teacher = teacher
        self.english = Texts(tokenizer, [row.english for row in rows], longest)
        self.other = Texts(tokenizer, [row.other for row in rows], longest)
        self._english_id = _same([row.english for row in rows])
        self._other_id = _same([row.other for row in rows])

    def conflicts(self, index: np.ndarray) -> torch.Tensor:
        """(pairs, pairs), true where two different pairs share a side and so are no wrong answers."""
        english, other = self._english_id[index], self._other_id[index]
        same = (english[:, None] == english) | (other[:, None] == other)
        np.fill_diagonal(same, False)
        return torch.from_numpy(same)

    def draw(self, weights: np.ndarray, size: int, seed: int, pools: int = 1) -> Iterator[np.ndarray]:
        """Yield row numbers of batches of ``size`` pairs for ever, drawn by ``weights``.

        With ``pools`` above one, that many batches are drawn together and cut by length: little padding, and
        the other pairs of a batch are wrong answers of like length.
        """
        generator = np.random.default_rng(seed)
        cumulative = np.cumsum(weights)
        while True:
            drawn = np.searchsorted(cumulative, generator.random(size * pools) * cumulative[-1])
            drawn = np.unique(np.minimum(drawn, len(weights) - 1))
            if pools > 1:
                drawn = drawn[np.argsort(self.english.sizes[drawn] + self.other.sizes[drawn], kind="stable")]
            batches = np.array_split(drawn, pools)
            for position in generator.permutation(pools):
                yield batches[position]


def _same(texts: list[str]) -> np.ndarray:
    """A number for each text, equal where the texts are equal but for case, shape (texts,)."""
    numbers: dict[str, int] = {}
    return np.asarray([numbers.setdefault(text.lower(), len(numbers)) for text in texts])


def ranking_loss(left: torch.Tensor, right: torch.Tensor, conflicts: torch.Tensor, temperature: float) -> torch.Tensor:
    """Translation ranking: row i of ``left`` must find row i of ``right`` among all rows, and the other way.

    ``left`` and ``right`` are (pairs, width), not normalised; see Pairs.conflicts for the third argument.
    """
    left = torch.nn.functional.normalize(left, dim=-1)
    right = torch.nn.functional.normalize(right, dim=-1)
    scores = (left @ right.T / temperature).masked_fill(conflicts, float("-inf"))
    target = torch.arange(len(left))
    forth = torch.nn.functional.cross_entropy(scores, target)
    return (forth + torch.nn.functional.cross_entropy(scores.T, target)) / 2
