"""The offline suite: SIB-200 and XQuAD files in a folder, no network, a few minutes on two cores.

Zero-shot topics: a logistic regression learns on the vectors of SIB-200's English train split (701 sentences) and is
tested on each language's dev split (99 sentences). Retrieval: is the nearest English sentence (cosine) the translation
- among the 99 of the dev split, and among the first 204 of the train split? XQuAD, where its files are there: is the
paragraph nearest to a question the right one of 240, with questions in a language and paragraphs in English, and the
other way round?
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from lusifer import __version__, extras, languages, seen
from lusifer.embedder import folder
from lusifer.errors import DataError, LusiferError, ModelFolderError
from lusifer.evaluation import sib, xquad
from lusifer.evaluation.means import Measured, means
from lusifer.folders import write_file

ENGLISH = sib.ENGLISH
SETTINGS: dict[str, Any] = {
    "classifier": {"kind": "logistic regression", **sib.CLASSIFIER},
    "train": "SIB-200, English train split",
    "test": "SIB-200, dev split of each language",
    "retrieval": "cosine, among the English dev split, or the first 204 sentences of the train split",
    "xquad": "cosine, among all paragraphs",
    "bootstrap": {"resamples": 2000, "unit": "sentence or question, the same in all languages", "interval": 0.95},
}
METRICS = {
    sib.TOPICS: "accuracy",
    sib.RETRIEVAL: "accuracy at 1",
    sib.RETRIEVAL_LARGE: "accuracy at 1",
    xquad.TO_ENGLISH: "accuracy at 1",
    xquad.FROM_ENGLISH: "accuracy at 1",
}
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
        data: Folder with the SIB-200 files, and those of XQuAD.
        codes: Languages; None takes the 14 of the paper. English is always read: both tasks start from it.
        name: What to call the model in tables; None takes the folder's name.
        seed: Of the bootstrap.
        device: Where to load a folder; None takes the best one here.
        progress: Called with (languages done, languages) after each, over all parts.

    Returns:
        The summary, as `write` writes it: model, data, settings, versions, what was left out for lack of files, how
        many texts training has read (of a model in its run's folder; too many by one in a thousand, never too few), and
        for each task scores in percent by language, missing languages with the reason, means with their intervals.

    Raises:
        DataError: The English files cannot be read.
        MissingExtraError: scikit-learn is not installed.
    """
    extras.need("eval", "sklearn.linear_model")
    codes = list(dict.fromkeys(codes or [language.code for language in languages.paper()]))
    _check_english(data)
    embedder = model if isinstance(model, SentenceTransformer) else folder.load(model, device=device)
    parts, left_out = _parts(data)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(parts) * len(codes))

    found: dict[str, Measured] = {}
    texts: set[str] = set()
    for measure in parts:
        found |= measure(partial(_vectors, embedder, texts), data, codes, tick)
    return {
        "suite": "offline",
        "model": _identity(model, embedder, name),
        "data": _digests(data, codes),
        "seen_in_training": _seen(model, texts),
        "left_out": left_out,
        "settings": {**SETTINGS, "seed": seed, "prompt": _default_prompt(embedder)},
        "versions": _versions(),
        "tasks": {task: _task(METRICS[task], measured, codes, seed) for task, measured in found.items()},
    }


def _parts(data: Path) -> tuple[list[Callable[..., dict[str, Measured]]], dict[str, str]]:
    """What can be measured, and why the rest cannot."""
    file = xquad.file_of(data, ENGLISH)
    if file.is_file():
        return [sib.measure, xquad.measure], {}
    return [sib.measure], {"xquad": f"{file.name}: no such file"}


def _check_english(data: Path) -> None:
    """Read what every task starts from, before the model is loaded and hours are spent on the others."""
    files = [sib.file_of(data, ENGLISH, split) for split in ("train", "dev")]
    for file in files:
        if not file.is_file():
            raise DataError(
                f"{file}: no such file: the folder must hold sib200-xx-train.jsonl.gz and sib200-xx-dev.jsonl.gz for "
                "en and each language, and may hold xquad-xx.json"
            )
        sib.read(file)
    if xquad.file_of(data, ENGLISH).is_file():
        xquad.read(xquad.file_of(data, ENGLISH))


def write(summary: dict[str, Any], output: Path, table: str) -> None:
    """Write `summary.json` and `table.md` into a folder; what else is there stays."""
    summed = json.dumps(summary, indent=2, ensure_ascii=False)
    for name, text in (("summary.json", summed), ("table.md", table)):
        with write_file(output / name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def _seen(model: object, texts: set[str]) -> dict[str, int] | None:
    """How many of the suite's texts the model was trained on; None where it does not lie in its run's folder."""
    path = None if isinstance(model, SentenceTransformer) else Path(os.fspath(model)).expanduser()
    trained_on = seen.of_model(path) if path is not None and path.is_dir() else None
    return None if trained_on is None else {"seen": sum(text in trained_on for text in texts), "of": len(texts)}


def _vectors(embedder: SentenceTransformer, read: set[str], texts: Sequence[str]) -> np.ndarray:
    """Vectors (n, d) of length 1; the texts are added to `read`."""
    read.update(texts)
    vectors = embedder.encode(list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    if not np.isfinite(vectors).all():
        raise LusiferError("the model gives vectors that are not finite; see what `lusifer doctor` says of it")
    return vectors.astype(np.float32, copy=False)


def _task(metric: str, measured: Measured, codes: list[str], seed: int) -> dict[str, Any]:
    """Scores, missing languages and means of one task."""
    hits = {code: row for code, row in measured.hits.items() if row}
    nothing = {code: "no sentence of it is in the pool" for code in measured.hits if code not in hits}
    groups = {"non_english": [code for code in codes if code != ENGLISH], "all": codes}
    return {
        "metric": metric,
        "unit": "percent",
        "scores": {code: round(100 * float(np.mean(list(row.values()))), 4) for code, row in hits.items()},
        "missing": measured.missing | nothing,
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
    read = dict.fromkeys([ENGLISH, *codes])
    files = [sib.file_of(data, code, split) for code in read for split in ("train", "dev")]
    if xquad.file_of(data, ENGLISH).is_file():
        files += [xquad.file_of(data, code) for code in read]
    return {file.name: _digest(file) for file in files if file.is_file()}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _default_prompt(embedder: SentenceTransformer) -> str:
    """The prefix of every text here: the model's default one, which most models do not have."""
    name = embedder.default_prompt_name
    return embedder.prompts[name] if name else ""


def _versions() -> dict[str, str]:
    """What computed the numbers."""
    packages = ("torch", "transformers", "sentence-transformers", "scikit-learn", "numpy")
    return {"lusifer": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}
