"""A model in whole numbers: a folder whose weights OpenVINO runs on a processor. `lusifer.serving.export` writes it.

The folder holds the same tokenizer, prompts and settings as the one it was made from, and in place of safetensors the
graph in OpenVINO's format (https://docs.openvino.ai): XML and plain numbers, no code.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import PreTrainedTokenizerFast

from lusifer import extras
from lusifer.embedder.assemble import assemble
from lusifer.errors import ModelFolderError, UsageError
from lusifer.io.jsonfile import read_json
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferOutput

GRAPH, NUMBERS, ABOUT = "openvino_model.xml", "openvino_model.bin", "export.json"
MEND = "export the model again"


class Int8Model(nn.Module):
    """The graph behind the same call as `LusiferModel`; it has no tensors of its own and lives on the processor.

    Args:
        graph: The compiled model of OpenVINO.
        config: Of the model that was exported.
        digest: Names the numbers: there are no tensors here from which to tell two exports apart.
    """

    device = torch.device("cpu")

    def __init__(self, graph: Any, config: LusiferConfig, digest: str) -> None:
        super().__init__()
        self.graph, self.config, self.digest = graph, config, digest

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
        found = self.graph({"input_ids": input_ids.cpu().numpy(), "attention_mask": mask.cpu().numpy()})[0]
        return LusiferOutput(torch.from_numpy(found.copy()))  # the array belongs to the next call


def is_int8(folder: Path) -> bool:
    """Whether a folder is one of these."""
    return (folder / ABOUT).is_file()


def load(folder: Path, device: str | None = None, **wishes: object) -> SentenceTransformer:
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
    files = check(folder)
    openvino = extras.need("int8", "openvino")
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Without it the numbers between the products are bfloat16 where the processor has it.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        graph = openvino.Core().compile_model(folder / GRAPH, "CPU", settings)
    except RuntimeError as error:
        first = next(iter(str(error).splitlines()), "")
        raise ModelFolderError(f"{folder / GRAPH}: damaged ({first}); {MEND}") from error
    digest = hashlib.sha256((folder / NUMBERS).read_bytes() + (folder / GRAPH).read_bytes()).hexdigest()
    saved = files["config_sentence_transformers.json"]
    embedder = assemble(
        Int8Model(graph, LusiferConfig.from_dict(files["config.json"]), digest),
        PreTrainedTokenizerFast.from_pretrained(folder),
        prompts=saved.get("prompts"),
        max_seq_length=files[ABOUT]["max_seq_length"],
        normalize=files[ABOUT]["normalize"],
    )
    embedder.default_prompt_name = saved.get("default_prompt_name")
    return embedder.eval()


def check(folder: Path) -> dict[str, dict[str, Any]]:
    """Refuse a folder that is not whole; give what its JSON files say, by name.

    Raises:
        ModelFolderError: Names the file.
    """
    for name in (GRAPH, NUMBERS, "tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder / name}: missing; {MEND}")
    names = ("config.json", "config_sentence_transformers.json", ABOUT)
    files = {name: read_json(folder / name, MEND, ModelFolderError, dict) for name in names}
    for key in ("max_seq_length", "normalize"):
        if key not in files[ABOUT]:
            raise ModelFolderError(f"{folder / ABOUT}: no {key} in it; {MEND}")
    return files
