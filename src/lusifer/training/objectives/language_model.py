"""The objectives `reconstruction` and `completion`: the LLM predicts text after the soft prompt of the connector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lusifer.training.objectives.objective import PAIRED_ROLES, Objective, Role, pair_texts

if TYPE_CHECKING:
    import numpy as np
    import torch

    from lusifer.model.alignment import LusiferForAlignment

MIX: Mapping[Role, tuple[tuple[float, str, str], ...]] = {
    "passage_and_query": ((0.3, "q", "p"), (0.28, "p", "p"), (0.42, "p", "q")),
    "query_to_passage": ((0.1, "q", "q"), (0.9, "q", "p")),
}
"""Role -> (share, source, target) in completion, as published; q is the query, p the passage."""
_ATTENTION = {"prefix": "causal, no label is visible", "bidirectional": "both directions, labels are masked"}


class NextToken(Objective):
    """Base class of objectives whose loss is the cross-entropy of the target's tokens."""

    needs_head = True

    def loss(self, network: LusiferForAlignment, batch: dict[str, Any], stage: Any) -> torch.Tensor:
        """Compute the cross-entropy of the target after the soft prompt, averaged over the labels of the step."""
        return network.predict(**batch, attention=stage.attention).loss

    def words(self, stage: Any) -> dict[str, str]:
        """Describe the attention of the target tokens."""
        return {"attention of the target tokens": _ATTENTION[stage.attention]}


class Reconstruction(NextToken):
    """The LLM predicts the text that the encoder read."""

    name = "reconstruction"
    stream = 0

    def reads(self, roles: Sequence[Role]) -> list[bool]:
        """Take rows from the sources of plain texts; if there are none, from all sources."""
        plain = [role not in PAIRED_ROLES for role in roles]
        return plain if any(plain) else [True] * len(plain)

    def texts(self, row: Mapping[str, Any], role: Role, generator: np.random.Generator) -> tuple[str, str | None]:
        """Return the text of the row, or a positive of its pair, as source and target."""
        text = row["text"] if role == "reconstruct" else pair_texts(row, generator)[0]["p"]
        return text, text


class Completion(NextToken):
    """The LLM predicts the passage of a query, or the query of a passage."""

    name = "completion"
    stream = 1
    needs_pairs = True

    def texts(self, row: Mapping[str, Any], role: Role, generator: np.random.Generator) -> tuple[str, str | None]:
        """Draw source and target by the published shares of the directions."""
        import numpy as np

        texts, drawn = pair_texts(row, generator)
        shares = np.cumsum([share for share, _, _ in MIX[role]])
        _, source, target = MIX[role][min(int(np.searchsorted(shares, drawn, side="right")), len(shares) - 1)]
        return texts[source], texts[target]
