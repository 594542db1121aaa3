"""Make a trained model small enough to come along: float16 on disk, without the LLM's unread word embeddings.

    python examples/mini/ship.py runs/mini/model models/lusifer-mini --card models/lusifer-mini/README.md

The numbers in memory stay float32: a loaded model computes with what the file holds, at float32 speed on a CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lusifer.embedder import folder, golden
from lusifer.embedder.assemble import lusifer_model
from lusifer.errors import LusiferError, UsageError
from lusifer.io.files import refuse_unwritable, write_folder
from lusifer.io.weights import WEIGHTS

LIMIT = 60_000_000  # bytes of the whole folder


def ship(source: Path, target: Path, card: str | None) -> int:
    """Write the small folder, with `card` as the text of its model card, and return its size in bytes.

    Raises:
        LusiferError: ``source`` is no whole model, or the result is larger than the limit.
    """
    embedder = folder.load(source, device="cpu", dtype="float32")
    model = lusifer_model(embedder)
    # The connector gives the LLM its input, and its own words are never looked up.
    model.llm.resize_token_embeddings(1)
    model.config.llm.vocab_size = 1
    with write_folder(target) as temporary:
        folder.save(embedder, temporary, card)
        vocabulary = temporary / "tokenizer.json"
        pieces = json.loads(vocabulary.read_text(encoding="utf-8"))
        pieces["truncation"] = pieces["padding"] = None  # what the last call in training left there
        # One line: laid out for reading, tens of thousands of pieces take twice the bytes.
        vocabulary.write_text(json.dumps(pieces, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
        file = temporary / WEIGHTS
        half = {name: _half(name, tensor) for name, tensor in load_file(file).items()}
        save_file(half, file, metadata={"format": "pt"})
        folder.check(temporary)
        golden.write(folder.load(temporary, device="cpu"), temporary)
        size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
        if size > LIMIT:
            raise LusiferError(f"{target}: {size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}")
    return size


def _half(name: str, tensor: torch.Tensor) -> torch.Tensor:
    made = tensor.half() if tensor.is_floating_point() else tensor
    if made.is_floating_point() and not torch.isfinite(made).all():
        raise LusiferError(f"{name}: too large for float16")
    return made.contiguous()


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Make a trained model small enough to come along.")
    parser.add_argument("source", type=Path, help="a trained model folder")
    parser.add_argument("target", type=Path, help="folder to write, as in models/lusifer-mini")
    parser.add_argument("--card", type=Path, help="the model card; by default that of the trained folder")
    options = parser.parse_args()
    try:
        refuse_unwritable(options.target, "folder", "target")
        card = options.card or options.source / "README.md"
        if options.card and not card.is_file():
            raise UsageError(f"--card {card}: no such file")
        size = ship(options.source, options.target, card.read_text(encoding="utf-8") if card.is_file() else None)
    except LusiferError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.status
    sys.stdout.write(f"{options.target}: {size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
