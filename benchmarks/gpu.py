"""XLM-R large and Mistral 7B shapes on one GPU, random weights, bfloat16: embedding and a step of both stages.

    python benchmarks/gpu.py [--cases embedding alignment contrastive] [--output benchmarks/results/gpu]
    python benchmarks/gpu.py --small                      # tiny shapes, on a CPU too: whether it runs

A case takes a few minutes. Shares are of a bfloat16 matrix product of the same call; operations are counted on real
tokens (a step of training: forward, and gradients of what layers read; with the gradient cache a second forward).
A way that fails is a row with its reason. Peak memory is what torch had given out at most (a GPU only).
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent / "speed"))
import gpu_model
import medium

from lusifer.embedder.assemble import assemble
from lusifer.model.alignment import LusiferForAlignment
from lusifer.training.stages.losses import InfoNCE

CASES = ("embedding", "alignment", "contrastive")
WAYS = ("sdpa", "sdpa compiled", gpu_model.UNPADDED, "flash_attention_2", "kernels-community/flash-attn2")
PACKAGES = ("torch", "transformers", "sentence-transformers", "peft")
Work = tuple[Callable[[], Any], float, int]
"""A function to time, its operations, its tokens."""


def embedding(options: argparse.Namespace, way: str, shape: str) -> Work:
    """Texts of one length, or of mixed ones, about 16,384 tokens a batch."""
    longest, budget = (16, 128) if options.small else (512, 16384)
    lengths = gpu_model.mixed(budget // 50 + 4, longest) if shape == "mixed" else [int(shape)] * (budget // int(shape))
    attention = way.partition(" ")[0]
    unpadded = gpu_model.Unpadded() if way == gpu_model.UNPADDED else None
    model = gpu_model.build(options.device, options.small, attention, options.dtype)
    features = gpu_model.batch(lengths, model.config.encoder.vocab_size, options.device)
    run = torch.compile(model, dynamic=True) if way.endswith("compiled") else model

    @torch.inference_mode()
    def work() -> torch.Tensor:
        return unpadded.embed(model, features) if unpadded else run(**features).embedding

    return work, gpu_model.flops(model.config, lengths), sum(lengths)


def alignment(options: argparse.Namespace, way: str, shape: str) -> Work:
    """One micro-batch of stage 1, forward and backward: adapters on the encoder, the connector trains."""
    rows, length = (2, 8) if options.small else (16, int(shape))
    model = gpu_model.build(options.device, options.small, way, options.dtype, ("encoder",))
    llm = model.config.llm
    head = torch.nn.Linear(llm.hidden_size, llm.vocab_size, bias=False, device=options.device, dtype=options.dtype)
    model.config.alignment_bos = False
    network = LusiferForAlignment(model.config, model, head.requires_grad_(False))
    network.model.train()
    features = gpu_model.batch([length] * rows, model.config.encoder.vocab_size, options.device)
    target = features["input_ids"] % llm.vocab_size

    def work() -> None:
        with torch.autocast(options.device, torch.bfloat16):
            loss = network(**features, target_ids=target, target_attention_mask=torch.ones_like(target), labels=target)
        loss.loss.backward()
        model.zero_grad()

    return work, 2 * gpu_model.flops(model.config, [length] * rows, length), 2 * rows * length


def contrastive(options: argparse.Namespace, way: str, shape: str) -> Work:
    """A whole step of stage 2: 256 rows of a query, a positive and 7 negatives, gradient cache, 32 texts at once."""
    rows, columns, longest, mini = (4, 3, 16, 2) if options.small else (256, 9, 512, 32)
    model = gpu_model.build(options.device, options.small, way, options.dtype, ("encoder", "llm"))
    embedder = assemble(model, medium.tokenizer(), max_seq_length=longest).to(options.device).train()
    loss = InfoNCE(embedder, mini_batch_size=mini)
    sizes = [gpu_model.mixed(rows, 64 if column == 0 else longest) for column in range(columns)]
    features = [gpu_model.batch(lengths, model.config.encoder.vocab_size, options.device) for lengths in sizes]

    def work() -> None:
        with torch.autocast(options.device, torch.bfloat16):
            loss([dict(column) for column in features], None).backward()
        model.zero_grad()

    lengths = [length for column in sizes for length in column]
    return work, 3 * gpu_model.flops(model.config, lengths), sum(lengths)


def plan(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Case, way and shape of every row."""
    shapes = ("8", "mixed") if options.small else ("32", "128", "512", "mixed")
    rows = [("embedding", way, shape) for shape in shapes for way in WAYS]
    rows += [("alignment", way, "8" if options.small else "128") for way in ("sdpa", "flash_attention_2")]
    rows += [("contrastive", way, "mixed") for way in ("sdpa", "flash_attention_2")]
    return [row for row in rows if row[0] in options.cases]


