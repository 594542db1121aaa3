"""Read the checkpoints of the paper's authors (https://github.com/hieum98/lusifer, Hieuman/LUSIFER on the Hub).

`PyTorchModelHubMixin` writes their folders: the constructor's arguments in config.json, and one state dict with the
backbones, the adapters, the LM head and an unused pooler (`_NAMES` maps the names of the tensors to ours). Only the
configurations of the backbones and the tokenizer come from elsewhere; their names in config.json may be private or
relative paths.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lusifer.errors import ModelFolderError, UsageError
from lusifer.io import hub, names, weights
from lusifer.io.files import read_json
from lusifer.model import adapters
from lusifer.model.bases.tokenizer import reading
from lusifer.model.build import Base, read_config, read_tokenizer
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferModel
from lusifer.prompts import Role

ADVICE = "fetch the checkpoint again"
FILES = ("config.json", "*.safetensors", weights.INDEX)
# Keys of their config.json: their "universal learner" is our encoder, and their "encoder" is our LLM.
NAMES = {"encoder": "universal_learner_name_or_path", "llm": "encoder_name_or_path"}
TYPES = {"encoder": "universal_learner_backbone_type", "llm": "encoder_backbone_type"}
REQUIRED = (
    *NAMES.values(), *TYPES.values(), "connection_type", "num_added_tokens", "pooling_method", "loar_r", "lora_alpha",
)  # fmt: skip
# The connectors that their constructor can build. Both have layers named `ff`, so tensor names do not tell which.
CONNECTIONS = ("ff", "embedding_table")
Adapters = dict[str, tuple[torch.Tensor, torch.Tensor]]

# Public bases by backbone type and shape of the word embeddings, where these identify the base.
PUBLIC = {
    ("xlm-r", 250002, 768): "FacebookAI/xlm-roberta-base",
    ("xlm-r", 250002, 1024): "FacebookAI/xlm-roberta-large",
    ("mistral", 32768, 4096): "mistralai/Mistral-7B-Instruct-v0.3",
}

_TABLE = "connector.mapping.table"
_NAMES = (
    (r"^universal_learner\.(base_model\.model\.)?", "encoder."),
    (r"^encoder\.(base_model\.model\.)?model\.", "llm."),
    (r"^encoder\.(base_model\.model\.)?lm_head\.", "lm_head."),
    (r"^connection_module\.added_tokens$", "connector.soft_tokens"),
    (r"^connection_module\.", "connector.mapping."),
)
# For an embedding table, tried before the others: the first pattern that matches counts.
_TABLE_NAMES = (
    (r"^connection_module\.ff\.0\.", "connector.mapping.vocabulary."),
    (r"^connection_module\.embedding\.weight$", _TABLE),
)
_LORA = re.compile(r"^(.+)\.lora_([AB])\.[^.]+\.weight$")
_HEAD = "lm_head.weight"
_WORDS = "llm.embed_tokens.weight"
# Tied tensors, of which safetensors stores one.
_TIED = (("encoder.shared.weight", "encoder.encoder.embed_tokens.weight"), (_HEAD, _WORDS))


def rename(key: str, connection_type: str = "ff") -> str:
    """Map the name of a tensor in their format to ours; any other name is returned unchanged.

    Args:
        key: The name in their state dict.
        connection_type: "ff" or "embedding_table".
    """
    for pattern, ours in (*(_TABLE_NAMES if connection_type == "embedding_table" else ()), *_NAMES):
        name, count = re.subn(pattern, ours, key)
        if count:
            return name.replace(".base_layer.", ".")
    return key


def sort_tensors(
    tensors: dict[str, torch.Tensor], settings: dict[str, Any], folder: Path
) -> tuple[dict[str, torch.Tensor], Adapters]:
    """Split a checkpoint's state dict into plain weights and adapters.

    Args:
        tensors: Their state dict.
        settings: From `read_settings`.
        folder: The checkpoint, for the error message.

    Returns:
        Plain weights by our names, and adapters by our name of the layer, as (A (r, in), B (out, r)), each in its own
        dtype. The unused LM head and pooler are left out. An incomplete adapter stays among the weights, where the
        check of names refuses it.

    Raises:
        ModelFolderError: The rank of an adapter differs from config.json, so its scale, alpha / rank, is unknown.
    """
    plain: dict[str, torch.Tensor] = {}
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name = rename(key, settings["connection_type"])
        if name.startswith("encoder.pooler."):
            continue
        adapter = _LORA.match(name)
        if adapter and not name.startswith("lm_head"):
            halves.setdefault(adapter[1], {})[adapter[2]] = tensor
        else:
            plain[name] = tensor
    lora: Adapters = {}
    for layer, half in halves.items():
        if len(half) == 2 and f"{layer}.weight" in plain:
            lora[layer] = (half["A"], half["B"])
            rank = half["A"].shape[0]
            if not rank == half["B"].shape[1] == settings["loar_r"]:
                words = f"has rank {rank}, and config.json has loar_r={settings['loar_r']}"
                raise ModelFolderError(f"{folder}: the adapter of {layer} {words}: {ADVICE}")
        else:
            plain |= {f"{layer}.lora_{side}": tensor for side, tensor in half.items()}
    if _TABLE in plain and _WORDS not in plain:
        # Their table shares the memory of the LLM's word embeddings, so safetensors stores only the table. In our
        # model they are two weights.
        plain[_WORDS] = plain[_TABLE].clone()
    for one, other in _TIED:
        if (one in plain) != (other in plain):
            plain[one] = plain[other] = plain.get(one, plain.get(other))
    plain.pop(_HEAD, None)
    return plain, lora


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the constructor's arguments in config.json, as their constructor interprets them.

    Their constructor builds an `ff` for `attn` without added tokens, and ignores added tokens for an embedding table.

    Raises:
        ModelFolderError: The file is missing, damaged, or not in the authors' format.
    """
    settings = read_json(folder / "config.json", ADVICE, ModelFolderError, dict)
    missing = [key for key in REQUIRED if key not in settings]
    if missing:
        raise ModelFolderError(
            f"{folder / 'config.json'}: no {', '.join(missing)}: give a checkpoint in the authors' format (a model "
            "folder of Lusifer needs no conversion)"
        )
    if settings["connection_type"] == "attn" and settings["num_added_tokens"] == 0:
        settings["connection_type"] = "ff"
    if settings["connection_type"] == "embedding_table":
        settings["num_added_tokens"] = 0
    if settings["connection_type"] not in CONNECTIONS:
        raise ModelFolderError(
            f"{folder / 'config.json'}: connection_type={settings['connection_type']!r} cannot be converted: the "
            f"published code builds only {' and '.join(CONNECTIONS)} ('attn' is one of its options, and builds 'ff' if "
            "num_added_tokens is 0)"
        )
    return settings


