"""A model of ours that embeds and does nothing else: what `lusifer embed` needs, without sentence-transformers.

Importing the library brings scikit-learn, pandas, datasets and trainers along, which takes longer than embedding
hundreds of texts. The vectors are the same to the bit (`tests/embedder/test_plain.py`); whoever has a model in Python
gets the library's class, with all that it can do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lusifer.embedder import contents
from lusifer.errors import ModelFolderError
from lusifer.io import tokenizer_files, weights
from lusifer.model import delta
from lusifer.model.adapters import TOWERS
from lusifer.model.bases.backbones import cast_weights
from lusifer.model.lusifer import LusiferModel


class PlainEmbedder:
    """The part of a `SentenceTransformer` that embedding takes, under its names; on the processor.

    Args:
        model: Text ids and mask in, `embedding` (B, d) out.
        tokenizer: Its tokenizer; `model_max_length` is the most tokens of a text.
        normalize: Whether vectors get length 1.
        prompts: Prompt name -> prefix.
        default_prompt_name: Which of them stands before a text where nothing is said.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        normalize: bool,
        prompts: dict[str, str] | None = None,
        default_prompt_name: str | None = None,
    ) -> None:
        self.model, self.tokenizer, self.normalize = model.eval(), tokenizer, normalize
        self.prompts = {"query": "", "document": ""} | (prompts or {})
        self.default_prompt_name = default_prompt_name

    @property
    def max_seq_length(self) -> int:
        """The most tokens of a text, prompt and special tokens included; what is longer is cut."""
        return self.tokenizer.model_max_length

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, prompt: str | None = None, **_: Any) -> np.ndarray:
        """Embed texts as one batch: (n, d), float32, in order. Other arguments of the library's are ignored.

        `prompt` stands before every text; None takes the model's default.
        """
        if prompt is None and self.default_prompt_name is not None:
            prompt = self.prompts[self.default_prompt_name]
        order = np.argsort([-len(text) for text in texts])  # the library's: in another order the last bit may differ
        read = [(prompt or "") + texts[row] for row in order]
        features = self.tokenizer(read, padding=True, truncation="longest_first", return_tensors="pt")
        vectors = self.model(**features).embedding
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors, p=2, dim=-1)
        return vectors[np.argsort(order)].numpy()


def tokenizer(folder: Path, kind: Any = AutoTokenizer, advice: str = contents.ADVICE) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, of the class `kind`; `advice` is the end of the message where it is damaged.

    Raises:
        ModelFolderError: It is damaged.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises nothing more special
        said = tokenizer_files.fault(folder, advice)
        words = f"damaged, no tokenizer ({type(error).__name__}: {next(iter(str(error).splitlines()), '')}); {advice}"
        raise ModelFolderError(said or f"{folder / tokenizer_files.CONFIG}: {words}") from error


def refuse_unread(folder: Path, model: LusiferModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse special tokens that the encoder has no rows for: on a GPU the first text would kill the process.

    Raises:
        ModelFolderError: There are such: transformers adds those that the vocabulary has not behind its end.
    """
    rows = model.encoder.get_input_embeddings().num_embeddings
    for word, number in zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True):
        if number is None or number >= rows:
            said = f"damaged, its special token {word!r} is number {number}, and the encoder has {rows:,}"
            raise ModelFolderError(f"{folder / tokenizer_files.CONFIG}: {said}; {contents.ADVICE}")


def load(
    folder: Path, model: LusiferModel, dtype: str | None = None, bases: Mapping[str, str] | None = None
) -> PlainEmbedder:
    """Load a folder that `contents.is_plain`.

    Args:
        folder: It was checked: every tensor is there.
        model: What its configuration says, on the processor, with any numbers; they are read into it.
        dtype: Number format of both backbones; None is the one they were saved in.
        bases: As for `folder.load`.

    Raises:
        ModelFolderError: The tokenizer is damaged, or a base of a delta is not to be had or another one.
    """
    files = weights.files(folder, contents.ADVICE)
    if model.config.bases:
        tensors = weights.tensors(files, contents.ADVICE)
        delta.load(model.with_towers, model.config, tensors, where=str(folder), paths=bases, made=model)
    for file in files if not model.config.bases else ():
        model.load_state_dict(load_file(file), strict=False)
    for tower in TOWERS if dtype else ():
        cast_weights(getattr(model, tower), getattr(torch, dtype))
    saved, found = contents.read(folder / "config_sentence_transformers.json"), tokenizer(folder)
    refuse_unread(folder, model, found)
    return PlainEmbedder(
        model,
        found,
        normalize=len(contents.read(folder / "modules.json")) > 1,
        prompts=saved.get("prompts"),
        default_prompt_name=saved.get("default_prompt_name"),
    )
