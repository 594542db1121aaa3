"""Golden vectors: vectors of fixed texts, stored when a model folder is written and compared when it is used.

Unlike a digest of the folder, they show when a base, a tokenizer or a library version gives other vectors.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lusifer.embedder import contents
from lusifer.errors import ModelFolderError, Probe
from lusifer.io import hub, names
from lusifer.io.files import read_json, write_file
from lusifer.model.probes import distance

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lusifer.embedder.plain import PlainEmbedder

    Embedder = SentenceTransformer | PlainEmbedder

FILE = "golden.json"
TEXTS = (
    "Where is the station?",
    "The old lighthouse was painted white again last summer, and since then the ferry captains say that they can see "
    "it from far beyond the islands, even when the morning fog has not yet lifted and the lamp is already out; the "
    "keeper, who is paid by the day, would rather have had a new roof.",
    "¿Dónde está la estación?",
    "Вода закипает при ста градусах, но в горах раньше.",
    "Le marché ouvre à huit heures, sauf le lundi.",
    "Con mèo ngủ trên mái nhà.",
    "کتاب را روی میز گذاشتم.",
    "Kapal itu berangkat sebelum matahari terbit.",
    "نمت القرية حول بئر قديمة.",
    "Järvi jäätyy yleensä joulukuussa.",
    "할머니는 아침마다 마당을 쓸었다.",
    "नदी के किनारे एक पुराना पेड़ खड़ा है।",
    "বৃষ্টি থামলে আমরা মাঠে যাব।",
    "తెలుగు భాష",
    "Mji ulikua haraka baada ya reli kufika.",
    "水从山上流下来。",
    "駅はどこですか。",
    "Kal meeting hai, please sab log time par aana.",
    "x = [i**2 for i in range(10)]  # 🙂",
    "a",
)
"""In English, Spanish, Russian, French, Vietnamese, Persian, Indonesian, Arabic, Finnish, Korean, Hindi, Bengali,
Telugu, Swahili, Chinese and Japanese. One mixes two languages, one is code, one is long and one is a single letter."""
FARTHEST, FARTHEST_IN_HALF = 1e-5, 1e-2
"""Largest cosine distance between two processors: with float32 weights, and with half-precision weights.
`probes.nearly_equal` uses the same limits. Measured from SSE to AVX-512: 1e-8 and 1e-4 (docs/how-to/train.md)."""
_DIGITS = 6


def vectors(embedder: Embedder, texts: tuple[str, ...] = TEXTS) -> torch.Tensor:
    """Embed texts in one batch without a prompt.

    Args:
        embedder: The model.
        texts: n texts.

    Returns:
        Vectors (n, d), float32, on the CPU.
    """
    found = embedder.encode(
        list(texts), prompt="", batch_size=len(texts), convert_to_tensor=True, show_progress_bar=False
    )
    return torch.as_tensor(found).float().cpu()


def write(embedder: Embedder, folder: Path, *, half: bool | None = None) -> None:
    """Write the golden vectors of a model into its folder.

    Args:
        embedder: The model, with the weights that the folder has.
        folder: The model folder.
        half: Whether to compare with the limit for half precision later. None decides by the dtype of the weights.
    """
    rows = [json.dumps([float(f"{x:.{_DIGITS}g}") for x in row]) for row in vectors(embedder).tolist()]
    about = {"texts": TEXTS, "half": _is_half(embedder) if half is None else half}
    words = json.dumps(about, ensure_ascii=False)[:-1] + ', "vectors": [\n' + ",\n".join(rows) + "\n]}\n"
    with write_file(folder / FILE) as temporary:
        temporary.write_text(words, encoding="utf-8")


def check(embedder: Embedder, folder: Path) -> Probe:
    """Compare the vectors of a loaded model with the golden vectors of its folder."""
    name = "golden vectors"
    if not (folder / FILE).is_file():
        return Probe(f"{name} (not checked)", True, f"no {FILE} in the folder; `lusifer export` writes a copy with one")
    try:
        texts, wanted, half = read(folder)
    except ModelFolderError as error:
        return Probe(name, False, str(error))
    found = vectors(embedder, texts)
    if found.shape != wanted.shape:
        return Probe(name, False, f"vectors have {found.shape[1]} dimensions, and {wanted.shape[1]} in {FILE}")
    limit = limit_for(embedder, half)
    worst = distance(found, wanted)
    advice = "" if worst < limit else f", over {limit:.0e}: the folder, a base or a library has changed"
    return Probe(name, worst < limit, f"largest cosine distance {worst:.1e} over {len(texts)} texts{advice}")


def farthest(embedder: Embedder, texts: tuple[str, ...], wanted: torch.Tensor) -> float:
    """The largest cosine distance of a model's vectors from `wanted` ones (n, d); infinite where the sizes differ."""
    found = vectors(embedder, texts)
    return max(0.0, distance(found, wanted)) if found.shape == wanted.shape else math.inf


def limit_for(embedder: Embedder, half: bool) -> float:
    """The largest cosine distance from golden vectors that `check` allows; `half` as `read` returns it."""
    return FARTHEST_IN_HALF if half or _is_half(embedder) else FARTHEST


def demand(embedder: Embedder, model: str | os.PathLike[str]) -> Probe:
    """Refuse a loaded model that does not give its golden vectors. Long jobs call this before they embed.

    Args:
        embedder: The model.
        model: The name or path that it was loaded from, as for `lusifer.load`.

    Returns:
        The check that passed. Its name says "not checked" if the folder has no golden vectors.

    Raises:
        ModelFolderError: The difference is larger than between two processors.
    """
    found = names.model(model)
    if names.is_packed(found):
        return Probe("golden vectors (not checked)", True, "a packed file has none")
    probe = check(embedder, found if isinstance(found, Path) else hub.fetch(found, [FILE]))
    if not probe.ok:
        words = "run `lusifer doctor` on it; do not mix these vectors with older ones of this model"
        raise ModelFolderError(
            f"{model}: gives other vectors than when it was written (golden vectors: {probe.detail}); {words}"
        )
    return probe


def read(folder: Path) -> tuple[tuple[str, ...], torch.Tensor, bool]:
    """Read golden.json of a folder.

    Returns:
        The n texts, their vectors (n, d) as float32, and whether the limit for half precision applies.

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
        raise ModelFolderError(f"{folder / FILE}: damaged, not one vector for each text; {contents.ADVICE}")
    return tuple(texts), found, bool(said.get("half"))


def _is_half(embedder: Embedder) -> bool:
    inner = getattr(embedder, "model", embedder)  # a `PlainEmbedder` has no parameters of its own
    return any(parameter.dtype != torch.float32 for parameter in inner.parameters())