class PublishedModel(NamedTuple):
    """A checkpoint that was read; `settings` are those of `read_settings`."""

    model: LusiferModel
    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, Any]


def read(
    source: str | Path, *, compat: bool = False, encoder: str | None = None, llm: str | None = None
) -> PublishedModel:
    """Read a checkpoint in the authors' format.

    Args:
        source: A folder, or an id on the Hub.
        compat: Whether to reproduce the published arithmetic: soft tokens after padding to a multiple of 8, and
            special tokens of the text format written into the text. Otherwise a vector depends on its text alone.
        encoder: A base with the encoder's configuration and tokenizer, if the name in the checkpoint does not work.
        llm: A base with the LLM's configuration, likewise.

    Returns:
        The model in evaluation mode with its adapters attached (backbones in the checkpoint's dtype; adapters,
        connector and projection in float32), the encoder's tokenizer and the settings. The LM head is left out.

    Raises:
        UsageError: The configuration of a backbone cannot be read.
        ModelFolderError: `source` is no such checkpoint, or tensors are missing, unknown or of another shape.
    """
    found = names.model(source)
    folder = found if isinstance(found, Path) else hub.fetch(found, FILES)
    settings = read_settings(folder)
    tensors: dict[str, torch.Tensor] = {}
    for file in weights.files(folder, ADVICE):
        with weights.opened(file, ADVICE) as opened:
            tensors |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    tensors, lora = sort_tensors(tensors, settings, folder)
    bases, configs = {}, {}
    for backbone, given in (("encoder", encoder), ("llm", llm)):
        words = word_embeddings(backbone, tensors, folder).shape
        bases[backbone] = find_base(settings, backbone, given, folder, words)
        configs[backbone] = read_config(bases[backbone], backbone)
        configs[backbone].vocab_size = words[0]  # the authors add special tokens to some
    config = LusiferConfig(
        **configs,
        connector_type=settings["connection_type"],
        num_soft_tokens=settings["num_added_tokens"],
        pooling=settings["pooling_method"],
        soft_token_position="padding" if compat else "text",
        pad_to_multiple_of=8 if compat else None,
    )
    model = fill(config, tensors, folder)
    attach(model, lora, settings)
    reader = published_tokenizer if compat else read_tokenizer
    return PublishedModel(model.eval(), reader(names.base(bases["encoder"].path)), settings)


def published_prompt(instruction: str | None, role: Role, bos: str = "<s>") -> str:
    r"""Make the published prefix of a text: `<s>{instruction}.\n`, or `<s>{instruction}. Candidate:\n` of a document.

    Args:
        instruction: The instruction. A full stop at its end is doubled, as in the training of the published model.
            None leaves its place empty, as published.
        role: "document" or "query". For a symmetric task use "query" for both, as in the published evaluation.
        bos: The tokenizer's first token, "" if it has none (T5).
    """
    return f"{bos}{instruction or ''}.{' Candidate:' if role == 'document' else ''}\n"


