"""What an English embedder says of the English side: a second target beside translation ranking."""

from __future__ import annotations

import logging
import time

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch.nn import functional

from corpus import DICTIONARIES, Row

LOG = logging.getLogger("mini")
NOBODY = -1


class Teacher:
    """Vectors of the English sentences of translation pairs; dictionary entries have none."""

    def __init__(self, rows: list[Row], path: str, longest: int = 48) -> None:
        """Embed each sentence once.

        Args:
            rows: translation pairs.
            path: folder of a sentence-transformers model.
            longest: pieces of the teacher's own tokenizer that are read of a sentence.
        """
        model = SentenceTransformer(path, device="cpu")
        model.max_seq_length = longest
        numbers: dict[str, int] = {}
        self.index = np.asarray(
            [
                NOBODY if row.source in DICTIONARIES else numbers.setdefault(row.english, len(numbers))
                for row in rows
            ]
        )
        texts = sorted(numbers, key=len)  # batches of texts of like length: little padding
        self.vectors = torch.empty(len(texts), model.get_embedding_dimension(), dtype=torch.float16)
        start = time.monotonic()
        for first in range(0, len(texts), 4096):
            part = texts[first : first + 4096]
            made = model.encode(part, batch_size=128, convert_to_tensor=True, show_progress_bar=False)
            self.vectors[[numbers[text] for text in part]] = made.half()
            LOG.info("teacher: %d of %d, %.1f min", first + len(part), len(texts), (time.monotonic() - start) / 60)

    def loss(self, means: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        """One minus the cosine of each mean (pairs, width) to the teacher's vector, over pairs that have one."""
        number = torch.from_numpy(self.index[index])
        known = number != NOBODY
        if not known.any():
            return means.sum() * 0
        wanted = self.vectors[number[known]].float()
        return (1 - functional.cosine_similarity(means[known], wanted, dim=-1)).mean()
