"""Read the authors' checkpoints (https://github.com/hieum98/lusifer, Hieuman/LUSIFER on the hub).

Their folder is what `PyTorchModelHubMixin` writes: the constructor's arguments in config.json and one state dict with
adapters, LM head and an unused pooler in it, the backbones' weights included. Of the backbones only the configuration
and the tokenizer are needed from elsewhere; their names may be private or relative paths.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, processors
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lusifer.errors import ModelFolderError, UsageError
from lusifer.io import hub
from lusifer.model import adapters
from lusifer.model.build import Base, read_config
from lusifer.model.config import LusiferConfig
from lusifer.model.lusifer import LusiferModel
from lusifer.model.published.files import NAMES, TYPES, Adapters, locate, read_settings, read_tensors, sort_tensors
from lusifer.model.tokenizer import read_tokenizer
from lusifer.prompts import Role

# Public bases of private ones, by backbone type, rows and width of the word embeddings: only those where the
# three leave no doubt about what weights do not tell (heads, rotary base).
PUBLIC = {
    ("xlm-r", 250002, 768): "FacebookAI/xlm-roberta-base",
    ("xlm-r", 250002, 1024): "FacebookAI/xlm-roberta-large",
    ("mistral", 32768, 4096): "mistralai/Mistral-7B-Instruct-v0.3",
}


class Published(NamedTuple):
    """A checkpoint as read: `lm_head` is None where it holds none, `settings` as `read_settings` gives them."""

    model: LusiferModel
    tokenizer: PreTrainedTokenizerBase
    lm_head: nn.Linear | None
    settings: dict[str, Any]


def read(
    source: str | Path,
    *,
    compat: bool = False,
    merged: bool = True,
    encoder: str | None = None,
    llm: str | None = None,
) -> Published:
    """Read a checkpoint in the authors' format.

    Args:
        source: folder or hub name.
        compat: reproduce the published arithmetic: soft tokens behind a padding to a multiple of 8, special tokens of
            the text format written into the text. Off, a vector depends on nothing but its text.
        merged: fold the adapters into the weights, in float32; False leaves them attached, trainable.
        encoder: folder or hub name of the encoder's configuration and tokenizer, if its name in the checkpoint is of
            no use.
        llm: likewise, the LLM's configuration.

    Returns:
        The model in evaluation mode (backbones in the checkpoint's dtype, those with merged adapters, connector and
        projection in float32), the encoder's tokenizer, the frozen LM head and the settings.

    Raises:
        UsageError: the configuration of a backbone cannot be had.
        ModelFolderError: `source` is no such checkpoint, or tensors are missing, unknown or of another shape.
    """
    folder = locate(source)
    settings = read_settings(folder)
    tensors, lora, lm_head = sort_tensors(read_tensors(folder), settings["connection_type"])
    check_ranks(lora, settings, folder)
    vocabularies = {tower: word_embeddings(tower, tensors, folder).shape for tower in adapters.TOWERS}
    bases = {
        tower: find_base(settings, tower, given, folder, vocabularies[tower])
        for tower, given in (("encoder", encoder), ("llm", llm))
    }
    towers = {tower: read_config(base, tower) for tower, base in bases.items()}
    for tower, config in towers.items():
        config.vocab_size = vocabularies[tower][0]  # the authors add special tokens to some
    config = LusiferConfig(
        **towers,
        connector_type=settings["connection_type"],
        num_soft_tokens=settings["num_added_tokens"],
        pooling=settings["pooling_method"],
        # Trained with the instruction inside the mean (their prompt_length is computed and never used): leaving it out
        # would be another model than the one that was trained.
        include_prompt=True,
        soft_token_position="padding" if compat else "text",
        pad_to_multiple_of=8 if compat else None,
    )
    if merged:
        merge(tensors, lora, settings)
    model = fill(config, tensors, folder)
    if not merged:
        attach(model, lora, settings)
    reader = published_tokenizer if compat else read_tokenizer
    return Published(model.eval(), reader(bases["encoder"].path), make_head(lm_head), settings)


def published_prompt(instruction: str | None, role: Role, bos: str = "<s>") -> str:
    r"""The published prefix of a text: `<s>{instruction}.\n`, of a candidate `<s>{instruction}. Candidate:\n`.

    Args:
        instruction: with its full stop, if it has one ("..": that is how the model was trained); None leaves the
            place empty, as published.
        role: "query" or "document"; a document of a symmetric task is a query here, as in the published evaluation.
        bos: the tokenizer's first token, "" where it has none (T5).
    """
    return f"{bos}{instruction or ''}.{' Candidate:' if role == 'document' else ''}\n"


def published_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The encoder's tokenizer as the published code uses it: `<s>` stands in the text, `</s>` is put behind it.

    Special tokens that a text spells are special tokens. Other than published, a text that is too long keeps its
    `</s>`.

    Args:
        path: folder or hub name.

    Raises:
        UsageError: there is no tokenizer at `path`.
    """
    with hub.asking(f"{path}: no tokenizer there", UsageError):
        own = AutoTokenizer.from_pretrained(path, revision=hub.commit(path))
    backend = Tokenizer.from_str(own.backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {own.eos_token}", special_tokens=[(own.eos_token, own.eos_token_id)]
    )
    # The plain class: XLMRobertaTokenizer would rebuild its post-processor when it is loaded.
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        padding_side="right",
        model_max_length=own.model_max_length,
        model_input_names=["input_ids", "attention_mask"],
        **own.special_tokens_map,
    )


