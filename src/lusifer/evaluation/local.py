"""The offline suite: SIB-200 files in a folder, no network, a minute or two on two cores.

Two tasks. Zero-shot topics: a logistic regression learns on the vectors of the English train split (701 sentences)
and is tested on each language's dev split (99 sentences). Retrieval: for each dev sentence of a language, is the
nearest of the 99 English dev sentences (cosine) its translation?
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from lusifer import __version__, extras, languages
from lusifer.embedder import folder
from lusifer.errors import DataError, LusiferError, ModelFolderError
from lusifer.evaluation import sib
from lusifer.evaluation.means import Hits, means
from lusifer.folders import write_folder

ENGLISH = "en"
SETTINGS: dict[str, Any] = {
    # C is the default of the library, and mteb's as well; the vectors have length 1, so nothing is scaled.
    "classifier": {"kind": "logistic regression", "C": 1.0, "solver": "lbfgs", "max_iter": 1000},
    "train": "English train split",
    "test": "dev split of each language",
    "retrieval": "cosine, among the English dev split",
    "bootstrap": {"resamples": 2000, "unit": "dev sentence, the same ones in all languages", "interval": 0.95},
}
TOPICS, RETRIEVAL = "sib200_zero_shot", "sib200_retrieval"
METRICS = {TOPICS: "accuracy", RETRIEVAL: "accuracy at 1"}
Progress = Callable[[int, int], None]


def evaluate(
    model: str | os.PathLike[str] | SentenceTransformer,
    data: Path,
    codes: Sequence[str] | None = None,
    *,
    name: str | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a model.

    Args:
        model: A folder or hub name, or the embedder itself.
        data: Folder with the SIB-200 files.
        codes: Languages; None takes the 14 of the paper. English is always read: both tasks start from it.
        name: What to call the model in tables; None takes the folder's name.
        seed: Of the bootstrap.
        device: Where to load a folder; None takes the best one here.
        progress: Called with (languages done, languages) after each.

    Returns:
        The summary, as `write` writes it: model, data, settings, versions, and for each task scores in percent by
        language, missing languages with the reason, and means with their intervals.

    Raises:
        DataError: The English files cannot be read.
        MissingExtraError: scikit-learn is not installed.
    """
    extras.need("eval", "sklearn.linear_model")
    codes = list(dict.fromkeys(codes or [language.code for language in languages.paper()]))
    train, english = (sib.read(sib.file_of(data, ENGLISH, split)) for split in ("train", "dev"))
    embedder = model if isinstance(model, SentenceTransformer) else folder.load(model, device=device)
    classifier = _classifier(_vectors(embedder, train.texts), train.labels)
    pool = _vectors(embedder, english.texts)
    hits: dict[str, dict[str, Hits]] = {TOPICS: {}, RETRIEVAL: {}}
    missing: dict[str, str] = {}
    for done, code in enumerate(codes, start=1):
        try:
            split = english if code == ENGLISH else sib.read(sib.file_of(data, code, "dev"))
            vectors = pool if code == ENGLISH else _vectors(embedder, split.texts)
            hits[TOPICS][code] = dict(
                zip(split.ids, classifier.predict(vectors) == np.array(split.labels), strict=True)
            )
            hits[RETRIEVAL][code] = _retrieved(vectors, split.ids, pool, english.ids)
        except DataError as error:
            missing[code] = str(error)
        if progress is not None:
            progress(done, len(codes))
    return {
        "suite": "offline",
        "model": _identity(model, embedder, name),
        "data": _digests(data, codes),
        "settings": {**SETTINGS, "seed": seed, "prompt": _default_prompt(embedder)},
        "versions": _versions(),
        "tasks": {task: _task(METRICS[task], hits[task], missing, codes, seed) for task in METRICS},
    }


def write(summary: dict[str, Any], output: Path, table: str) -> None:
    """Write `summary.json` and `table.md` into a folder that is replaced as a whole."""
    with write_folder(output) as temporary:
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        (temporary / "summary.json").write_text(text, encoding="utf-8")
        (temporary / "table.md").write_text(table + "\n", encoding="utf-8")


def _vectors(embedder: SentenceTransformer, texts: Sequence[str]) -> np.ndarray:
    """Vectors (n, d) of length 1."""
    vectors = embedder.encode(list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    if not np.isfinite(vectors).all():
        raise LusiferError("the model gives vectors that are not finite; see what `lusifer doctor` says of it")
    return vectors.astype(np.float32, copy=False)


def _classifier(vectors: np.ndarray, labels: Sequence[str]) -> Any:
    """A logistic regression on vectors (n, d) and labels (n)."""
    linear = extras.need("eval", "sklearn.linear_model")
    settings = {key: value for key, value in SETTINGS["classifier"].items() if key != "kind"}
    return linear.LogisticRegression(**settings).fit(vectors, labels)


def _retrieved(vectors: np.ndarray, ids: Sequence[int], pool: np.ndarray, pool_ids: Sequence[int]) -> Hits:
    """For each sentence whose translation is in the pool, whether that is the nearest of the pool."""
    nearest = np.array(pool_ids)[(vectors @ pool.T).argmax(axis=1)]
    known = set(pool_ids)
    return {number: bool(found == number) for number, found in zip(ids, nearest, strict=True) if number in known}


def _task(metric: str, hits: dict[str, Hits], missing: dict[str, str], codes: list[str], seed: int) -> dict[str, Any]:
    """Scores, missing languages and means of one task."""
    groups = {"non_english": [code for code in codes if code != ENGLISH], "all": codes}
    return {
        "metric": metric,
        "unit": "percent",
        "scores": {code: round(100 * float(np.mean(list(row.values()))), 4) for code, row in hits.items()},
        "missing": missing,
        "means": {group: means(hits, members, seed, SETTINGS["bootstrap"]) for group, members in groups.items()},
    }


def _identity(model: object, embedder: SentenceTransformer, name: str | None) -> dict[str, Any]:
    """What was measured: the name is the caller's, the identity that of weights and prompts."""
    path = None if isinstance(model, SentenceTransformer) else Path(os.fspath(model)).expanduser()
    place = path
    if path is not None and not path.is_dir():
        try:
            place = folder.fetch(os.fspath(model))  # a hub name: its files are in the cache by now
        except ModelFolderError:
            place = None
    known = place is not None and any(place.glob("*.safetensors"))
    return {
        "name": name or (path.name if path is not None else "in memory"),
        "identity": folder.identity(place) if known else None,
        "dimension": embedder.get_embedding_dimension(),
        "max_tokens": embedder.max_seq_length,
    }


def _digests(data: Path, codes: Sequence[str]) -> dict[str, str]:
    """SHA-256 of every file that was read."""
    files = [
        sib.file_of(data, ENGLISH, "train"),
        *(sib.file_of(data, code, "dev") for code in dict.fromkeys([ENGLISH, *codes])),
    ]
    return {file.name: sib.digest(file) for file in files if file.is_file()}


def _default_prompt(embedder: SentenceTransformer) -> str:
    """The prefix of every text here: the model's default one, which most models do not have."""
    name = embedder.default_prompt_name
    return embedder.prompts[name] if name else ""


def _versions() -> dict[str, str]:
    """What computed the numbers."""
    packages = ("torch", "transformers", "sentence-transformers", "scikit-learn", "numpy")
    return {"lusifer": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}
