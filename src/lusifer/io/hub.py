"""What the hub refuses, in one line: the libraries say it in many words, or in none that help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lusifer.errors import LusiferError, ModelFolderError

UNREACHABLE, OFFLINE = "the hub cannot be reached", "HF_HUB_OFFLINE is set"
LOG_IN = "log in with `hf auth login`"
# Of a repository nothing else is fetched: others keep the same weights in three formats.
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md")


@contextmanager
def asking(what: str, raises: type[LusiferError]) -> Iterator[None]:
    """Run a block that may download something; what the hub or files refuse is raised as "WHAT: reason".

    Args:
        what: Words in front of the reason: the key of the recipe, or the name that was asked for.
        raises: The kind of error that it is here; anything that is no fault of the hub or of files passes through.
    """
    try:
        yield
    except (*refusals(), ValueError) as error:
        raise raises(f"{what}: {why(error)}") from error


def refusals() -> tuple[type[Exception], ...]:
    """What is raised where the hub does not give a file, or the machine does not read it."""
    from huggingface_hub.errors import RevisionResolutionError
    from huggingface_hub.utils import httpx

    return (OSError, httpx.HTTPError, RevisionResolutionError)


def commit(name: str, revision: str | None = None, kind: str = "model") -> str | None:
    """The commit that a name (with a branch, tag or commit; None is the newest) stands for now; None for a path.

    Asked once and handed on, it keeps all files of a model of one state, and what is in the cache is read without
    asking again. Without the hub it is the commit that was seen last. `kind` is "model" or "dataset", never a path.

    Raises:
        RevisionResolutionError: The hub cannot be reached, and the cache knows nothing of the name.
        OSError: The hub refuses; `why` tells the reason.
    """
    if kind == "model" and Path(name).exists():
        return None
    from huggingface_hub import HfApi

    return HfApi().resolve_revision(name, repo_type=kind, revision=revision).resolved


def fetch(name: str, files: Sequence[str], revision: str | None = None) -> Path:
    """Download what is missing of a model's files (patterns) into the cache of this machine; return the folder there.

    `revision` is a commit, tag or branch; None is the newest.

    Raises:
        ModelFolderError: The hub does not give it, and the cache does not hold it.
    """
    from huggingface_hub import snapshot_download

    with asking(f"{name}: no such folder here, and the hub does not give it", ModelFolderError):
        return Path(snapshot_download(name, allow_patterns=list(files), revision=revision))


def cached(name: str, files: Sequence[str]) -> Path | None:
    """The folder of a model in the cache of this machine, without a word to the hub; None where it is not there.

    Raises:
        ModelFolderError: It can be the name of no model there.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with asking(f"{name}: no such folder here, and no name of the hub", ModelFolderError):
        try:
            return Path(snapshot_download(name, allow_patterns=list(files), local_files_only=True))
        except LocalEntryNotFoundError:
            return None


def has_file(name: str, file: str, commit: str | None = None) -> bool:
    """Whether a folder, or a model repository on the hub at a commit, holds a file (which is then in the cache).

    Raises:
        OSError: The hub does not say; `why` tells the reason.
    """
    if Path(name).exists():
        return (Path(name) / file).is_file()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        hf_hub_download(name, file, revision=commit)
    except RemoteEntryNotFoundError:
        return False
    return True


