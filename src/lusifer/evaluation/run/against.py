"""A model for the queries, and another embedder for what they are compared with: does an index have to be made anew?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from lusifer.errors import UsageError
from lusifer.evaluation.run.encoder import ScoredModel, model_meta
from lusifer.evaluation.tasks.rows import SuiteRow

PAIRED = ("BitextMining", "STS")
"""Types of tasks for which mteb embeds one side and then the other, and calls neither of them documents."""


class IndexedModel(ScoredModel):
    """A scored model whose documents are another embedder's.

    What is searched, the second sentence of a pair, and the sentences that a classifier learns from are embedded by the
    other one, as its documents.
    """

    def __init__(self, queries: ScoredModel, index: ScoredModel) -> None:
        """Take a model and the embedder of an index.

        Raises:
            UsageError: Their vectors have different sizes.
        """
        sizes = [each.embedder.get_embedding_dimension() for each in (queries, index)]
        if sizes[0] != sizes[1]:
            raise UsageError(
                f"--against {index.name}: its vectors have {sizes[1]} numbers, those of {queries.name} {sizes[0]}: "
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
        """The other embedder."""
        return self.index

    @contextmanager
    def spread(self, devices: Sequence[str]) -> Iterator[None]:
        """As of one model, for both."""
        with ExitStack() as held:
            held.enter_context(super().spread(devices))
            held.enter_context(self.index.spread(devices))
            yield

    def use(self, row: SuiteRow) -> None:
        """As of one model; what stands before a document is what the other embedder has for it."""
        super().use(row)
        self.index.use(row)
        self.prompts = {"query": self.prompts["query"], "document": self.index.prompts["document"]}
        self._type, self._calls = row.type, 0

    def encode(self, inputs: Any, *, prompt_type: Any = None, hf_split: str = "", **more: Any) -> np.ndarray:
        """As of one model; texts of the index go to the other one."""
        self._calls += 1
        if self._type in PAIRED:
            of_index = self._calls % 2 == 0
        else:  # a classifier learns from another split than is tested
            of_index = hf_split != self._split or getattr(prompt_type, "value", None) == "document"
        if of_index:
            return self.index.vectors([text for batch in inputs for text in batch["text"]], self.prompts["document"])
        return super().encode(inputs, prompt_type=None, hf_split=hf_split, **more)
