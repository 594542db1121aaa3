"""int8 copies of a model for OpenVINO on the CPU: smaller, faster on some processors, a little lower in quality.

The folder has the tokenizer, prompts and settings of the original. In place of safetensors it has a graph in
OpenVINO's format (https://docs.openvino.ai): XML and plain numbers, no code.

Weights and the inputs of matrix products become 8-bit numbers with fixed scales (post-training quantization of NNCF,
https://docs.openvino.ai/2026/openvino-workflow/model-optimization.html). The scales are computed once, from sample
texts: with scales from each batch, a vector would depend on the other texts of its batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lusifer import extras
from lusifer.embedder import golden, plain
from lusifer.embedder.contents import ABOUT, EXPORT_ADVICE, GRAPH, NUMBERS, check_int8
from lusifer.embedder.plain import PlainEmbedder
from lusifer.errors import DataError, ModelFolderError, UsageError
from lusifer.io.files import write_folder
from lusifer.model import adapters
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferOutput, right_padded

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SAMPLES = 300
"""The largest number of texts that the scales are computed from."""
FEWEST = 8
"""The smallest number of those texts."""
_WORDS = "word_embeddings"
"""The input of a compiled graph in place of its lookup of word embeddings."""


class Int8Model(nn.Module):
    """An int8 graph with the forward call of `LusiferModel`. It runs on the CPU and has no tensors in torch.

    `digest` identifies the numbers of the graph, because there are no tensors to compare. A copy of this object, also
    in another process, compiles the graph again, so the folder must still be there.
    """

    device = torch.device("cpu")

    def __init__(self, folder: Path, config: LusiferConfig) -> None:
        super().__init__()
        self.folder, self.config = folder, config
        self.graph, self._words = _compile(folder, config)
        digest = hashlib.sha256()
        for name in (NUMBERS, GRAPH):
            with (folder / name).open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        self.digest = digest.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.config), {"training": self.training}

    def save_pretrained(self, target: str, **_: Any) -> None:
        """Copy the graph and write config.json; sentence-transformers calls this to save a model."""
        Path(target).mkdir(parents=True, exist_ok=True)
        for name in (GRAPH, NUMBERS, ABOUT):
            with suppress(shutil.SameFileError):  # saved onto its own folder
                shutil.copyfile(self.folder / name, Path(target, name))
        self.config.save_pretrained(target)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> LusiferOutput:
        """Embed a batch of tokenized texts.

        Args:
            input_ids: Token ids (B, L), int64.
            attention_mask: 1 for a token and 0 for padding (B, L). None is a batch without padding.
            kwargs: Ignored.

        Returns:
            The embedding (B, d), float32, not scaled to length 1.

        Raises:
            UsageError: A text has more tokens than the backbones can read.
        """
        longest = self.config.max_position_embeddings
        if input_ids.shape[1] > longest:
            raise UsageError(
                f"text of {input_ids.shape[1]} tokens: the backbones read at most {longest}: set max_seq_length to "
                f"{longest} or less"
            )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        ids, mask = right_padded(input_ids, mask)
        fed = {"input_ids": ids.cpu().numpy(), "attention_mask": mask.cpu().numpy()}
        if self._words is not None:
            rows, scales = self._words
            fed[_WORDS] = rows[fed["input_ids"]].astype(np.float32) * scales[fed["input_ids"]]
        found = self.graph(fed)[0]
        return LusiferOutput(torch.from_numpy(found.copy()))  # the array belongs to the next call


def load(
    folder: Path, device: str | None = None, *, vectors_only: bool = False, **wishes: object
) -> SentenceTransformer | PlainEmbedder:
    """Load an int8 folder that `lusifer export` wrote.

    Args:
        folder: The folder.
        device: None or "cpu".
        vectors_only: Whether to return a `PlainEmbedder` instead of a `SentenceTransformer`.
        wishes: Other arguments of `folder.load`; all of them are refused.

    Raises:
        ModelFolderError: A file is missing or damaged.
        MissingExtraError: OpenVINO is not installed.
        UsageError: Another device, or any of `wishes`, was given.
    """
    asked = [*wishes] if device in (None, "cpu") else [*wishes, "device"]
    if asked:
        only = "an int8 model runs on the CPU only and has a fixed dtype"
        raise UsageError(f"{folder}: {only}: leave {', '.join(asked)} out")
    files, config, tokenizer = read(folder)
    model = Int8Model(folder.resolve(), config)
    saved, normalize = files["config_sentence_transformers.json"], files[ABOUT]["normalize"]
    prompts, default = saved.get("prompts"), saved.get("default_prompt_name")
    limit = min(files[ABOUT]["max_seq_length"], tokenizer.model_max_length)  # a copy may have a smaller limit
    if vectors_only:
        tokenizer.model_max_length = limit
        return PlainEmbedder(model, tokenizer, normalize=normalize, prompts=prompts, default_prompt_name=default)
    from lusifer.embedder.assemble import assemble

    embedder = assemble(model, tokenizer, prompts=prompts, max_seq_length=limit, normalize=normalize)
    embedder.default_prompt_name = default
    return embedder.eval()


def read(folder: Path) -> tuple[dict[str, dict[str, Any]], LusiferConfig, PreTrainedTokenizerBase]:
    """Read an int8 folder without the graph.

    Returns:
        Name of a JSON file -> its content, the configuration, and the tokenizer.

    Raises:
        ModelFolderError: A file is missing or damaged.
    """
    files = check_int8(folder)
    try:
        config = LusiferConfig.from_dict(files["config.json"])
    except ValueError as error:
        raise ModelFolderError(f"{folder / 'config.json'}: {error}; {EXPORT_ADVICE}") from error
    except (TypeError, AttributeError, KeyError) as error:
        words = f"damaged, no model can be made from it ({type(error).__name__}: {error}); {EXPORT_ADVICE}"
        raise ModelFolderError(f"{folder / 'config.json'}: {words}") from error
    return files, config, plain.tokenizer(folder, PreTrainedTokenizerFast, EXPORT_ADVICE)


def _compile(folder: Path, config: LusiferConfig) -> tuple[Any, tuple[np.ndarray, np.ndarray] | None]:
    """Compile the graph; also return the word embeddings that `_without_words` takes out of it."""
    openvino = extras.need("int8", "openvino")
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Without it OpenVINO computes in bfloat16 between the products on processors that have it.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        core = openvino.Core()
        model = core.read_model(folder / GRAPH)
        names = {name for port in model.inputs for name in port.get_names()}
        size, wanted = str(model.outputs[0].partial_shape[-1]), str(config.hidden_size)
        if not {"input_ids", "attention_mask"} <= names or size != wanted:
            words = f"inputs {sorted(names)}, output dimension {size}: expected input_ids, attention_mask and {wanted}"
            raise ModelFolderError(f"{folder / GRAPH}: {words}; {EXPORT_ADVICE}")
        table = _without_words(openvino, model)
        return core.compile_model(model, "CPU", settings), table
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line and not line.startswith(("Exception from", "Check"))]
        words = f"this file or {NUMBERS} is damaged ({next(iter(lines), 'no reason given')})"
        raise ModelFolderError(f"{folder / GRAPH}: {words}; {EXPORT_ADVICE}") from error


def _without_words(openvino: Any, model: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Replace the lookup of word embeddings in a graph by an input, in place.

    OpenVINO would unpack the table to float32 when it compiles: 384 MB for `mini`, and as much again meanwhile. A batch
    needs a few hundred of its 250,002 rows. The numbers are the same.

    Returns:
        The table (rows, d), int8, and the scale of each row (rows, 1), float32. None if the graph has no such table; it
        is then unchanged.
    """
    for lookup in model.get_ordered_ops():
        if lookup.get_type_name() != "Gather":
            continue
        found, nodes = lookup.input_value(0).get_node(), []
        for kind in ("Multiply", "Convert", "Constant"):
            if found.get_type_name() != kind:
                break
            nodes.append(found)
            found = found.input_value(0).get_node() if kind != "Constant" else found
        ids = lookup.input_value(1).get_node()
        ids = ids.input_value(0).get_node() if ids.get_type_name() == "Convert" else ids
        if len(nodes) < 3 or ids.get_friendly_name() != "input_ids":
            continue
        scales, axis = nodes[0].input_value(1).get_node(), lookup.input_value(2).get_node()
        shape = tuple(nodes[2].get_output_shape(0))
        if nodes[2].get_element_type() != openvino.Type.i8 or len(shape) != 2:
            continue
        if any(node.get_type_name() != "Constant" for node in (scales, axis)):
            continue
        if tuple(scales.data.shape) != (shape[0], 1) or axis.data.item() != 0:
            continue  # scales of something else than rows, or another axis than rows
        size, table = shape[1], (nodes[2].data.copy(), scales.data.copy())
        given = openvino.op.Parameter(openvino.Type.f32, openvino.PartialShape([-1, -1, size]))
        given.output(0).get_tensor().set_names({_WORDS})
        lookup.output(0).replace(given.output(0))
        model.add_parameters([given])
        model.validate_nodes_and_infer_types()
        return table
    return None