def why_not(way: str) -> str | None:
    """A reason why a way cannot be run here, where that is known before."""
    if way == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        return "the package flash-attn is not installed"
    if way.startswith("kernels-") and importlib.util.find_spec("kernels") is None:
        return "the package kernels is not installed, and its kernels come from the hub"
    return None


def measure(options: argparse.Namespace, case: str, way: str, shape: str) -> dict[str, Any]:
    """One row: numbers, or the reason why there are none."""
    row: dict[str, Any] = {"case": case, "way": way, "shape": shape, "missing": why_not(way)}
    if row["missing"]:
        return row
    cuda = options.device == "cuda"
    try:
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        work, flops, tokens = globals()[case](options, way, shape)
        work()
        seconds = sorted(_time(work, cuda) for _ in range(options.times))[options.times // 2]
    except Exception as error:  # the row says which and goes on: one way's kernel must not cost the others' numbers
        row["missing"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
        return row
    finally:
        work = None
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
    row |= {"ms": 1000 * seconds, "tokens_per_second": tokens / seconds, "tflops": flops / seconds / 1e12}
    row["of_gemm"] = flops / seconds / options.gemm
    row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
    return row


def _time(work: Callable[[], Any], cuda: bool) -> float:
    start = time.perf_counter()
    work()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def gemm(options: argparse.Namespace) -> float:
    """Operations a second of a matrix product, the best of some."""
    size = 256 if options.small else 8192
    a, b = (torch.randn(size, size, device=options.device, dtype=options.dtype) for _ in range(2))
    a @ b
    return 2 * size**3 / min(_time(lambda: a @ b, options.device == "cuda") for _ in range(10))


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "| case | shape | way | ms | tokens/s | TFLOP/s | of GEMM | peak GiB |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        head = f"| {row['case']} | {row['shape']} | {row['way']} |"
        if row["missing"]:
            lines.append(f"{head} not measured: {row['missing'].replace('|', '/')} | | | | |")
            continue
        peak = "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
        numbers = f"{row['ms']:.1f} | {row['tokens_per_second']:,.0f} | {row['tflops']:.1f} | {row['of_gemm']:.0%}"
        lines.append(f"{head} {numbers} | {peak} |")
    return lines


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--output", type=Path, help="without ending; nothing is written if left out on a CPU")
    options = parser.parse_args()
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.device == "cpu" and not options.small:
        raise SystemExit("there is no GPU here: --small runs tiny shapes on a CPU")
    options.dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    options.gemm = gemm(options)
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    if options.output is None and options.device == "cuda" and not options.small:
        options.output = Path(__file__).parent / "results" / "gpu"
    packages = {each: version(each) for each in PACKAGES}
    rows = []
    for case, way, shape in plan(options):
        rows.append(measure(options, case, way, shape))
        sys.stderr.write(f"{rows[-1]}\n")
        if options.output is not None:  # after every row: the time on a machine may end
            kept = {"device": name, "dtype": str(options.dtype), "gemm_tflops": options.gemm / 1e12, "rows": rows}
            text = json.dumps(kept | {"versions": packages, "small": options.small}, indent=1)
            options.output.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
            head = f"{name}, {options.dtype}, matrix product {options.gemm / 1e12:.0f} TFLOP/s; {packages}"
            lines = [head, "", *table(rows)]
            options.output.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(table(rows)) + "\n")


if __name__ == "__main__":
    main()
