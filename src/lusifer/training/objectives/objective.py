"""What an alignment objective says of itself: rows, texts, loss, what it needs of the LLM, and its words.

A new objective is a subclass in a file of its own and one call of `lusifer.training.objectives.register`.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch

    from lusifer.model.alignment import LusiferForAlignment

Role = Literal["reconstruct", "passage_and_query", "query_to_passage"]
"""How an alignment stage uses the rows of a source: plain texts, pairs both ways, pairs one way."""
PAIRED_ROLES: tuple[Role, ...] = ("passage_and_query", "query_to_passage")


class Objective(ABC):
    """One way to align the encoder with the LLM. All rows of a step have one objective; steps are drawn by weight.

    Attributes:
        name: Its key in a recipe's `objectives`.
        needs_head: It predicts tokens by the LLM's LM head: batches get target_ids, target_attention_mask and labels.
        needs_embedder: It compares with the LLM's own vectors: batches get `teacher` (B, d), and the LLM must be an
            embedder.
        trains_vector: Its loss reads the model's vector, so it reaches the output projection.
        needs_pairs: It has no rows without a source of pairs.
        options: Keys of an alignment stage that mean nothing without this objective.
    """

    name: str
    needs_head = False
    needs_embedder = False
    trains_vector = False
    needs_pairs = False
    options: tuple[str, ...] = ()

    @property
    def stream(self) -> int:
        """The number of its stream of random row orders: no other objective draws from it."""
        return zlib.crc32(self.name.encode())

    def reads(self, roles: Sequence[Role]) -> list[bool]:
        """Say which of a stage's sources it takes rows from, by their roles: all, or all pairs with `needs_pairs`."""
        return [role in PAIRED_ROLES or not self.needs_pairs for role in roles]

    @abstractmethod
    def texts(self, row: Mapping[str, Any], role: Role, generator: np.random.Generator) -> tuple[str, str | None]:
        """Choose what the encoder reads and what the LLM should predict.

        Args:
            row: Column `text` where the role is reconstruct, else `query` and the list `positive`.
            role: Of the row's source.
            generator: Of this example; nothing else may be random.

        Returns:
            The source text and the target text, None where the objective has no target.
        """

    def tensors(self, examples: Sequence[Mapping[str, Any]], tokenize: Callable[..., Any]) -> dict[str, torch.Tensor]:
        """Give further tensors of a batch, beside those that `needs_head` and `needs_embedder` bring.

        Args:
            examples: Of one batch, as `AlignmentExamples` gives them.
            tokenize: The collator's: texts and keywords -> ids of the LLM, one list a text.
        """
        return {}

    @abstractmethod
    def loss(self, network: LusiferForAlignment, batch: dict[str, Any], stage: Any) -> torch.Tensor:
        """Compute the loss (a scalar) of a batch.

        Args:
            network: The model with the LLM's LM head, if an objective of the stage needs one.
            batch: input_ids and attention_mask (B, L) of the encoder, the tensors named above, and
                `num_items_in_batch`: labels in all micro-batches of the step, None without labels.
            stage: The `AlignmentStage` of the recipe, for its options.
        """

    def keeps_drawn_order(self, stage: Any) -> bool:
        """Whether the rows of a step may not be sorted by length, because the loss compares those of a micro-batch."""
        return False

    def words(self, stage: Any) -> dict[str, str]:
        """Describe its settings in a stage, for the model card: name of the setting -> words."""
        return {}


def pair_texts(row: Mapping[str, Any], generator: np.random.Generator) -> tuple[dict[str, str], float]:
    """Give the query `q` and one drawn positive `p` of a row of pairs, and a number drawn from 0 to 1."""
    texts = {"q": row["query"], "p": row["positive"][int(generator.integers(len(row["positive"])))]}
    return texts, generator.random()