@contextmanager
def offline() -> Iterator[None]:
    """Read the cache alone while the block runs: asking a hub again that was not reached takes half a minute."""
    import datasets.config
    import huggingface_hub.constants

    places = (datasets.config, huggingface_hub.constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Run a block that writes to a repository of the hub; what the hub refuses is raised as one line.

    Raises:
        LusiferError: No token, one that the hub does not know or that may not write there, or no answer.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    kinds = (OSError, ValueError, RuntimeError, httpx.HTTPError)  # of an upload in threads a RuntimeError is raised
    try:
        yield
    except kinds as error:
        chain = list(_chain(error))
        answered = _first(chain, httpx.HTTPStatusError)
        status = answered.response.status_code if answered else None
        if _first(chain, errors.LocalTokenNotFoundError):
            reason = f"no token: {LOG_IN}, with a token that may write"
        elif _first(chain, errors.OfflineModeIsEnabled):
            reason = f"{OFFLINE}: take it out to upload"
        elif status == 401:
            reason = f"the hub does not know the token: {LOG_IN}, or correct HF_TOKEN"
        elif status == 403 or _first(chain, errors.RepositoryNotFoundError):
            reason = f"the token may not write there: name a repository of yours, or {LOG_IN} with one that may"
        elif _first(chain, (ConnectionError, httpx.TransportError)) or (status or 0) >= 500:
            reason = f"{UNREACHABLE}; push again when it answers"
        else:
            reason = why(error)
        raise LusiferError(f"{name}: {reason}") from error


def held(name: str) -> list[str] | None:
    """The files of a model repository that the token of this machine may see; None where there is no such one.

    Raises:
        LusiferError: As for `writing`.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    with writing(name):
        HfApi().whoami()  # of a wrong token the next answer would be that there is no such repository
        try:
            return [file.rfilename for file in HfApi().model_info(name).siblings or []]
        except RepositoryNotFoundError:
            return None


def upload(name: str, folder: Path, old: Sequence[str] | None, message: str, *, private: bool) -> str:
    """Put a folder into a model repository, in place of what it held, in one commit.

    Args:
        name: Of the repository.
        folder: All of its files are uploaded.
        old: As `held` gave it; None makes the repository, which is `private` or not.
        message: Of the commit.
        private: Of a new repository.

    Returns:
        The commit.

    Raises:
        LusiferError: As for `writing`.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    # Not `upload_folder`, which makes several commits of an upload that takes more than five minutes.
    files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
    gone = sorted(set(old or ()) - files.keys() - {".gitattributes"})
    changes = [CommitOperationAdd(place, file) for place, file in files.items()]
    changes += [CommitOperationDelete(place, is_folder=False) for place in gone]
    with writing(name):
        if old is None:
            HfApi().create_repo(name, private=private)
        return HfApi().create_commit(name, changes, commit_message=message).oid


def fetch_into(name: str, commit: str, folder: Path) -> None:
    """Download all files of a model repository at a commit into a folder, past the cache.

    Raises:
        LusiferError: The hub does not give them.
    """
    from huggingface_hub import snapshot_download

    with asking(name, LusiferError):
        snapshot_download(name, revision=commit, local_dir=folder)


def why(error: BaseException) -> str:
    """One line on why a name could not be read, by the error of a library and what it was raised from."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    chain = list(_chain(error))
    if _first(chain, errors.GatedRepoError):
        return f"gated: accept its conditions on the hub's page of it, then {LOG_IN}"
    if _first(chain, errors.RevisionNotFoundError):
        return "the hub has no such revision of it"
    answered = _first(chain, httpx.HTTPStatusError)
    status = answered.response.status_code if answered else None
    if _first(chain, errors.RepositoryNotFoundError) or status in (401, 403):
        return f"the hub has no such name, or it is private: correct the name, or {LOG_IN}"
    # `datasets` raises Python's own ConnectionError, and from nothing.
    unreachable = (ConnectionError, httpx.TransportError, errors.OfflineModeIsEnabled, errors.RevisionResolutionError)
    if _first(chain, unreachable) or (status or 0) >= 500:
        offline = _first(chain, errors.OfflineModeIsEnabled) is not None
        reason = OFFLINE if offline else UNREACHABLE
        return f"not in the cache of this machine, and {reason}"
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from, the last one first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first(chain: list[BaseException], kind: type | tuple[type, ...]) -> BaseException | None:
    return next((error for error in chain if isinstance(error, kind)), None)
