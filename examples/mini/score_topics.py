"""Score an encoder folder on SIB-200: retrieval of the English translation and zero-shot topics.

This is for the end only: no setting is chosen by these numbers.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from encoder import embed
from scores import retrieval

LANGUAGES = "en es ru fr vi fa id ar fi ko hi bn te sw".split()


def read(data: Path, language: str, split: str) -> list[dict[str, str]]:
    """Rows of one language and split, sorted by the number that translations share."""
    with gzip.open(data / "eval" / f"sib200-{language}-{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return sorted((json.loads(line) for line in lines), key=lambda row: row["index_id"])


def main() -> int:
    """Write one line per language: retrieval and topic accuracy, both on the dev split."""
    parser = argparse.ArgumentParser(description="Score an encoder on SIB-200.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(options.encoder)
    model = AutoModel.from_pretrained(options.encoder, add_pooling_layer=False).eval()

    def vectors(rows: list[dict[str, str]]) -> torch.Tensor:
        return functional.normalize(embed(model, tokenizer, [row["text"] for row in rows])[0], dim=-1)

    train, english_rows = read(options.data, "en", "train"), read(options.data, "en", "dev")
    train_vectors, english = vectors(train), vectors(english_rows)
    scaler = StandardScaler().fit(train_vectors)
    classifier = LogisticRegression(C=0.01, max_iter=2000)
    classifier.fit(scaler.transform(train_vectors), [row["label"] for row in train])
    table: dict[str, tuple[float, float]] = {}
    for language in LANGUAGES:
        rows = read(options.data, language, "dev")
        if [row["index_id"] for row in rows] != [row["index_id"] for row in english_rows]:
            sys.stderr.write(f"error: the dev rows of {language} are not translations of the English ones\n")
            return 1
        found = vectors(rows)
        topics = classifier.score(scaler.transform(found), [row["label"] for row in rows])
        table[language] = (retrieval(found, english), topics)
    others = [value for language, value in table.items() if language != "en"]
    table["mean without en"] = tuple(sum(column) / len(others) for column in zip(*others, strict=True))
    for language, (found_share, topics) in table.items():
        sys.stdout.write(f"{language}\tretrieval {found_share:.3f}\ttopics {topics:.3f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
