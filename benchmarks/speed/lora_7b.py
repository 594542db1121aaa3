"""Adapters of a 7B LLM as one autograd function against peft's own forward pass: time and peak memory of a step.

    python benchmarks/speed/lora_7b.py time --rows 4 --length 256 --dtype float32 --dropout 0.1
    python benchmarks/speed/lora_7b.py memory

`time` runs layers of Mistral-7B's shape (4,096 wide, 14,336 in the feed-forward part, 32 heads, 8 for keys) with
adapters of rank 16 on all seven linear layers, both ways in turn. It prints medians of a pass without gradients (the
first one of a gradient cache) and of a forward and backward pass. `memory` counts the bytes that live at once in a
whole LLM of 32 layers, with torch's fake tensors: no number is computed. `Fused` is the layer that Lusifer used until
it was measured here (benchmarks/results/lora-7b.md). In "peft without cast" peft does not cast the input of adapters to
float32, which autocast would cast back.
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Linear
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import MistralConfig, MistralModel

from lusifer.training.estimate.rehearsal import Live

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WAYS = ("fused", "peft", "peft without cast")
SHAPES = ((4, 256), (8, 512), (32, 512))


class Fused(Linear):
    """peft's layer, computed by `Product`; without gradients and in float32 as one weight made for the call."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the layer: (..., in) -> (..., out)."""
        weights = [self.base_layer.weight, self.lora_A["default"].weight, self.lora_B["default"].weight]
        if torch.is_autocast_enabled("cpu"):
            x, *weights = (tensor.to(torch.bfloat16) for tensor in (x, *weights))
        dropped, scale = self.lora_dropout["default"](x), self.scaling["default"]
        out, wide = weights[0].shape
        folds = 2 * out * wide <= x.numel() // wide * (out + wide) and wide <= 2 * x.numel() // wide
        if dropped is x and folds and not torch.is_grad_enabled() and x.dtype == torch.float32:
            return nn.functional.linear(x, torch.addmm(weights[0], weights[2], weights[1], alpha=scale))
        return Product.apply(x, dropped, *weights, scale)


class Product(torch.autograd.Function):
    """x W' + scale (x A') B', W frozen; no second output is made, only what the gradients need is held."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dropped: torch.Tensor, w: Any, a: Any, b: Any, scale: float) -> torch.Tensor:
        """Compute (..., out) from (..., in)."""
        read = dropped.reshape(-1, x.shape[-1])
        narrow = read @ a.t()
        y = x.new_empty(*x.shape[:-1], len(w))
        flat = torch.mm(x.reshape(-1, x.shape[-1]), w.t(), out=y.view(-1, len(w)))
        flat.addmm_(narrow, b.t(), alpha=scale)
        ctx.save_for_backward(read, narrow, w, a, b)
        ctx.scale, ctx.shape, ctx.same = scale, x.shape, dropped is x
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, of what the adapter reads, of A and of B."""
        read, narrow, w, a, b = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            rows = grad.reshape(-1, grad.shape[-1])
            scaled = (rows @ b).mul_(ctx.scale)
            of_b, of_a, of_x, of_read = (rows.t() @ narrow).mul_(ctx.scale), scaled.t() @ read, rows @ w, None
            if ctx.same:
                of_x.addmm_(scaled, a)
            else:
                of_read = (scaled @ a).view(ctx.shape)
        return of_x.view(ctx.shape), of_read, None, of_a, of_b, None


class MaskDropout(nn.Dropout):
    """Dropout that keeps one byte an element, as on a GPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop elements while training."""
        return torch.native_dropout(x, self.p, True)[0] if self.training else x


def model(way: str, layers: int, options: argparse.Namespace) -> MistralModel:
    """An LLM with adapters in float32; weights are random."""
    config = MistralConfig(
        vocab_size=options.words, hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers,
        num_attention_heads=32, num_key_value_heads=8, is_causal=False, attn_implementation="sdpa",
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, options.dtype))
    made = MistralModel(config).requires_grad_(False)
    torch.set_default_dtype(before)
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=options.dropout, target_modules=TARGETS)
    inject_adapter_in_model(lora, made)
    for layer in [module for module in made.modules() if type(module) is Linear]:
        layer.lora_A.float(), layer.lora_B.float()
        if options.dropout and options.command == "memory":
            layer.lora_dropout["default"] = MaskDropout(options.dropout)
        if way == "fused":
            layer.__class__ = Fused
        elif way == "peft without cast":
            layer.cast_input_dtype_enabled = options.dtype != "bfloat16"  # autocast casts already
    if options.checkpointing:
        made.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return made.train()


