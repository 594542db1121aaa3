"""A model folder as training writes it, of random weights: for tests that need one and not how it came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tiny_embedder(bases: tuple[Path, Path], limit: int = 64, **settings: Any) -> Any:
    """A SentenceTransformer around tiny XLM-R and tiny Mistral; `settings` are fields of LusiferConfig."""
    from lusifer.embedder.assemble import assemble
    from lusifer.model import build
    from lusifer.model.build import read_tokenizer

    encoder, llm = (str(base) for base in bases)
    model = build.join(
        build.read_backbone(build.Base(encoder), "encoder"),
        build.read_backbone(build.Base(llm), "llm"),
        **{"num_soft_tokens": 1, **settings},
    )
    return assemble(
        model,
        read_tokenizer(encoder),
        prompts={"query": "", "document": "", "passage": "Find: "},
        max_seq_length=limit,
    )
