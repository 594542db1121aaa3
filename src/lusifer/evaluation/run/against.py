"""Evaluate a model for queries with documents of another embedder, to see whether an index has to be rebuilt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from lusifer.errors import UsageError
from lusifer.evaluation.run.encoder import ScoredModel, model_meta
from lusifer.evaluation.tasks.rows import SuiteRow

PAIRED = ("BitextMining", "STS")
"""Types of tasks for which mteb embeds one side and then the other, without marking either as documents."""


class IndexedModel(ScoredModel):
    """An evaluated model with documents of another embedder.

    The other embedder encodes searched documents, the second sentences of pairs, and the training sentences of
    classifiers, all as documents.
    """

    def __init__(self, queries: ScoredModel, index: ScoredModel) -> None:
        """Combine a model and the embedder of an index.

        Args:
            queries: The model that encodes queries.
            index: The embedder that encodes documents.

        Raises:
            UsageError: Their vectors have different dimensions.
        """
        sizes = [each.embedder.get_embedding_dimension() for each in (queries, index)]
        if sizes[0] != sizes[1]:
            raise UsageError(
                f"--against {index.name}: its vectors have {sizes[1]} dimensions, those of {queries.name} {sizes[0]}: "
                "name the embedder whose space the model learned"
            )
        super().__init__(
            queries.embedder,
            f"{queries.name} against {index.name}",
            queries.identity,
            instructed=queries.instructed,
            unit=queries._unit,
            seen=queries._seen,
        )
        self.index = index
        self.mteb_model_meta = model_meta(self.name, f"{queries.identity}-{index.identity}")
        self._type, self._calls = "", 0

    @property
    def of_documents(self) -> ScoredModel:
        """The embedder of the documents."""
        return self.index

    @contextmanager
    def spread(self, devices: Sequence[str]) -> Iterator[None]:
        """Embed on several devices, for both models."""
        with ExitStack() as held:
            held.enter_context(super().spread(devices))
            held.enter_context(self.index.spread(devices))
            yield

    def use(self, row: SuiteRow) -> None:
        """Use the prompts of a row; the prompt of documents is that of the other embedder."""
        super().use(row)
        self.index.use(row)
        self.prompts = {"query": self.prompts["query"], "document": self.index.prompts["document"]}
        self._type, self._calls = row.type, 0

    def encode(self, inputs: Any, *, prompt_type: Any = None, hf_split: str = "", **more: Any) -> np.ndarray:
        """Embed texts as `ScoredModel.encode` does; the other embedder encodes the documents.

        Args:
            inputs: Batches with the key "text".
            prompt_type: mteb's type of prompt: query, document or None.
            hf_split: Split of the texts.
            **more: Ignored.

        Returns:
            Vectors, float32, (n, d).
        """
        self._calls += 1
        if self._type in PAIRED:
            of_index = self._calls % 2 == 0
        else:  # the training texts of a classifier are of another split
            of_index = hf_split != self._split or getattr(prompt_type, "value", None) == "document"
        if of_index:
            return self.index.vectors([text for batch in inputs for text in batch["text"]], self.prompts["document"])
        return super().encode(inputs, prompt_type=None, hf_split=hf_split, **more)
