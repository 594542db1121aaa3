"""What an English embedder says of English texts: the target of every phase beside translation ranking."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch.nn import functional

LOG = logging.getLogger("mini")
NOBODY = -1
TEMPERATURE = 0.05
LONGEST = 220
"""Characters that the teacher reads of a text: more would cost more than it teaches."""


def cut(text: str) -> str:
    """The beginning of a text, up to a space."""
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0]


class Teacher:
    """Vectors of English texts, each embedded once, and the embedder's own layers."""

    def __init__(self, texts: Sequence[str], path: str) -> None:
        """Embed.

        Args:
            texts: English texts, already cut.
            path: folder of a sentence-transformers model of BERT's kind.
        """
        self.model = SentenceTransformer(path, device="cpu")
        self.model.max_seq_length = 64
        self.bert = self.model[0].auto_model
        self.numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        self.vectors = torch.empty(len(self.numbers), self.model.get_embedding_dimension(), dtype=torch.float16)
        start, done = time.monotonic(), 0
        # In bfloat16 twice as fast here, and the vectors agree with those of float32 to a cosine of 0.99995.
        self.model.bfloat16()
        for part in _chunks(sorted(self.numbers, key=len), 4096):  # of like length: little padding
            made = self.model.encode(part, batch_size=64, convert_to_tensor=True, show_progress_bar=False)
            self.vectors[[self.numbers[text] for text in part]] = made.half()
            done += len(part)
            LOG.info("teacher: %d of %d, %.1f min", done, len(self.numbers), (time.monotonic() - start) / 60)
        self.model.float()

    def find(self, texts: Sequence[str]) -> np.ndarray:
        """Number of each text, cut; NOBODY for one that was not embedded."""
        return np.asarray([self.numbers.get(cut(text), NOBODY) for text in texts])

    def loss(self, means: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
        """One minus the cosine of each mean (texts, width) to the teacher's vector, over texts that have one."""
        found = torch.from_numpy(numbers)
        known = found != NOBODY
        if not known.any():
            return means.sum() * 0
        return (1 - functional.cosine_similarity(means[known], self.vectors[found[known]].float(), dim=-1)).mean()

    def contrast(
        self, means: torch.Tensor, numbers: np.ndarray, generator: np.random.Generator, others: int = 2048
    ) -> torch.Tensor:
        """Cross-entropy of each mean's own vector against those of `others` texts drawn at random, temperature 0.05."""
        found = torch.from_numpy(numbers)
        known = found != NOBODY
        if not known.any():
            return means.sum() * 0
        drawn = torch.from_numpy(generator.integers(len(self.vectors), size=others))
        unit = functional.normalize(means[known], dim=-1)
        own, wrong = self.vectors[found[known]].float(), self.vectors[drawn].float()
        # A text that was drawn against itself is no wrong answer.
        against = (unit @ wrong.T).masked_fill(found[known].unsqueeze(1) == drawn, float("-inf"))
        scores = torch.cat([(unit * own).sum(dim=1, keepdim=True), against], dim=1) / TEMPERATURE
        return functional.cross_entropy(scores, torch.zeros(len(unit), dtype=torch.long))


def _chunks(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]
