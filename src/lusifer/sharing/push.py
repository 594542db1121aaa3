"""Upload a model folder to the Hugging Face Hub, and download it again to check what others will get."""

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

# Modules that load a model are imported late, so that a wrong call is refused at once.
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
    """Upload a model folder in one commit, and check the upload.

    Before the upload the model is loaded and its golden vectors are compared; they are made if they are missing.
    Afterwards the repository is downloaded, compared file by file, loaded and checked again.

    Args:
        model: A folder, or the name of a model of the library.
        name: The repository, owner/name.
        whole: Whether the bases of a delta are uploaded too.
        public: Whether a new repository is public.
        overwrite: Whether the files of an existing repository may be replaced.
        incomplete: Whether a card without license or scores is accepted.
        listen: Called with a message before each step.

    Returns:
        The commit.

    Raises:
        UsageError: There is no such model, the repository name is invalid, the repository has files, the card lacks
            license or scores, or a base is only on this machine.
        LusiferError: The folder is damaged, its vectors have changed, the Hub refuses, or the download differs.
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
        listen("downloading it to check it")
        hub.fetch_into(name, commit, back)
        _refuse_difference(sent, back, f"{name} at {commit}")
    return commit


def _folder(model: str, name: str, whole: bool, incomplete: bool) -> Path:
    """The folder of the model, checked so that others can load it from the Hub and read its license and scores."""
    if name.count("/") != 1 or not card.is_hub_id(name):
        raise UsageError(f"{name}: not the name of a repository: give OWNER/NAME, such as me/my-model")
    found = names.model(model)
    if not isinstance(found, Path) or not found.is_dir() or contents.is_int8(found) or not contents.is_ours(found):
        raise UsageError(
            f"{model}: not a model folder of this library in floating point, and only these are uploaded: give a "
            "folder that `lusifer train`, `convert` or `export` (without --input) wrote"
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
    """Refuse an existing repository with files without --overwrite, and --public for an existing repository."""
    if set(old or ()) - {".gitattributes"} and not overwrite:
        raise UsageError(f"{name}: already has {len(old)} files: give --overwrite to replace them, or another name")
    if old is not None and public:
        raise UsageError(f"{name}: exists, and its visibility is not changed: set it on the Hub, leave --public out")


def _refuse_local_bases(found: Path) -> None:
    """Refuse a delta with a base that is only on this machine."""
    for backbone, base in contents.read(found / "config.json", dict)["bases"].items():
        if not (base["path"].startswith(names.PACKAGE) or base.get("revision")):
            raise UsageError(
                f"{found / 'config.json'}: bases.{backbone}.path={base['path']!r} is on this machine only: push with "
                "--whole, or train with a base that is named by its Hub id or as package:NAME"
            )


def _refuse_card(file: Path) -> None:
    """Refuse a card without a license or without scores."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    go_on = "or give --incomplete-card"
    if not file.is_file():
        raise UsageError(f"{file}: missing: write a card with `license:` in its front matter and scores, {go_on}")
    words = file.read_text("utf-8")
    try:
        data = ModelCard(words).data
    except (ValueError, YAMLError) as error:
        raise UsageError(f"{file}: its front matter is no YAML ({hub.why(error)}): correct it") from error
    if not data.get("license"):
        raise UsageError(f"{file}: no license: add a line such as `license: apache-2.0` to its front matter, {go_on}")
    section = words.partition(card.SCORES[0])[2].partition(card.SCORES[1])[0]
    if not data.eval_results and (not section.strip() or section.strip().startswith("Not measured")):
        advice = f"add them with `lusifer report SCORES --output report.html --card {file}`"
        raise UsageError(f"{file}: no scores: {advice}, {go_on}")


def _refuse_other_vectors(embedder: SentenceTransformer, place: Path, what: str) -> None:
    from lusifer.embedder import golden

    probe = golden.check(embedder, place)
    if not probe.ok:
        raise ModelFolderError(f"{what}: golden vectors: {probe.detail}")


def _refuse_difference(sent: Path, back: Path, what: str) -> None:
    """Refuse a repository whose files differ from those that were uploaded, or that does not load."""
    for file in sorted(file for file in sent.rglob("*") if file.is_file()):
        place = file.relative_to(sent)
        if not (back / place).is_file() or sha256(file) != sha256(back / place):
            raise LusiferError(f"{what}: {place} differs from what was uploaded: push again with --overwrite")
    from lusifer.embedder import folder

    try:
        embedder = folder.load(back, device="cpu")
    except LusiferError as error:
        raise LusiferError(f"{what}: the downloaded model does not load: {error}") from error
    _refuse_other_vectors(embedder, back, what)


def _aside(place: str, inside: list[str]) -> set[str]:
    """The files of a folder that are not uploaded: those that no model has, and the extra files of a checkpoint."""
    kept = {name for name in inside if any(fnmatch(name, pattern) for pattern in hub.MODEL_FILES)}
    kept |= {name for name in inside if (Path(place) / name).is_dir() and not name.startswith(".")}
    return set(inside) - kept | {"trainable.safetensors", "trainable.json", "trainer_state.json"}


def _link(source: str, target: str) -> Any:
    """Hard-link a file if the disk allows it, else copy it: a model may have 30 GB."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
