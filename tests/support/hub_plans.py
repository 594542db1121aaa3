"""What end_to_end/test_hub.py has done in processes of their own, as plans for `hub_steps.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STEPS = Path(__file__).with_name("hub_steps.py")
RECIPE = """
name: from-the-hub
max_length: 64
model:
  encoder: {path: tiny/encoder, revision: second}
  llm: {path: tiny/llm}
stages:
  - name: align
    kind: alignment
    train: {encoder: lora, connector: true}
    objectives: {reconstruction: 1, completion: 1}
    data:
      - {hub: Hieuman/MSMarco}
      - {hub: own/prose, config: letters, split: validation, revision: v1, fields: {text: body}, limit: 12}
    batch_size: 4
    mini_batch_size: 4
    max_steps: 2
    learning_rate: 1.0e-3
  - name: contrast
    kind: contrastive
    train: {llm: lora, connector: true}
    data: [{hub: Hieuman/MSMarco, limit: 16}]
    hard_negatives: 2
    batch_size: 4
    mini_batch_size: 4
    max_steps: 2
    learning_rate: 1.0e-3
"""
DISTILL = """
max_length: 32
model:
  encoder: {path: tiny/encoder}
  llm: {path: tiny/minilm}
stages:
  - name: distill
    kind: alignment
    train: {encoder: full, connector: true}
    objectives: {distill: 1}
    data: [{hub: own/prose, config: letters, split: validation, revision: v1, fields: {text: body}}]
    batch_size: 4
    mini_batch_size: 4
    max_steps: 2
    learning_rate: 1.0e-3
"""
TOKENIZER = "tokenizer.json"
BASES = {"encoder": "xlm-roberta", "llm": "mistral"}
HAS_NOT = "the Hub has no such name, or it is private: correct the name, or log in with `hf auth login`"
GATED = "gated: accept its conditions on its page on the Hub, then log in with `hf auth login`"
DOWN = "not in the cache of this machine, and the Hub cannot be reached"
OFFLINE = "not in the cache of this machine, and HF_HUB_OFFLINE is set"
NO_FOLDER = "no such folder, and it cannot be downloaded from the Hub"


def step(name: str, *words: str | Path) -> dict[str, Any]:
    """A call of the command line."""
    return {"name": name, "do": "command", "words": [str(word) for word in words]}


def prose(name: str, **more: Any) -> dict[str, Any]:
    """Rows of our own data set."""
    start = {"do": "rows", "kind": "passages", "hub": "own/prose", "config": "letters", "split": "validation"}
    return {"name": name, **start, "fields": {"text": "body"}, "limit": 3, **more}


def work(root: Path, output: Path) -> list[dict[str, Any]]:
    """What must go well, with the hub and without it."""
    return [
        step("train", "train", root / "recipe.yaml", "--output", output / "run"),
        step("distill", "train", root / "distill.yaml", "--output", output / "distilled"),
        {"name": "load", "do": "load", "model": "tiny/model"},
        {"name": "load embedder", "do": "load", "model": "tiny/minilm"},
        step("info", "info", "tiny/model"),
        step("convert", "convert", "authors/checkpoint", output / "converted"),
        {
            "name": "public",
            "do": "convert",
            "words": ["authors/private-bases", str(output / "public")],
            "public": str(root / "shape.json"),
        },
        prose("main"),
        prose("v1", revision="v1"),
    ]


def refusals(root: Path) -> list[dict[str, Any]]:
    """What the hub or its answers refuse."""
    train = ("train", root / "recipe.yaml", "--output", root / "no", "--set")
    distill = ("train", root / "distill.yaml", "--output", root / "no-teacher", "--set")
    names = ("unknown", "gated", "private")
    return [
        *(step(f"base {name}", *train, f"model.llm.path=tiny/{name}") for name in names),
        *({"name": f"load {name}", "do": "load", "model": f"tiny/{name}"} for name in (*names, "broken")),
        *({"name": f"data {name}", "do": "rows", "kind": "pairs", "hub": f"own/{name}"} for name in names),
        *(step(f"convert {name}", "convert", f"tiny/{name}", root / "no") for name in names),
        step("base revision", *train, "model.encoder.revision=third"),
        step("teacher", *distill, "model.llm.path=tiny/llm"),
        prose("data revision", revision="v7"),
        prose("data config", config="poems"),
        prose("data split", split="test"),
        prose("diary", config="diaries", split="train", revision="v1"),
    ]


def measure(root: Path) -> list[dict[str, Any]]:
    """A score of a model that has only a name."""
    settings = ("--suite", "offline", "--data", root / "topics", "--languages", "en", "--output", root / "scores")
    return [step("evaluate", "evaluate", "tiny/model", *settings)]


def streams(root: Path) -> list[dict[str, Any]]:
    """Sets that are read without being kept, and a recipe's sets fetched before its day."""
    whole = {"do": "rows", "kind": "pairs", "hub": "Hieuman/MSMarco", "streaming": True}
    return [
        prose("streamed", streaming=True, revision="v1"),
        {"name": "streamed whole", **whole},
        prose("streamed split", streaming=True, split="test"),
        {"name": "streamed unknown", **whole, "hub": "own/unknown"},
        step("fetch", "data", "fetch", root / "recipe.yaml"),
    ]