class _Vector(nn.Module):
    """The function to trace: it returns a tensor, where `LusiferModel` returns an output object."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids, attention_mask).embedding


def sample(rows: Iterable[tuple[str, str]], name: str) -> list[str]:
    """Take the texts to compute the scales from: the first `SAMPLES` of a file.

    Args:
        rows: (place, text) of each row.
        name: The name of the file, for the error message.

    Raises:
        DataError: There are fewer than `FEWEST` texts.
    """
    texts = [text for _, text in islice(rows, SAMPLES)]
    if len(texts) < FEWEST:
        raise DataError(f"{name}: {len(texts)} texts, and int8 needs {FEWEST} to {SAMPLES}: give a longer file")
    return texts


def export(embedder: SentenceTransformer, target: str | os.PathLike[str], texts: Sequence[str]) -> None:
    """Write an int8 copy of a model, all at once, in place of an old folder. `lusifer.load` reads it.

    This changes the model: afterwards it is on the CPU, in float32, and its adapters are merged.

    Args:
        embedder: The model.
        target: The folder to write.
        texts: A few hundred texts like those to embed. English texts are enough for a model trained on English.

    Raises:
        MissingExtraError: OpenVINO or NNCF is not installed.
    """
    from sentence_transformers.sentence_transformer.modules import Normalize

    from lusifer.embedder.assemble import lusifer_model

    model = lusifer_model(embedder)
    openvino, nncf = extras.need("int8", "openvino"), extras.need("int8", "nncf")
    if any(adapters.adapted_layers(model)):
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
            # Weights use half of the 8-bit range: processors without VNNI (AVX2, the first AVX-512) add two products
            # in 16 bits, which would overflow with the full range.
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
        # Its own golden vectors: on another processor they differ as much as those of a half-precision model.
        golden.write(load(temporary, vectors_only=True), temporary, half=True)


def _products_of_states(graph: Any) -> list[str]:
    """Find the matrix products without weights, such as the mean over positions, which stay in float32.

    In int8, sums of neighboring positions overflow 16 bits on processors without VNNI, and padding then changes a
    vector. These products take little of the time.

    Returns:
        Names of nodes of the graph.
    """

    def is_weight(output: Any) -> bool:
        node = output.get_node()
        if node.get_type_name() in ("Convert", "Transpose", "Reshape"):
            return is_weight(node.input_value(0))
        return node.get_type_name() == "Constant"

    products = [node for node in graph.get_ordered_ops() if node.get_type_name() == "MatMul"]
    return [node.get_friendly_name() for node in products if not any(map(is_weight, node.input_values()))]


def _features(embedder: SentenceTransformer, texts: list[str]) -> dict[str, torch.Tensor]:
    """Tokenize texts: ids and mask (B, L)."""
    made = embedder.preprocess(texts)
    return {key: made[key] for key in ("input_ids", "attention_mask")}


@contextmanager
def _tracing(nncf: Any) -> Iterator[None]:
    """Turn off torch's fused encoder layers, which cannot be traced, and the log lines of every step."""
    logger, fused = logging.getLogger("nncf"), torch.backends.mha.get_fastpath_enabled()
    before = logger.level
    nncf.set_log_level(logging.ERROR)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            # Tracing makes the check of the length a constant, and warns; `Int8Model.forward` checks the length.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        logger.setLevel(before)
