"""A model into whole numbers (int8) for processors: smaller, on some faster, at a small cost in quality.

Weights and the inputs of matrix products become 8-bit numbers with fixed scales (post-training quantization of NNCF,
https://docs.openvino.ai/2026/openvino-workflow/model-optimization.html). The scales come from sample texts, once: a
scale taken from each batch would make a vector depend on the texts beside it.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import nn

from lusifer import extras
from lusifer.embedder.assemble import lusifer_model
from lusifer.embedder.int8 import ABOUT, GRAPH
from lusifer.errors import DataError, UsageError
from lusifer.io.atomic import write_folder
from lusifer.model import adapters
from lusifer.serving.files import TextSource

SAMPLES = 300
"""Texts that the scales are taken from at most."""
FEWEST = 8


class _Vector(nn.Module):
    """What is traced: ids and mask in, the embedding out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids, attention_mask).embedding


def sample(source: TextSource, count: int = SAMPLES) -> list[str]:
    """The first texts of a file.

    Raises:
        DataError: There are too few to take scales from.
    """
    texts = [text for _, text in islice(source.rows(), count)]
    if len(texts) < FEWEST:
        raise DataError(f"{source.name}: {len(texts)} texts, and scales need {FEWEST} to {count}: give a longer file")
    return texts


def export(embedder: SentenceTransformer, target: str | os.PathLike[str], texts: Sequence[str]) -> None:
    """Write an int8 copy of a model, whole or not at all; `lusifer.load` reads it.

    Args:
        embedder: A LUSIFER model with its weights, on any device; it is on the processor, in float32 and without
            adapters afterwards (they are merged).
        target: The folder; an old one is replaced.
        texts: A few hundred texts of the kind that will be embedded. English will do for a model trained on English.

    Raises:
        MissingExtraError: OpenVINO or NNCF is not installed.
        UsageError: The model leaves the prompt out of its mean, which the graph cannot.
    """
    model = lusifer_model(embedder)
    if not model.config.include_prompt:
        raise UsageError("this model leaves the prompt out of its mean (include_prompt: false): it cannot be exported")
    openvino, nncf = extras.need("int8", "openvino"), extras.need("int8", "nncf")
    if any(adapters.lora_layers(model)):
        adapters.merge(model)
    model.float().cpu().eval()
    shape = (openvino.PartialShape([-1, -1]), openvino.Type.i64)
    with torch.no_grad(), _tracing(nncf):
        graph = openvino.convert_model(
            _Vector(model).eval(),
            example_input=_features(embedder, list(texts[:3])),
            input=[("input_ids", *shape), ("attention_mask", *shape)],
        )
        data = nncf.Dataset(texts, lambda text: {k: v.numpy() for k, v in _features(embedder, [text]).items()})
        small = nncf.quantize(
            graph, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(texts),
            ignored_scope=nncf.IgnoredScope(names=_products_of_states(graph)),
            # Weights in half of the 8 bits: where a processor has no VNNI (AVX2, the first AVX-512), two products are
            # added in 16 bits, and full weights run over.
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )  # fmt: skip
    normalize = any(isinstance(module, Normalize) for module in embedder)
    with write_folder(target) as temporary:
        embedder.save_pretrained(str(temporary), create_model_card=False)
        for file in temporary.glob("*.safetensors*"):
            file.unlink()
        openvino.save_model(small, temporary / GRAPH, compress_to_fp16=False)
        about = {
            "format": "openvino", "numbers": "int8", "max_seq_length": embedder.max_seq_length, "normalize": normalize,
            "texts": len(texts), "versions": {name: version(name) for name in ("openvino", "nncf", "torch")},
        }  # fmt: skip
        (temporary / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _products_of_states(graph: Any) -> list[str]:
    """Names of the matrix products without weights, as is the mean over positions: they stay in float32.

    In int8, neighbouring positions run over 16 bits together where a processor has no VNNI, and padding then changes
    a vector. They are a small part of the work.
    """

    def is_weight(output: Any) -> bool:
        node = output.get_node()
        if node.get_type_name() in ("Convert", "Transpose", "Reshape"):
            return is_weight(node.input_value(0))
        return node.get_type_name() == "Constant"

    products = [node for node in graph.get_ordered_ops() if node.get_type_name() == "MatMul"]
    return [node.get_friendly_name() for node in products if not any(map(is_weight, node.input_values()))]


def _features(embedder: SentenceTransformer, texts: list[str]) -> dict[str, torch.Tensor]:
    """Ids and mask (B, L) of texts."""
    made = embedder.preprocess(texts)
    return {key: made[key] for key in ("input_ids", "attention_mask")}


@contextmanager
def _tracing(nncf: Any) -> Iterator[None]:
    """Keep torch from its fused encoder layers, which have no graph, and the libraries from a line about every step."""
    logger, fused = logging.getLogger("nncf"), torch.backends.mha.get_fastpath_enabled()
    before = logger.level
    nncf.set_log_level(logging.ERROR)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            # The trace keeps a check of the length as a constant; `Int8Model` makes it anew.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        logger.setLevel(before)
