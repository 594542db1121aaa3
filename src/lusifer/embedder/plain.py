"""A LUSIFER model that only embeds, for the commands and the server, without sentence-transformers.

Importing sentence-transformers also imports scikit-learn, pandas, datasets and trainers, which takes longer than
embedding hundreds of texts. The vectors are the same to the bit (`tests/embedder/test_plain.py`). In Python,
`lusifer.load` returns a `SentenceTransformer`.
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
from lusifer.model.adapters import BACKBONES
from lusifer.model.bases.backbones import cast_weights
from lusifer.model.lusifer import LusiferModel


class PlainEmbedder:
    """The attributes and methods of a `SentenceTransformer` that embedding needs, on the CPU.

    Args:
        model: A module that maps ids and mask (B, L) to an output with `embedding` (B, d).
        tokenizer: Its tokenizer. `model_max_length` is the maximum number of tokens of a text.
        normalize: Whether to scale vectors to length 1.
        prompts: Prompt name -> prefix.
        default_prompt_name: The prompt of a text if none is given.
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
        """The maximum number of tokens of a text, prompt and special tokens included; longer texts are truncated."""
        return self.tokenizer.model_max_length

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, prompt: str | None = None, **_: Any) -> np.ndarray:
        """Embed texts as one batch. Other arguments of `SentenceTransformer.encode` are ignored.

        Args:
            texts: n texts.
            prompt: The prefix of every text. None takes the default prompt of the model.

        Returns:
            Vectors (n, d), float32, in the order of the texts.
        """
        if prompt is None and self.default_prompt_name is not None:
            prompt = self.prompts[self.default_prompt_name]
        # The order of sentence-transformers: in another one the last bit may differ.
        order = np.argsort([-len(text) for text in texts])
        read = [(prompt or "") + texts[row] for row in order]
        features = self.tokenizer(read, padding=True, truncation="longest_first", return_tensors="pt")
        vectors = self.model(**features).embedding
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors, p=2, dim=-1)
        return vectors[np.argsort(order)].numpy()


def tokenizer(folder: Path, kind: Any = AutoTokenizer, advice: str = contents.ADVICE) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder.

    Args:
        folder: The model folder.
        kind: The tokenizer class.
        advice: The end of an error message.

    Raises:
        ModelFolderError: The tokenizer is damaged.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises a bare Exception
        said = tokenizer_files.fault(folder, advice)
        words = f"damaged, no tokenizer ({type(error).__name__}: {next(iter(str(error).splitlines()), '')}); {advice}"
        raise ModelFolderError(said or f"{folder / tokenizer_files.CONFIG}: {words}") from error


def refuse_unread(folder: Path, model: LusiferModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse special tokens without a row in the encoder's embedding: on a GPU the first text would kill the process.

    transformers adds a special token that the vocabulary lacks after the end of the vocabulary.

    Args:
        folder: The model folder, for the error message.
        model: The model.
        tokenizer: Its tokenizer.

    Raises:
        ModelFolderError: There is such a token.
    """
    rows = model.encoder.get_input_embeddings().num_embeddings
    for word, number in zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True):
        if number is None or number >= rows:
            said = f"damaged, its special token {word!r} has the id {number}, and the encoder has {rows:,} rows"
            raise ModelFolderError(f"{folder / tokenizer_files.CONFIG}: {said}; {contents.ADVICE}")


def _drop_word_embeddings(llm: torch.nn.Module) -> None:
    """Drop the word embeddings of an LLM, which reads the output of the connector and no tokens."""
    llm.set_input_embeddings(torch.nn.Identity())


def load(
    folder: Path, model: LusiferModel, dtype: str | None = None, bases: Mapping[str, str] | None = None
) -> PlainEmbedder:
    """Load a folder for which `contents.is_plain` is true.

    Args:
        folder: The folder, which was checked: every tensor is there.
        model: A model of its configuration on the CPU. The weights are read into it.
        dtype: The dtype of both backbones. None keeps the dtype of the files.
        bases: As for `folder.load`.

    Raises:
        ModelFolderError: The tokenizer is damaged, or a base of a delta is missing or has changed.
    """
    files = weights.files(folder, contents.ADVICE)
    _drop_word_embeddings(model.llm)  # before they are read
    if model.config.bases:
        tensors = weights.tensors(files, contents.ADVICE)
        delta.load(model.with_backbones, model.config, tensors, where=str(folder), paths=bases, made=model)
        _drop_word_embeddings(model.llm)  # it may be a new one
    for file in files if not model.config.bases else ():
        model.load_state_dict(load_file(file), strict=False)
    for backbone in BACKBONES if dtype else ():
        cast_weights(getattr(model, backbone), getattr(torch, dtype))
    saved, found = contents.read(folder / "config_sentence_transformers.json"), tokenizer(folder)
    refuse_unread(folder, model, found)
    return PlainEmbedder(
        model,
        found,
        normalize=len(contents.read(folder / "modules.json")) > 1,
        prompts=saved.get("prompts"),
        default_prompt_name=saved.get("default_prompt_name"),
    )
