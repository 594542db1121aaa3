"""A model folder onto the hub, and back once: what was uploaded is what somebody else gets."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lusifer import __version__
from lusifer.embedder import card, contents
from lusifer.errors import LusiferError, ModelFolderError, UsageError
from lusifer.io import hub, names
from lusifer.io.files import sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# What loads a model is imported once there is one to load: a wrong call is refused before.
_CARD = "README.md"


def push(
    model: str,
    name: str,
    *,
    whole: bool = False,
    public: bool = False,
    overwrite: bool = False,
    incomplete: bool = False,
    listen: Callable[[str], None] = lambda words: None,
) -> str:
    """Upload a model folder, in one commit, and fetch it back.

    Nothing is uploaded that does not load here, or that gives other vectors than its golden ones; where it has none,
    they are made. Afterwards it is fetched from the hub, compared file by file, loaded and tried again.

    Args:
        model: A folder, or the name of a model that comes with the library.
        name: Of the repository, owner/name.
        whole: Whether the bases of a delta go into it.
        public: Whether a new repository is for everyone.
        overwrite: Whether a repository that has files may lose them.
        incomplete: Whether a card without licence or scores will do.
        listen: Told what is done now.

    Returns:
        The commit.

    Raises:
        UsageError: No folder or repository can be meant, the card says too little, or a base is on this machine only.
        LusiferError: The folder or its vectors are not what they were, the hub refuses, or it gives other files back.
    """
    found = _folder(model, name, whole, incomplete)
    old = hub.held(name)
    _refuse_held(name, old, overwrite, public)
    from lusifer.embedder import folder, golden

    listen(f"loading {model}")
    embedder = folder.load(found, device="cpu")
    if (found / golden.FILE).is_file():
        _refuse_other_vectors(embedder, found, f"{model}: nothing is uploaded")
    with tempfile.TemporaryDirectory() as temporary:
        sent, back = Path(temporary) / "sent", Path(temporary) / "back"
        if whole and contents.is_delta(found):
            words = (found / _CARD).read_text("utf-8") if (found / _CARD).is_file() else None
            folder.save(embedder, sent, card.of_whole(words) if words is not None else None, finished=True)
        else:
            shutil.copytree(found, sent, ignore=_aside, copy_function=_link)
            if not (sent / golden.FILE).is_file():
                golden.write(embedder, sent)
        del embedder  # a second one is loaded below
        listen(f"uploading {sum(file.stat().st_size for file in sent.rglob('*')) / 1e6:,.1f} MB")
        commit = hub.upload(name, sent, old, f"Upload by lusifer {__version__}", private=not public)
        listen("fetching it back")
        hub.fetch_into(name, commit, back)
        _refuse_difference(sent, back, f"{name} at {commit}")
    return commit


def _folder(model: str, name: str, whole: bool, incomplete: bool) -> Path:
    """The folder that is meant, and that others can judge, and load from a repository of this name."""
    if name.count("/") != 1 or not card.is_hub_id(name):
        raise UsageError(f"{name}: no name of a repository: give OWNER/NAME, as in me/my-model")
    found = names.model(model)
    if not isinstance(found, Path) or not found.is_dir() or contents.is_int8(found) or not contents.is_ours(found):
        raise UsageError(
            f"{model}: no folder of a model of this library in ordinary numbers, which alone is uploaded: give what "
            "`lusifer train`, `convert` or `export` (without --input) wrote"
        )
    contents.check(found)
    contents.refuse_links(found)
    contents.weights(found)
    if contents.is_delta(found) and not whole:
        _refuse_local_bases(found)
    if not incomplete:
        _refuse_card(found / _CARD)
    return found


def _refuse_held(name: str, old: list[str] | None, overwrite: bool, public: bool) -> None:
    """Refuse a repository that is there, unless what the call does to it was asked for."""
    if set(old or ()) - {".gitattributes"} and not overwrite:
        raise UsageError(f"{name}: holds {len(old)} files already: give --overwrite to replace them, or another name")
    if old is not None and public:
        raise UsageError(
            f"{name}: is there, and stays as visible as it is: set that on the hub, and leave --public out"
        )


def _refuse_local_bases(found: Path) -> None:
    """Refuse a delta that nobody else can put together."""
    for tower, base in contents.read(found / "config.json", dict)["bases"].items():
        if not (base["path"].startswith(names.PACKAGE) or base.get("revision")):
            raise UsageError(
                f"{found / 'config.json'}: bases.{tower}.path={base['path']!r} lies on this machine, and others cannot "
                "have it: push with --whole, or train with the base named on the hub or as package:NAME"
            )


def _refuse_card(file: Path) -> None:
    """Refuse a card that does not say what may be done with the model, or how good it is."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    go_on = "or give --incomplete-card"
    if not file.is_file():
        raise UsageError(f"{file}: missing: write a card with `license:` at its head and scores, {go_on}")
    words = file.read_text("utf-8")
    try:
        data = ModelCard(words).data
    except (ValueError, YAMLError) as error:
        raise UsageError(f"{file}: its head is no YAML ({hub.why(error)}): correct it") from error
    if not data.get("license"):
        raise UsageError(f"{file}: names no licence: add a line as `license: apache-2.0` at its head, {go_on}")
    section = words.partition(card.SCORES[0])[2].partition(card.SCORES[1])[0]
    if not data.eval_results and (not section.strip() or section.strip().startswith("Not measured")):
        advice = "put them there with `lusifer report SCORES --output report.html --card`"
        raise UsageError(f"{file}: has no scores: {advice} {file}, {go_on}")


def _refuse_other_vectors(embedder: SentenceTransformer, place: Path, what: str) -> None:
    from lusifer.embedder import golden

    probe = golden.check(embedder, place)
    if not probe.ok:
        raise ModelFolderError(f"{what}: golden vectors: {probe.detail}")


def _refuse_difference(sent: Path, back: Path, what: str) -> None:
    """Refuse a repository that does not hold what was sent, or does not load."""
    for file in sorted(file for file in sent.rglob("*") if file.is_file()):
        place = file.relative_to(sent)
        if not (back / place).is_file() or sha256(file) != sha256(back / place):
            raise LusiferError(f"{what}: {place} is not what was uploaded: push again with --overwrite")
    from lusifer.embedder import folder

    try:
        embedder = folder.load(back, device="cpu")
    except LusiferError as error:
        raise LusiferError(f"{what}: what the hub gives back does not load: {error}") from error
    _refuse_other_vectors(embedder, back, what)


def _aside(place: str, inside: list[str]) -> set[str]:
    """What of a folder is not uploaded: files that no model has, and what a checkpoint has besides."""
    kept = {name for name in inside if any(fnmatch(name, pattern) for pattern in hub.MODEL_FILES)}
    kept |= {name for name in inside if (Path(place) / name).is_dir() and not name.startswith(".")}
    return set(inside) - kept | {"trainable.safetensors", "trainable.json", "trainer_state.json"}


def _link(source: str, target: str) -> Any:
    """Copy a file without its bytes where the disk allows it: a whole model may have 30 GB."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
