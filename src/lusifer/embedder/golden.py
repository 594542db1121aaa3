"""Golden vectors: what a model made of a few texts when its folder was written, to see whether it still does.

They tell another base, tokenizer or library that counts in another way, which a digest of the folder cannot.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lusifer.embedder import contents
from lusifer.errors import ModelFolderError
from lusifer.io.files import read_json, write_file
from lusifer.model.probes import Probe, distance

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FILE = "golden.json"
TEXTS = (
    "Where is the station?",
    "¿Dónde está la estación?",
    "Вода закипает при ста градусах, но в горах раньше.",
    "水从山上流下来。",
    "駅はどこですか。",
    "نمت القرية حول بئر قديمة.",
    "नदी के किनारे एक पुराना पेड़ खड़ा है।",
    "Mji ulikua haraka baada ya reli kufika.",
    "తెలుగు భాష",
)
FARTHEST, FARTHEST_IN_HALF = 1e-5, 1e-2
"""Largest cosine distance that another processor explains, where all weights are float32 and where some are in half
precision (`probes.nearly_equal` has the same). Measured from SSE to AVX-512: 1e-8 and 1e-4 (docs/how-to/train.md)."""
_DIGITS = 6


def vectors(embedder: SentenceTransformer, texts: tuple[str, ...] = TEXTS) -> torch.Tensor:
    """Vectors (n, d), float32, on the CPU; one batch, no prompt."""
    found = embedder.encode(
        list(texts), prompt="", batch_size=len(texts), convert_to_tensor=True, show_progress_bar=False
    )
    return found.float().cpu()


def write(embedder: SentenceTransformer, folder: Path) -> None:
    """Write the vectors of a model into its folder; it has the numbers that whoever loads the folder gets."""
    rows = [json.dumps([float(f"{x:.{_DIGITS}g}") for x in row]) for row in vectors(embedder).tolist()]
    about = {"texts": TEXTS, "half": _is_half(embedder)}
    words = json.dumps(about, ensure_ascii=False)[:-1] + ', "vectors": [\n' + ",\n".join(rows) + "\n]}\n"
    with write_file(folder / FILE) as temporary:
        temporary.write_text(words, encoding="utf-8")


def check(embedder: SentenceTransformer, folder: Path) -> Probe:
    """Whether a loaded model still gives the vectors that its folder has."""
    name = "golden vectors"
    if not (folder / FILE).is_file():
        return Probe(f"{name} (not checked)", True, f"no {FILE} in the folder; `lusifer export` writes a copy with it")
    try:
        texts, wanted, half = read(folder)
    except ModelFolderError as error:
        return Probe(name, False, str(error))
    found = vectors(embedder, texts)
    if found.shape != wanted.shape:
        return Probe(name, False, f"{found.shape[1]} numbers a vector, and {wanted.shape[1]} in {FILE}")
    limit = FARTHEST_IN_HALF if half or _is_half(embedder) else FARTHEST
    worst = distance(found, wanted)
    advice = "" if worst < limit else f", over {limit:.0e}: the folder, a base or a library is not what it was"
    return Probe(name, worst < limit, f"largest cosine distance {worst:.1e} over {len(texts)} texts{advice}")


def read(folder: Path) -> tuple[tuple[str, ...], torch.Tensor, bool]:
    """Texts, vectors (n, d) and whether weights were in half precision when they were made.

    Raises:
        ModelFolderError: The file is missing or damaged.
    """
    said = read_json(folder / FILE, contents.ADVICE, ModelFolderError, dict)
    texts = said.get("texts")
    try:
        found = torch.tensor(said.get("vectors"), dtype=torch.float32)
        said_texts = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        whole = bool(texts) and said_texts and found.shape[:-1] == (len(texts),)
    except (TypeError, ValueError, RuntimeError):
        whole = False
    if not whole:
        raise ModelFolderError(f"{folder / FILE}: damaged, no vector for each text; {contents.ADVICE}")
    return tuple(texts), found, bool(said.get("half"))


def _is_half(embedder: SentenceTransformer) -> bool:
    return any(parameter.dtype != torch.float32 for parameter in embedder.parameters())
