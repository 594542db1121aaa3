"""Access to the Hugging Face Hub; its errors become one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lusifer.errors import LusiferError, ModelFolderError

UNREACHABLE, OFFLINE = "the Hub cannot be reached", "HF_HUB_OFFLINE is set"
LOG_IN = "log in with `hf auth login`"
# Only these files of a repository are downloaded: some repositories have the same weights in three formats.
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md")


@contextmanager
def asking(what: str, raises: type[LusiferError]) -> Iterator[None]:
    """Run a block that may download something, and raise errors of the Hub or of files as "WHAT: reason".

    Args:
        what: The start of the message: the key of the recipe, or the name that is read.
        raises: The error to raise. Other errors pass through unchanged.

    Raises:
        LusiferError: Of the kind `raises`.
    """
    try:
        yield
    except (*refusals(), ValueError) as error:
        raise raises(f"{what}: {why(error)}") from error


def refusals() -> tuple[type[Exception], ...]:
    """Return the exceptions that are raised when a file cannot be downloaded or read."""
    from huggingface_hub.errors import RevisionResolutionError
    from huggingface_hub.utils import httpx

    return (OSError, httpx.HTTPError, RevisionResolutionError)


def commit(name: str, revision: str | None = None, kind: str = "model") -> str | None:
    """Resolve a name on the Hub to its current commit.

    With the commit all files of a model are of one state, and cached files are read without asking the Hub again. If
    the Hub cannot be reached, it is the commit that was seen last.

    Args:
        name: A model or dataset on the Hub. A model may also be a path.
        revision: A branch, tag or commit; None is the newest commit.
        kind: "model" or "dataset".

    Returns:
        The commit; None for a path.

    Raises:
        RevisionResolutionError: The Hub cannot be reached, and the name is not in the cache.
        OSError: The Hub refuses; `why` gives the reason.
    """
    if kind == "model" and Path(name).exists():
        return None
    from huggingface_hub import HfApi

    return HfApi().resolve_revision(name, repo_type=kind, revision=revision).resolved


def fetch(name: str, files: Sequence[str], revision: str | None = None) -> Path:
    """Download the files of a model that are not yet in the cache of this machine.

    Args:
        name: A model on the Hub.
        files: Patterns of file names.
        revision: A commit, tag or branch; None is the newest commit.

    Returns:
        The folder in the cache.

    Raises:
        ModelFolderError: The files are neither on the Hub nor in the cache, or the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    with asking(f"{name}: no such folder, and it cannot be downloaded from the Hub", ModelFolderError):
        return Path(snapshot_download(name, allow_patterns=list(files), revision=revision))