def published_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load the encoder's tokenizer as the published code uses it: `<s>` is in the text, `</s>` is added after it.

    Special tokens written in a text are read as special tokens. Unlike in the published code, a truncated text keeps
    its `</s>`. `path` is a folder or an id on the Hub.

    Raises:
        UsageError: There is no tokenizer at `path`.
        LusiferError: A file of it is damaged.
    """
    with reading(path) as commit:
        own = AutoTokenizer.from_pretrained(path, revision=commit, trust_remote_code=False)
        backend = Tokenizer.from_str(own.backend_tokenizer.to_str())
        backend.post_processor = processors.TemplateProcessing(
            single=f"$A {own.eos_token}", special_tokens=[(own.eos_token, own.eos_token_id)]
        )
        # Not XLMRobertaTokenizer, which would rebuild its post-processor when it is loaded.
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            padding_side="right",
            model_max_length=own.model_max_length,
            model_input_names=["input_ids", "attention_mask"],
            **own.special_tokens_map,
        )


def find_base(settings: dict[str, Any], backbone: str, given: str | None, folder: Path, words: torch.Size) -> Base:
    """Find the configuration and tokenizer of a backbone.

    These are tried in order: the user's choice; the name in the checkpoint, as a path (from the current folder, the
    checkpoint, its parent) and as an id on the Hub; the public base that has the shape of the word embeddings.

    Args:
        settings: From `read_settings`.
        backbone: "encoder" or "llm".
        given: The user's choice, or None.
        folder: The checkpoint.
        words: The shape of the word embeddings.

    Raises:
        UsageError: None of them can be read.
    """
    if given is not None:
        return Base(given)
    name = settings[NAMES[backbone]]
    for root in (Path(), folder, folder.parent):
        if (root / name / "config.json").is_file():
            return Base(str((root / name).resolve()))
    reasons = []
    for candidate in dict.fromkeys((name, PUBLIC.get((settings[TYPES[backbone]], *words), name))):
        try:
            read_config(Base(candidate), backbone)
            return Base(candidate)
        except UsageError as error:
            reasons.append(str(error))
    raise UsageError(
        f"the checkpoint's {backbone} is named {name!r}, and its configuration cannot be read ({reasons[0]}): "
        f"pass --{backbone} with a folder or an id on the Hub that has its configuration and tokenizer"
    )


def word_embeddings(backbone: str, tensors: dict[str, torch.Tensor], folder: Path) -> torch.Tensor:
    """Find the word embeddings of a backbone.

    Args:
        backbone: "encoder" or "llm".
        tensors: The plain weights of `sort_tensors`.
        folder: The checkpoint, for the error message.

    Returns:
        (vocabulary, hidden size).

    Raises:
        ModelFolderError: There are none.
    """
    ends = ("word_embeddings.weight", "embed_tokens.weight", "tok_embeddings.weight")
    for key, tensor in tensors.items():
        if key.startswith(f"{backbone}.") and key.endswith(ends):
            return tensor
    raise ModelFolderError(f"{folder}: the weights of the {backbone} are missing; {ADVICE}")


def fill(config: LusiferConfig, tensors: dict[str, torch.Tensor], folder: Path) -> LusiferModel:
    """Make a model of tensors, without allocating other memory.

    Args:
        config: The configuration of the model.
        tensors: Its weights. Connector and projection are cast to float32 in this dictionary.
        folder: The checkpoint, for the error message.

    Raises:
        ModelFolderError: Tensors are missing, unknown or of another shape.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):  # buffers (rotary frequencies) are in no checkpoint
        model = LusiferModel(config)
    wrong = weights.misfit(
        {name: t.shape for name, t in model.state_dict().items()}, {name: t.shape for name, t in tensors.items()}
    )
    if wrong:
        raise ModelFolderError(
            f"{folder}: the weights do not fit the backbones' configurations: tensors {wrong}: "
            "pass --encoder or --llm with the bases that the checkpoint was trained from"
        )
    for key, tensor in tensors.items():
        if not key.startswith(("encoder.", "llm.")):
            tensors[key] = tensor.float()
    model.load_state_dict(tensors, assign=True)
    return model


def attach(model: LusiferModel, lora: Adapters, settings: dict[str, Any]) -> None:
    """Attach the checkpoint's adapters to both backbones, unmerged.

    Args:
        model: The model, changed in place.
        lora: The adapters of `sort_tensors`.
        settings: From `read_settings`.
    """
    for backbone in adapters.BACKBONES:
        layers = [name.removeprefix(f"{backbone}.") for name in lora if name.startswith(f"{backbone}.")]
        if layers:
            adapters.attach(
                model, backbone, settings["loar_r"], settings["lora_alpha"], settings.get("dropout", 0.0), layers
            )
    with torch.no_grad():
        for name, (down, up) in lora.items():
            layer = model.get_submodule(name)
            layer.lora_A["default"].weight.copy_(down)
            layer.lora_B["default"].weight.copy_(up)
