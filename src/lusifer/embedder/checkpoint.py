"""A checkpoint of training holds, beside the merged model, exactly the tensors that train: are they all there?"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lusifer.model.probes import Probe

TRAINABLE = "trainable.safetensors"
TRAINABLE_COUNTS = "trainable.json"


def trained_is_saved(path: Path) -> list[Probe]:
    """Check that what trains is what a checkpoint holds.

    Args:
        path: A model folder; one without `trainable.safetensors` and `trainable.json` is no checkpoint.

    Returns:
        One probe for a checkpoint, else none.
    """
    name = "what trained is saved"
    if not (path / TRAINABLE).exists() and not (path / TRAINABLE_COUNTS).exists():
        return []
    try:
        written = json.loads((path / TRAINABLE_COUNTS).read_text(encoding="utf-8"))
        with safe_open(path / TRAINABLE, framework="pt") as file:
            found = set(file.keys())
    except FileNotFoundError as error:
        return [Probe(name, False, f"{error.filename or TRAINABLE}: missing; resume from the checkpoint before")]
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        words = f"{TRAINABLE_COUNTS} or {TRAINABLE} is damaged ({error}); resume from the checkpoint before"
        return [Probe(name, False, words)]
    wrong = [f"{tensor} is missing" for tensor in written["tensors"] if tensor not in found]
    for part, wanted in written["parts"].items():
        count = sum(tensor.startswith(f"{part}.") for tensor in found)
        if count != wanted:
            wrong.append(f"{part}: {count} of {wanted} tensors")
    if wrong:
        return [Probe(name, False, "; ".join(wrong[-3:]) + f" ({len(wrong)} in all) in {path / TRAINABLE}")]
    parts = ", ".join(f"{part} {count}" for part, count in written["parts"].items() if count)
    return [Probe(name, True, f"{len(found)} tensors: {parts}")]