def off_meta(llm: nn.Module) -> None:
    """Put tensors of the processor in place of those of the meta device, whose kernels differ; within fake tensors."""
    for module in llm.modules():
        for name, tensor in list(module.named_parameters(recurse=False)):
            new = nn.Parameter(torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu"), tensor.requires_grad)
            module._parameters[name] = new
        for name, tensor in list(module.named_buffers(recurse=False)):
            module._buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


def step(llm: MistralModel, rows: int, length: int, options: argparse.Namespace, grad: bool = True) -> None:
    """One mini-batch; what the LLM reads has a gradient, as the connector's output has."""
    x = torch.randn(rows, length, 4096, dtype=getattr(torch, options.dtype), requires_grad=grad)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bfloat16"):
        loss = llm(inputs_embeds=x, use_cache=False).last_hidden_state.float().sum()
    if grad:
        loss.backward()


def measure_time(options: argparse.Namespace) -> None:
    """Print medians of the two ways in turn, and of their ratio in each round."""
    options.words = 8
    ways = {way: model(way, options.layers, options) for way in WAYS}
    for way in WAYS[1:]:
        for mine, one in zip(ways[way].parameters(), ways["fused"].parameters(), strict=True):
            mine.data = one.data
    found: dict[tuple[str, bool], list[float]] = {(way, grad): [] for way in ways for grad in (False, True)}
    for turn in range(options.rounds + 1):
        for way in list(ways) if turn % 2 else list(ways)[::-1]:
            for grad in (False, True):
                begin = time.process_time()
                step(ways[way], options.rows, options.length, options, grad)
                if turn:
                    found[way, grad].append(time.process_time() - begin)
    shape = f"{options.rows} x {options.length}, {options.dtype}, dropout {options.dropout}"
    for grad, name in ((False, "without gradients"), (True, "forward and backward")):
        seconds = ", ".join(f"{way} {median(found[way, grad]):.2f} s" for way in WAYS)
        sys.stdout.write(f"{shape}, checkpointing {options.checkpointing}, {name}: {seconds}\n")
    both = {way: [sum(pair) for pair in zip(found[way, False], found[way, True], strict=True)] for way in WAYS}
    for way in WAYS[1:]:
        ratio = median(one / other for one, other in zip(both["fused"], both[way], strict=True))
        sys.stdout.write(f"{shape}, checkpointing {options.checkpointing}, both passes: fused / {way} {ratio:.3f}\n")


def measure_memory(options: argparse.Namespace) -> None:
    """Print what a whole LLM of 32 layers holds at most in a step, its weights and gradients included."""
    options.words = 32768
    for options.dtype in ("bfloat16", "float32"):
        for options.dropout in (0.1, 0.0):
            for options.checkpointing in (False, True):
                for rows, length in SHAPES:
                    peaks = {}
                    for way in WAYS:
                        with torch.device("meta"):
                            llm = model(way, 32, options)
                        with FakeTensorMode():
                            off_meta(llm)
                            weights = sum(p.numel() * p.element_size() for p in llm.parameters())
                            with Live() as live:
                                for _ in range(2):  # gradients are there while the second mini-batch runs
                                    step(llm, rows, length, options)
                        peaks[way] = (weights + live.peak) / 1e9
                    saved = [100 * (1 - peaks["fused"] / peaks[way]) for way in WAYS[1:]]
                    cells = [options.dtype, f"{rows} x {length}", str(options.dropout)]
                    cells += ["on" if options.checkpointing else "off", f"{weights / 1e9:.1f}"]
                    cells += [f"{peak:.1f}" for peak in peaks.values()] + [f"{share:.1f} %" for share in saved]
                    sys.stdout.write(f"| {' | '.join(cells)} |\n")
                    sys.stdout.flush()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("time", "memory"))
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--checkpointing", action="store_true")
    options = parser.parse_args()
    measure_time(options) if options.command == "time" else measure_memory(options)


if __name__ == "__main__":
    main()