def find_base(settings: dict[str, Any], tower: str, given: str | None, folder: Path, words: torch.Size) -> Base:
    """Where a backbone's configuration and tokenizer can be read; `words` is the shape of its word embeddings.

    Tried in order: what the user gave, the checkpoint's name for it (as a path from here, from the checkpoint, from its
    parent; as a hub name), the public base that the weights fit.

    Raises:
        UsageError: none can be read; the message says which option to pass.
    """
    if given is not None:
        return Base(given)
    name = settings[NAMES[tower]]
    for root in (Path(), folder, folder.parent):
        if (root / name / "config.json").is_file():
            return Base(str((root / name).resolve()))
    reasons = []
    for candidate in dict.fromkeys((name, PUBLIC.get((settings[TYPES[tower]], *words), name))):
        try:
            read_config(Base(candidate), tower)
            return Base(candidate)
        except UsageError as error:
            reasons.append(str(error))
    raise UsageError(
        f"the checkpoint's {tower} is named {name!r}, and its configuration cannot be read ({reasons[0]}); "
        f"pass --{tower} with a folder or hub name that has its configuration and tokenizer"
    )


def word_embeddings(tower: str, tensors: dict[str, torch.Tensor], folder: Path) -> torch.Tensor:
    """The word embeddings of a tower, (vocabulary, width).

    Raises:
        ModelFolderError: there are none.
    """
    ends = ("word_embeddings.weight", "embed_tokens.weight", "tok_embeddings.weight")
    for key, tensor in tensors.items():
        if key.startswith(f"{tower}.") and key.endswith(ends):
            return tensor
    raise ModelFolderError(f"{folder}: the weights of the {tower} are missing; fetch the checkpoint again")


def check_ranks(lora: Adapters, settings: dict[str, Any], folder: Path) -> None:
    """Refuse adapters of another rank than config.json says: their scale, alpha / rank, would be a guess.

    Raises:
        ModelFolderError: names a layer.
    """
    for name, (down, up) in lora.items():
        if not down.shape[0] == up.shape[1] == settings["loar_r"]:
            raise ModelFolderError(
                f"{folder}: the adapter of {name} has rank {down.shape[0]}, config.json says "
                f"loar_r={settings['loar_r']}"
            )


def merge(tensors: dict[str, torch.Tensor], lora: Adapters, settings: dict[str, Any]) -> None:
    """Fold adapters into the plain weights, in place; such a tower becomes float32: bfloat16 would round them away."""
    scale = settings["lora_alpha"] / settings["loar_r"]
    towers = {name.partition(".")[0] for name in lora}
    for name, tensor in tensors.items():
        if name.partition(".")[0] in towers and tensor.is_floating_point():
            tensors[name] = tensor.float()
    for name, (down, up) in lora.items():
        plain = tensors[f"{name}.weight"]
        tensors[f"{name}.weight"] = plain + scale * (up.float() @ down.float())


def fill(config: LusiferConfig, tensors: dict[str, torch.Tensor], folder: Path) -> LusiferModel:
    """A model that holds exactly these tensors; nothing is allocated or initialised beside them.

    Raises:
        ModelFolderError: tensors are missing, unknown or of another shape.
    """
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):  # buffers (rotary frequencies) are in no checkpoint
        model = LusiferModel(config)
    wanted = model.state_dict()
    problems = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - wanted.keys()),
        "of another shape": sorted(k for k in wanted.keys() & tensors.keys() if wanted[k].shape != tensors[k].shape),
    }
    found = [f"{len(keys)} {what} ({', '.join(keys[:3])})" for what, keys in problems.items() if keys]
    if found:
        raise ModelFolderError(
            f"{folder}: the weights do not fit the backbones' configurations: tensors {'; '.join(found)}; "
            "pass --encoder or --llm with the bases that the checkpoint was trained from"
        )
    for key, tensor in tensors.items():
        if not key.startswith(("encoder.", "llm.")):
            tensors[key] = tensor.float()
    model.load_state_dict(tensors, assign=True)
    return model


def attach(model: LusiferModel, lora: Adapters, settings: dict[str, Any]) -> None:
    """Put the checkpoint's adapters on both towers, unmerged."""
    for tower in adapters.TOWERS:
        layers = [name.removeprefix(f"{tower}.") for name in lora if name.startswith(f"{tower}.")]
        if layers:
            adapters.attach(
                model, tower, settings["loar_r"], settings["lora_alpha"], settings.get("dropout", 0.0), layers
            )
    with torch.no_grad():
        for name, (down, up) in lora.items():
            layer = model.get_submodule(name)
            layer.lora_A["default"].weight.copy_(down)
            layer.lora_B["default"].weight.copy_(up)


def make_head(weight: torch.Tensor | None) -> nn.Linear | None:
    """The frozen LM head (vocabulary x d) as a layer."""
    if weight is None:
        return None
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    head.weight = nn.Parameter(weight, requires_grad=False)
    return head
