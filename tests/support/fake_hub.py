"""A hub on this machine: what the libraries ask for to read model and data set repositories, served from folders.

It speaks of the Hugging Face hub what they need: facts about a repository and its revisions, listings of files, and the
files themselves, large ones behind a redirect. Whoever has one of `Hub.tokens` makes repositories under its name and
commits to them. `HF_ENDPOINT` points the libraries to it, and
since they read that when they are imported, code that shall meet it runs in a process of its own (`run`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.forks import Interpreter

LARGE = (".safetensors", ".parquet")  # what a hub keeps apart from the git repository, behind a redirect
ROOT = Path(__file__).parents[2]


@dataclass
class Repository:
    """Revision -> (commit, folder). Of a gated one the facts are public, a private one is its owner's alone."""

    kind: str
    name: str
    revisions: dict[str, tuple[str, Path]] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def files(self, revision: str) -> dict[str, Path]:
        """Path in the repository -> file."""
        folder = self.revisions[revision][1]
        return {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}


class Hub:
    """The repositories, and the requests that came."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []
        self.endpoint = ""
        self.store = ""
        self.blobs: dict[str, Path] = {}
        self.tokens = {"mine": "me"}
        self.uploads: Path | None = None
        self.spoils: set[tuple[str, str]] = set()
        """Files (repository, name) that an upload damages."""

    def add(self, name: str, folder: Path, *, kind: str = "models", revision: str = "main", **access: bool) -> str:
        """Put a folder behind a name ("owner/name") and a revision; gives its commit."""
        repository = self.repositories.setdefault((kind, name), Repository(kind, name, **access))
        commit = hashlib.sha1(f"{kind} {name} {revision}".encode()).hexdigest()
        repository.revisions |= {revision: (commit, folder), commit: (commit, folder)}
        return commit

    def asked(self, part: str) -> list[str]:
        """The requests whose line holds `part`."""
        return [line for line in self.requests if part in line]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""

    def do_HEAD(self) -> None:  # noqa: N802 - the name of the base class
        self._answer(*self._find(b""))

    do_GET = do_HEAD  # noqa: N815

    def do_POST(self) -> None:  # noqa: N802
        self._answer(*self._find(self._body()))

    def do_PUT(self) -> None:  # noqa: N802
        digest = self.path.rpartition("/")[2]
        self.hub.blobs[digest] = self.hub.uploads / digest
        self.hub.blobs[digest].write_bytes(self._body())
        self._answer(200, {}, b"")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    @property
    def _user(self) -> str | None:
        return self.hub.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.hub.requests.append(f"{self.command} {self.path} {status}")
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _find(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "whoami-v2"]:
            return _json({"name": self._user}) if self._user else _refusal(401, None, "Invalid username or password.")
        if parts == ["api", "validate-yaml"]:
            return _json({"warnings": []})
        if parts == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if parts[-3:] == ["lfs", "objects", "batch"]:
            objects = [
                {"oid": each["oid"], "size": each["size"],
                 "actions": {"upload": {"href": f"{self.hub.store}/upload/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]  # fmt: skip
            return _json({"transfer": "basic", "objects": objects})
        if parts[0] == "blobs":
            return 200, {"Content-Type": "application/octet-stream"}, self.hub.blobs[parts[1]].read_bytes()
        if parts[0] == "api" and len(parts) >= 4:
            kind, name, rest = parts[1], "/".join(parts[2:4]), parts[4:]
        else:
            kind, parts = (parts[0], parts[1:]) if parts[0] == "datasets" else ("models", parts)
            name, rest = "/".join(parts[:2]), parts[2:]
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            return _refusal(404, "RepoNotFound", "Repository not found")
        if repository.private and repository.name.split("/")[0] != self._user:
            return _refusal(401, None, "Invalid username or password.")
        verb, revision = rest[0] if rest else "revision", rest[1] if len(rest) > 1 else "main"
        if revision not in repository.revisions:
            return _refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if verb == "resolve":
            return self._file(repository, revision, "/".join(rest[2:]))
        if verb == "revision":
            return _json(_facts(repository, revision))
        if verb == "tree":
            inside = "".join(f"{part}/" for part in rest[2:])
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["False"])[0].lower() in ("true", "1")
            return _json(_entries(repository, revision, inside, recursive))
        if verb == "paths-info":
            wanted = parse_qs(body.decode()).get("paths", [])
            return _json([entry for entry in _entries(repository, revision, "", True) if entry["path"] in wanted])
        if verb == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = {True: "lfs", False: "regular"}
            return _json({"files": [
                {"path": path, "uploadMode": modes[path.endswith(LARGE)], "shouldIgnore": False} for path in paths
            ]})  # fmt: skip
        if verb == "commit":
            return self._commit(repository, [json.loads(line) for line in body.splitlines()])
        return _refusal(404, None, "Not found")

    def _create(self, wish: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        name = f"{wish['organization']}/{wish['name']}"
        if wish["organization"] != self._user:
            return _refusal(403, None, f"You don't have the rights to create a model under {wish['organization']}")
        empty = self.hub.uploads / "empty"
        empty.mkdir(exist_ok=True)
        self.hub.add(name, empty, private=wish.get("visibility") == "private")
        return _json({"url": f"{self.hub.endpoint}/{name}"})

    def _commit(self, repository: Repository, changes: list[dict[str, Any]]) -> tuple[int, dict[str, str], bytes]:
        commit = hashlib.sha1(f"{repository.name} {len(self.hub.requests)}".encode()).hexdigest()
        folder = self.hub.uploads / commit
        shutil.copytree(repository.revisions["main"][1], folder)
        for change in changes:
            about = change["value"]
            file = folder / about.get("path", "")
            file.parent.mkdir(parents=True, exist_ok=True)
            if change["key"] == "file":
                file.write_bytes(base64.b64decode(about["content"]))
            elif change["key"] == "lfsFile":
                shutil.copyfile(self.hub.blobs[about["oid"]], file)
            elif change["key"] == "deletedFile":
                file.unlink()
            if (repository.name, file.name) in self.hub.spoils:
                file.write_bytes(file.read_bytes() + b" ")
        repository.revisions |= {"main": (commit, folder), commit: (commit, folder)}
        return _json({"commitUrl": f"{self.hub.endpoint}/{repository.name}/commit/{commit}", "commitOid": commit})

    def _file(self, repository: Repository, revision: str, path: str) -> tuple[int, dict[str, str], bytes]:
        commit = {"X-Repo-Commit": repository.revisions[revision][0]}
        if repository.gated:
            return _refusal(401, "GatedRepo", "Access to this repository is restricted.", commit)
        file = repository.files(revision).get(path)
        if file is None:
            return _refusal(404, "EntryNotFound", "Entry not found", commit)
        content = file.read_bytes()
        if not path.endswith(LARGE):
            return 200, commit | {"ETag": f'"{_git_id(content)}"'}, content
        digest = hashlib.sha256(content).hexdigest()
        self.hub.blobs[digest] = file
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        return 302, commit | linked | {"Location": f"{self.hub.store}/blobs/{digest}"}, b""


def _refusal(
    status: int, code: str | None, message: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    named = {"X-Error-Code": code} if code else {}
    return status, named | {"X-Error-Message": message} | (headers or {}), json.dumps({"error": message}).encode()


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _facts(repository: Repository, revision: str) -> dict[str, Any]:
    return {
        "id": repository.name,
        "sha": repository.revisions[revision][0],
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "tags": [],
        "siblings": [{"rfilename": path} for path in repository.files(revision)],
    }


def _entries(repository: Repository, revision: str, inside: str, recursive: bool) -> list[dict[str, Any]]:
    """Files and folders, as the listing of a hub gives them."""
    found: dict[str, dict[str, Any]] = {}
    for path, file in repository.files(revision).items():
        if not path.startswith(inside):
            continue
        names = path.removeprefix(inside).split("/")
        folders = names[:-1] if recursive else names[:-1][:1]
        for depth in range(1, len(folders) + 1):
            folder = inside + "/".join(folders[:depth])
            found[folder] = {"type": "directory", "path": folder, "oid": _git_id(folder.encode()), "size": 0}
        if recursive or len(names) == 1:
            content = file.read_bytes()
            found[path] = {"type": "file", "path": path, "oid": _git_id(content), "size": len(content)}
            if path.endswith(LARGE):
                digest = hashlib.sha256(content).hexdigest()
                found[path]["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return list(found.values())


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    hub.store = f"http://localhost:{server.server_address[1]}"  # another host, as a hub's store of large files is
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(
    interpreter: Interpreter, script: Path, arguments: list[str], endpoint: str, home: Path, offline: bool = False
) -> Any:
    """Run a Python script that meets this hub and no other; give what it printed last, as JSON.

    Args:
        interpreter: one that has not imported the libraries that ask a hub.
        script: a file.
        arguments: of the script.
        endpoint: of the hub.
        home: the folder of the libraries' caches.
        offline: whether the libraries are told not to ask any hub.
    """
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HF_") and not name.lower().endswith("_proxy")
    }
    said = interpreter.run(f"""
import os, runpy, signal, sys
signal.alarm(300)
os.environ.clear()
os.environ.update({kept | settings!r})
os.chdir({str(home.parent)!r})
sys.path[:0] = {[str(ROOT / "src"), str(ROOT / "tests")]!r}
sys.argv = {[str(script), *arguments]!r}
runpy.run_path(sys.argv[0], run_name="__main__")
""")
    return json.loads(said.splitlines()[-1])
