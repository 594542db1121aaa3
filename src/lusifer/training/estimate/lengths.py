"""The lengths of the texts of local files: in tokens if the tokenizers are on this machine, else from characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lusifer.data import pairs
from lusifer.data import sources as data_sources
from lusifer.errors import LusiferError
from lusifer.io import hub, names
from lusifer.io.rows import BadRows
from lusifer.io.tokenizer_files import CONFIG, TOKENIZER_FILES
from lusifer.model import build
from lusifer.model.bases import tokenizer as tokenizers
from lusifer.prompts import prompt, table

if TYPE_CHECKING:
    from lusifer.training.recipe.data import Source
    from lusifer.training.recipe.recipe import BaseSettings, Recipe, Stage

CHARACTERS_PER_TOKEN = 4  # English prose under a subword tokenizer, roughly
LOOK = 1000
"""The number of rows whose texts are read, at most, of all files of a source together."""
_MOST = 64  # characters of a text that are tokenized, for each token that is read


@dataclass(frozen=True)
class Lengths:
    """The lengths of the texts of a source.

    Args:
        rows: The number of rows that were read.
        texts: The number of texts of a row.
        tokens: The mean number of tokens of a text that the encoder reads.
        cut: The share of texts that are truncated.
        target: The mean number of tokens of a text for the LLM; None if its tokenizer is not at hand or not needed.
        counted: Whether `tokens` and `cut` are counted with the encoder's tokenizer, not estimated from characters.
    """

    rows: int
    texts: float
    tokens: float
    cut: float
    target: float | None
    counted: bool


def read(recipe: Recipe, stage: Stage, source: Source, files: Sequence[Path]) -> Lengths:
    """Read the first rows of the files of a source.

    Args:
        recipe: The recipe.
        stage: The stage.
        source: The source.
        files: Its files.

    Raises:
        DataError: One of the rows is bad.
    """
    rows, length = list(_rows(source, files)), recipe.longest(stage)
    texts = [text for row in rows for text in row]
    number, share = max(len(texts), 1), len(texts) / max(len(rows), 1)
    encoder = at_hand(recipe.model.encoder, "encoder") if texts else None
    if encoder is None:
        long = sum(len(text) > length * CHARACTERS_PER_TOKEN for text in texts)
        tokens = min(float(length), sum(map(len, texts)) / number / CHARACTERS_PER_TOKEN + 2)
        return Lengths(len(rows), share, tokens, long / number, None, counted=False)
    counts = _counts(encoder, texts, length)
    predicts, reads = (any(getattr(each, key) for each in stage.passes) for key in ("predicts", "teacher"))
    llm, own = at_hand(recipe.model.llm, "llm") if predicts or reads else None, None
    if llm is not None:
        own = _mean(_counts(llm, texts, length, predicts), length)
    cut = sum(count > length for count in counts) / number
    return Lengths(len(rows), share, _mean(counts, length), cut, own, counted=True)


def _rows(source: Source, files: Sequence[Path]) -> Iterator[list[str]]:
    """Yield the texts of each of the first rows, with the prompt of a pair that trains; as many rows of each file."""
    each, tasks = max(1, LOOK // len(files)), table()
    for file in files[:LOOK]:
        rows = data_sources.read_file(file, source.row_kind, source.fields, BadRows(source.skip_bad))
        for number, row in enumerate(islice(rows, each)):
            if source.row_kind != "pairs":
                yield [row["text"]]
            elif not hasattr(source, "instruction"):  # an alignment stage, which reads no negatives
                yield [row["query"], *row["positive"][:1]]
            else:
                instruction, symmetric = pairs.instruction_of(
                    number, row.get("task"), row.get("instruction"), source, tasks
                )
                before = prompt(instruction, "document", symmetric=symmetric)
                documents = [before + text for text in (*row["positive"][:1], *row["negative"])]
                yield [prompt(instruction, "query") + row["query"], *documents]


def _counts(tokenizer: Any, texts: list[str], length: int, predicted: bool = False) -> list[int]:
    """Count the tokens of each text, special tokens included; a predicted text has BOS and EOS around it."""
    short = [text[: length * _MOST] for text in texts]
    ids = tokenizer(short, verbose=False, return_attention_mask=False, add_special_tokens=not predicted)["input_ids"]
    around = (tokenizer.bos_token_id is not None) + (tokenizer.eos_token_id is not None) if predicted else 0
    return [len(each) + around for each in ids]


def _mean(counts: list[int], length: int) -> float:
    return sum(min(count, length) for count in counts) / len(counts)


def at_hand(base: BaseSettings, backbone: str) -> Any | None:
    """Read the tokenizer of a base without the network; None if it is not on this machine, or cannot be read fast.

    Args:
        base: The settings of the base.
        backbone: "encoder" or "llm".
    """
    return _read(base.path, base.revision, backbone)


@lru_cache(maxsize=4)
def _read(path: str, revision: str | None, backbone: str) -> Any | None:
    try:
        found = str(build.TINY / backbone) if names.is_tiny(path) else names.base(path)
        if names.base_file(found) == "gguf":  # takes up to half a minute
            return None
        if not Path(found).exists():
            folder = hub.cached(found, [*TOKENIZER_FILES, CONFIG, "config.json"], revision)
            if folder is None:
                return None
            found = str(folder)
        return tokenizers.read_tokenizer(found)
    except LusiferError:  # a run reports what is wrong with it
        return None
