"""A model in whole numbers (int8), which OpenVINO runs on a processor: smaller, on some faster, a little less good.

The folder holds the same tokenizer, prompts and settings as the one it was made from, and in place of safetensors the
graph in OpenVINO's format (https://docs.openvino.ai): XML and plain numbers, no code.

Weights and the inputs of matrix products become 8-bit numbers with fixed scales (post-training quantization of NNCF,
https://docs.openvino.ai/2026/openvino-workflow/model-optimization.html). The scales come from sample texts, once: a
scale taken from each batch would make a vector depend on the texts beside it.
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
"""Texts that the scales are taken from at most."""
FEWEST = 8


class Int8Model(nn.Module):
    """The graph of a folder behind the same call as `LusiferModel`; it has no tensors and lives on the processor.

    `digest` names the numbers: there are no tensors here from which to tell two exports apart. A copy, also one in
    another process, compiles the graph of the folder anew, which must still be there.
    """

    device = torch.device("cpu")

    def __init__(self, folder: Path, config: LusiferConfig) -> None:
        super().__init__()
        self.folder, self.config, self.graph = folder, config, _compile(folder, config)
        self.digest = hashlib.sha256((folder / NUMBERS).read_bytes() + (folder / GRAPH).read_bytes()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.config), {"training": self.training}

    def save_pretrained(self, target: str, **_: Any) -> None:
        """Copy the graph and write the configuration, as sentence-transformers asks for it."""
        Path(target).mkdir(parents=True, exist_ok=True)
        for name in (GRAPH, NUMBERS, ABOUT):
            with suppress(shutil.SameFileError):  # saved onto its own folder
                shutil.copyfile(self.folder / name, Path(target, name))
        self.config.save_pretrained(target)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> LusiferOutput:
        """Embed ids (B, L): the embedding (B, d), float32, not normalised; other arguments are ignored.

        Raises:
            UsageError: A text has more tokens than the backbones have positions.
        """
        longest = self.config.max_position_embeddings
        if input_ids.shape[1] > longest:
            raise UsageError(f"a text of {input_ids.shape[1]} tokens, and the backbones read {longest}")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        ids, mask = right_padded(input_ids, mask)
        found = self.graph({"input_ids": ids.cpu().numpy(), "attention_mask": mask.cpu().numpy()})[0]
        return LusiferOutput(torch.from_numpy(found.copy()))  # the array belongs to the next call


def load(
    folder: Path, device: str | None = None, *, vectors_only: bool = False, **wishes: object
) -> SentenceTransformer | PlainEmbedder:
    """Load what `lusifer export` wrote; of the wishes of `folder.load` only the device "cpu" can be met.

    Raises:
        ModelFolderError: A file is missing or damaged.
        MissingExtraError: OpenVINO is not installed.
        UsageError: A device, number format or attention is asked for.
    """
    asked = [*wishes] if device in (None, "cpu") else [*wishes, "device"]
    if asked:
        only = "an int8 model runs on the processor only and has one number format"
        raise UsageError(f"{folder}: {only}: leave {', '.join(asked)} out")
    files, config, tokenizer = read(folder)
    model = Int8Model(folder.resolve(), config)
    saved, normalize = files["config_sentence_transformers.json"], files[ABOUT]["normalize"]
    prompts, default = saved.get("prompts"), saved.get("default_prompt_name")
    limit = min(files[ABOUT]["max_seq_length"], tokenizer.model_max_length)  # a copy may read less
    if vectors_only:
        tokenizer.model_max_length = limit
        return PlainEmbedder(model, tokenizer, normalize=normalize, prompts=prompts, default_prompt_name=default)
    from lusifer.embedder.assemble import assemble

    embedder = assemble(model, tokenizer, prompts=prompts, max_seq_length=limit, normalize=normalize)
    embedder.default_prompt_name = default
    return embedder.eval()


def read(folder: Path) -> tuple[dict[str, dict[str, Any]], LusiferConfig, PreTrainedTokenizerBase]:
    """What lies in a folder beside the graph: what its JSON files say, by name, the configuration and the tokenizer.

    Raises:
        ModelFolderError: A file is missing or damaged.
    """
    files = check_int8(folder)
    try:
        config = LusiferConfig.from_dict(files["config.json"])
    except ValueError as error:
        raise ModelFolderError(f"{folder / 'config.json'}: {error}; {EXPORT_ADVICE}") from error
    except (TypeError, AttributeError, KeyError) as error:
        words = f"makes no model ({type(error).__name__}: {error}); {EXPORT_ADVICE}"
        raise ModelFolderError(f"{folder / 'config.json'}: {words}") from error
    return files, config, plain.tokenizer(folder, PreTrainedTokenizerFast, EXPORT_ADVICE)


def _compile(folder: Path, config: LusiferConfig) -> Any:
    openvino = extras.need("int8", "openvino")
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Without it the numbers between the products are bfloat16 where the processor has it.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        graph = openvino.Core().compile_model(folder / GRAPH, "CPU", settings)
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line and not line.startswith(("Exception from", "Check"))]
        words = f"damaged, or {NUMBERS} beside it is ({next(iter(lines), 'no reason given')})"
        raise ModelFolderError(f"{folder / GRAPH}: {words}; {EXPORT_ADVICE}") from error
    names = {name for port in graph.inputs for name in port.get_names()}
    size, wanted = str(graph.outputs[0].partial_shape[-1]), str(config.hidden_size)
    if not {"input_ids", "attention_mask"} <= names or size != wanted:
        words = f"reads {sorted(names)}, gives vectors of {size}: expected input_ids, attention_mask and {wanted}"
        raise ModelFolderError(f"{folder / GRAPH}: {words}; {EXPORT_ADVICE}")
    return graph


class _Vector(nn.Module):
    """What is traced: ids and mask in, the embedding out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids, attention_mask).embedding


def sample(rows: Iterable[tuple[str, str]], name: str) -> list[str]:
    """The first texts of a file of that name, whose rows are (place, text).

    Raises:
        DataError: There are too few to take scales from.
    """
    texts = [text for _, text in islice(rows, SAMPLES)]
    if len(texts) < FEWEST:
        raise DataError(f"{name}: {len(texts)} texts, and scales need {FEWEST} to {SAMPLES}: give a longer file")
    return texts


def export(embedder: SentenceTransformer, target: str | os.PathLike[str], texts: Sequence[str]) -> None:
    """Write an int8 copy of a model, whole or not at all, in place of an old folder; `lusifer.load` reads it.

    The model is on the processor, in float32 and without adapters afterwards (they are merged). `texts` are a few
    hundred of the kind that will be embedded; English will do for a model trained on English.

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
        # Its own: on another processor they may be as far off as those of a model in half precision.
        golden.write(load(temporary, vectors_only=True), temporary, half=True)


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
