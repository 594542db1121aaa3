"""The base class of alignment objectives: their rows, their texts, their loss, and what they need of the LLM.

To add an objective, write a subclass in its own file and call `lusifer.training.objectives.register`.
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
"""How an alignment stage uses the rows of a source: plain texts, pairs in both directions, pairs in one direction."""
PAIRED_ROLES: tuple[Role, ...] = ("passage_and_query", "query_to_passage")


class Objective(ABC):
    """An objective that aligns the encoder with the LLM. All rows of a step have one objective, drawn by weight.

    Attributes:
        name: Its key in a recipe's `objectives`.
        needs_head: Whether it predicts tokens with the LM head. Its batches get target_ids, target_attention_mask and
            labels.
        needs_embedder: Whether it compares with the LLM's own vectors. Its batches get `teacher` (B, d), and the LLM
            must be an embedder.
        trains_vector: Whether its loss depends on the model's vector, so that it can train the output projection.
        needs_pairs: Whether it needs a source of pairs.
        options: Keys of an alignment stage that have no effect without this objective.
    """

    name: str
    needs_head = False
    needs_embedder = False
    trains_vector = False
    needs_pairs = False
    options: tuple[str, ...] = ()

    @property
    def stream(self) -> int:
        """The seed of its random row orders, different for each objective."""
        return zlib.crc32(self.name.encode())

    def reads(self, roles: Sequence[Role]) -> list[bool]:
        """Return for each source of a stage, given by its role, whether the objective takes rows from it.

        The default is every source, or every source of pairs with `needs_pairs`.
        """
        return [role in PAIRED_ROLES or not self.needs_pairs for role in roles]

    @abstractmethod
    def texts(self, row: Mapping[str, Any], role: Role, generator: np.random.Generator) -> tuple[str, str | None]:
        """Choose the text that the encoder reads and the text that the LLM should predict.

        Args:
            row: A row with `text` if the role is reconstruct, else with `query` and the list `positive`.
            role: The role of the row's source.
            generator: The random generator of this example. Use no other one.

        Returns:
            The source text, and the target text or None if the objective has no target.
        """

    def tensors(self, examples: Sequence[Mapping[str, Any]], tokenize: Callable[..., Any]) -> dict[str, torch.Tensor]:
        """Make more tensors for a batch, in addition to those of `needs_head` and `needs_embedder`.

        Args:
            examples: The examples of the batch, from `AlignmentExamples`.
            tokenize: The collator's function: texts and keywords -> ids of the LLM, one list for each text.
        """
        return {}

    @abstractmethod
    def loss(self, network: LusiferForAlignment, batch: dict[str, Any], stage: Any) -> torch.Tensor:
        """Compute the loss of a batch, a scalar tensor.

        Args:
            network: The model, with the LM head of the LLM if an objective of the stage needs it.
            batch: input_ids and attention_mask (B, L) of the encoder, the tensors described above, and
                `num_items_in_batch`, the number of labels in all mini-batches of the step (None without labels).
            stage: The `AlignmentStage` of the recipe, for its options.
        """

    def keeps_drawn_order(self, stage: Any) -> bool:
        """Whether the rows of a step must not be sorted by length, because the loss compares rows of a mini-batch."""
        return False

    def words(self, stage: Any) -> dict[str, str]:
        """Describe its settings for the model card: name of the setting -> description."""
        return {}


def pair_texts(row: Mapping[str, Any], generator: np.random.Generator) -> tuple[dict[str, str], float]:
    """Draw from a row of pairs.

    Args:
        row: A row with `query` and the list `positive`.
        generator: The random generator of the example.

    Returns:
        The query as `q` with one drawn positive as `p`, and a random number in [0, 1).
    """
    texts = {"q": row["query"], "p": row["positive"][int(generator.integers(len(row["positive"])))]}
    return texts, generator.random()