def cached(name: str, files: Sequence[str], revision: str | None = None) -> Path | None:
    """Find a model in the cache of this machine, without asking the Hub.

    Args:
        name: A model on the Hub.
        files: Patterns of file names.
        revision: A commit, tag or branch on the Hub; None is the newest that was downloaded.

    Returns:
        The folder in the cache; None if the model is not there.

    Raises:
        ModelFolderError: The name cannot be one of the Hub.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with asking(f"{name}: no such folder, and not a name on the Hub", ModelFolderError):
        try:
            folder = snapshot_download(name, allow_patterns=list(files), revision=revision, local_files_only=True)
            return Path(folder)
        except LocalEntryNotFoundError:
            return None


def has_file(name: str, file: str, commit: str | None = None) -> bool:
    """Whether a folder or a model repository on the Hub has a file; from the Hub it is downloaded into the cache.

    Args:
        name: A path, or a model on the Hub.
        file: The name of the file there.
        commit: The commit on the Hub; None is the newest.

    Raises:
        OSError: The Hub cannot be reached or refuses; `why` gives the reason.
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
    """Read only the cache while the block runs: each further attempt to reach the Hub would take half a minute."""
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
    """Run a block that writes to a repository on the Hub, and raise its errors as "NAME: reason".

    Raises:
        LusiferError: The token is missing, unknown to the Hub or may not write there, or the Hub does not answer.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    kinds = (OSError, ValueError, RuntimeError, httpx.HTTPError)  # an upload in threads raises RuntimeError
    try:
        yield
    except kinds as error:
        chain = list(_chain(error))
        answered = _first(chain, httpx.HTTPStatusError)
        status = answered.response.status_code if answered else None
        if _first(chain, errors.LocalTokenNotFoundError):
            reason = f"no token: {LOG_IN}, with a token that may write"
        elif _first(chain, errors.OfflineModeIsEnabled):
            reason = f"{OFFLINE}: unset it to upload"
        elif status == 401:
            reason = f"the Hub does not know the token: {LOG_IN}, or correct HF_TOKEN"
        elif status == 403 or _first(chain, errors.RepositoryNotFoundError):
            reason = f"the token may not write there: name a repository of yours, or {LOG_IN} with one that may"
        elif _first(chain, (ConnectionError, httpx.TransportError)) or (status or 0) >= 500:
            reason = f"{UNREACHABLE}: push again later"
        else:
            reason = why(error)
        raise LusiferError(f"{name}: {reason}") from error


def held(name: str) -> list[str] | None:
    """List the files of a model repository; None if the token of this machine sees no such repository.

    Raises:
        LusiferError: As for `writing`.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    with writing(name):
        HfApi().whoami()  # with a wrong token the next request would only report that there is no such repository
        try:
            return [file.rfilename for file in HfApi().model_info(name).siblings or []]
        except RepositoryNotFoundError:
            return None


def upload(name: str, folder: Path, old: Sequence[str] | None, message: str, *, private: bool) -> str:
    """Replace the content of a model repository with a folder, in one commit.

    Args:
        name: The repository.
        folder: The folder; all of its files are uploaded.
        old: The files in the repository, as `held` returns them; None creates the repository.
        message: The message of the commit.
        private: Whether a new repository is private.

    Returns:
        The commit.

    Raises:
        LusiferError: As for `writing`.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    # Not `upload_folder`: it makes several commits if the upload takes more than five minutes.
    files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
    gone = sorted(set(old or ()) - files.keys() - {".gitattributes"})
    changes = [CommitOperationAdd(place, file) for place, file in files.items()]
    changes += [CommitOperationDelete(place, is_folder=False) for place in gone]
    with writing(name):
        if old is None:
            HfApi().create_repo(name, private=private)
        return HfApi().create_commit(name, changes, commit_message=message).oid


def fetch_into(name: str, commit: str, folder: Path) -> None:
    """Download all files of a model repository into a folder, without the cache.

    Args:
        name: The repository.
        commit: The commit.
        folder: The destination.

    Raises:
        LusiferError: They cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    with asking(name, LusiferError):
        snapshot_download(name, revision=commit, local_dir=folder)


def why(error: BaseException) -> str:
    """Explain in one line why a name could not be read, from the error of a library and its causes."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    chain = list(_chain(error))
    if _first(chain, errors.GatedRepoError):
        return f"gated: accept its conditions on its page on the Hub, then {LOG_IN}"
    if _first(chain, errors.RevisionNotFoundError):
        return "the Hub has no such revision of it: correct the revision"
    answered = _first(chain, httpx.HTTPStatusError)
    status = answered.response.status_code if answered else None
    if _first(chain, errors.RepositoryNotFoundError) or status in (401, 403):
        return f"the Hub has no such name, or it is private: correct the name, or {LOG_IN}"
    # `datasets` raises Python's own ConnectionError without a cause.
    unreachable = (ConnectionError, httpx.TransportError, errors.OfflineModeIsEnabled, errors.RevisionResolutionError)
    if _first(chain, unreachable) or (status or 0) >= 500:
        offline = _first(chain, errors.OfflineModeIsEnabled) is not None
        reason = OFFLINE if offline else UNREACHABLE
        return f"not in the cache of this machine, and {reason}"
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes, the latest first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first(chain: list[BaseException], kind: type | tuple[type, ...]) -> BaseException | None:
    return next((error for error in chain if isinstance(error, kind)), None)
