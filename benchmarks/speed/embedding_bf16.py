"""Embedding with weights in bfloat16, where the processor multiplies it (AMX); beside float32."""

from __future__ import annotations

import embedding


def ways() -> tuple[str, ...]:
    """Ours first."""
    return ("ours bfloat16", "ours")


prepare, warm_up = embedding.prepare, embedding.warm_up
