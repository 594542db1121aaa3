"""The LM head of alignment on a processor: which way to make its products, in time and exactness.

    OMP_NUM_THREADS=1 python benchmarks/head.py

A head of Gemma 3's size (262,144 x 640, bfloat16), 1,024 labels: forward and backward pass, by every policy of torch's
`linear_cross_entropy`, and plain, where all logits exist at once. Against float32: the largest error of a loss, and
the relative one of the gradient.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import nn

WORDS, WIDTH, LABELS = 262_144, 640, 1024
Loss = Callable[[torch.Tensor], torch.Tensor]


def main() -> int:
    """Print a table as Markdown."""
    torch.manual_seed(0)
    weight = (0.015 * torch.randn(WORDS, WIDTH)).bfloat16()
    states, wanted = torch.randn(LABELS, WIDTH).bfloat16(), torch.randint(WORDS, (LABELS,))
    upstream = torch.rand(LABELS)  # of each loss its own
    ways: dict[str, Loss] = {
        "float32, plain": lambda x: nn.functional.cross_entropy(x.float() @ weight.float().T, wanted, reduction="none"),
        "bfloat16, plain": lambda x: nn.functional.cross_entropy((x @ weight.T).float(), wanted, reduction="none"),
        "auto": _chunked(weight, wanted, "auto"),
        "accurate": _chunked(weight, wanted, "accurate"),
        "compact": _chunked(weight, wanted, "compact"),
    }
    sys.stdout.write("| way | seconds | error of a loss | of the gradient |\n|---|--:|--:|--:|\n")
    expected = None
    for name, way in ways.items():
        leaf = states.clone().requires_grad_()
        started = time.perf_counter()
        losses = way(leaf).float()
        (losses * upstream).sum().backward()
        seconds = time.perf_counter() - started
        found = losses.detach(), leaf.grad.float()
        expected = expected or found
        error, off = (found[0] - expected[0]).abs().max(), (found[1] - expected[1]).norm() / expected[1].norm()
        sys.stdout.write(f"| {name} | {seconds:.1f} | {error:.3f} | {off:.1%} |\n")
        sys.stdout.flush()
    return 0


def _chunked(weight: torch.Tensor, wanted: torch.Tensor, policy: str) -> Loss:
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=LABELS, chunking_method=None, acc_policy=policy)
    return lambda x: nn.functional.linear_cross_entropy(x, weight, wanted, reduction="none", options=options)


if __name__ == "__main__":
    sys.exit(main())
