"""`lusifer push` to a hub on this machine: what lies there afterwards, and what is said when the hub refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lusifer
from lusifer.cli import main
from lusifer.embedder import folder
from support import fake_hub
from support.forks import Interpreter
from support.hub_plans import STEPS
from support.tiny_folder import tiny_delta, tiny_embedder

pytestmark = pytest.mark.slow

TEXTS = ["The river rises in spring.", "Сколько воды нужно человеку каждый день?"]


class Pushed:
    """Results of one process by step, what the hub holds, and the folders that were pushed."""

    def __init__(self, root: Path, bases: tuple[Path, Path], interpreter: Interpreter) -> None:
        self.root, self.model, self.delta = root, root / "model", root / "delta"
        (root / "home").mkdir()
        (root / "uploads").mkdir()
        folder.save(tiny_embedder(bases), self.model, "# Tiny\n", finished=True)
        (self.model / "optimizer.pt").write_bytes(b"large")
        tiny_delta(bases, self.delta)
        (self.delta / "README.md").write_text("# Delta\n")
        with fake_hub.serving() as hub:
            hub.uploads = root / "uploads"
            hub.spoils.add(("me/damaged", "config.json"))
            self._name_bases(hub, bases)
            self.hub = hub
            steps = [
                self._push("none", self.model, "me/new", token=None),
                self._push("wrong", self.model, "me/new", token="old"),
                self._push("other", self.model, "them/new"),
                self._push("new", self.model, "me/new"),
                self._push("again", self.model, "me/new"),
                self._push("delta", self.delta, "me/delta", "--public"),
                self._push("whole", self.delta, "me/new", "--whole", "--overwrite"),
                {"name": "load whole", "do": "load", "model": "me/new"},
                {"name": "load delta", "do": "load", "model": "me/delta"},
                {"name": "doctor", "do": "command", "words": ["doctor", "me/delta"], "token": "mine"},
                self._push("spoilt", self.model, "me/damaged"),
            ]
            plan = root / "plan.json"
            plan.write_text(json.dumps(steps))
            self.found = fake_hub.run(interpreter, STEPS, [str(plan)], hub.endpoint, root / "home" / "cache")

    def _name_bases(self, hub: fake_hub.Hub, bases: tuple[Path, Path]) -> None:
        """Put the bases of the delta on the hub, and say so in it."""
        file = self.delta / "config.json"
        config = json.loads(file.read_text())
        for backbone, path in zip(("encoder", "llm"), bases, strict=True):
            commit = hub.add(f"tiny/{backbone}", path)
            config["bases"][backbone] = {"path": f"tiny/{backbone}", "revision": commit, "files": {}}
        file.write_text(json.dumps(config))

    @staticmethod
    def _push(name: str, model: Path, repository: str, *more: str, token: str | None = "mine") -> dict[str, Any]:
        words = ["push", str(model), repository, "--incomplete-card", *more]
        return {"name": name, "do": "command", "words": words, "token": token}

    def said(self, name: str) -> str:
        """The last line of a push."""
        return self.found[name]["err"][-1]

    def held(self, name: str) -> dict[str, bytes]:
        """Path -> bytes of a repository."""
        return {path: file.read_bytes() for path, file in self._of(name).files("main").items()}

    def commits(self, name: str) -> int:
        """How often something was committed to a repository."""
        return len(self.hub.asked(f"POST /api/models/{name}/commit/main 200"))

    def _of(self, name: str) -> fake_hub.Repository:
        return self.hub.repositories["models", name]


@pytest.fixture(scope="module")
def pushed(
    tmp_path_factory: pytest.TempPathFactory, bases_folder: tuple[Path, Path], interpreter: Interpreter
) -> Pushed:
    root = tmp_path_factory.mktemp("push")
    return Pushed(root, bases_folder, interpreter)


def test_who_may_not_write_is_told_in_one_line(pushed: Pushed) -> None:
    begins = "lusifer: error: me/new: "
    assert pushed.said("none") == f"{begins}no token: log in with `hf auth login`, with a token that may write"
    assert pushed.said("wrong").startswith(f"{begins}the Hub does not know the token: log in with")
    assert pushed.said("other").startswith("lusifer: error: them/new: the token may not write there: name a repository")
    assert [pushed.found[name]["status"] for name in ("none", "wrong", "other")] == [1] * 3


def test_an_upload_that_may_not_ask_the_hub_is_refused(
    pushed: Pushed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """No test of this process may."""
    monkeypatch.setenv("HF_TOKEN", "mine")
    assert main(["push", str(pushed.model), "me/off", "--incomplete-card"]) == 1
    assert capsys.readouterr().err.endswith("lusifer: error: me/off: HF_HUB_OFFLINE is set: unset it to upload\n")


def test_a_new_repository_is_private_and_the_upload_one_commit(pushed: Pushed) -> None:
    assert pushed.found["new"]["status"] == 0, pushed.found["new"]
    assert "and checked; embed with it" in pushed.said("new")
    assert pushed._of("me/new").private and not pushed._of("me/delta").private
    assert pushed.commits("me/new") == 2 and pushed.commits("me/delta") == 1


def test_a_repository_is_replaced_only_when_asked(pushed: Pushed) -> None:
    assert pushed.found["again"]["status"] == 2
    assert "files: give --overwrite" in pushed.said("again")
    assert pushed.found["whole"]["status"] == 0, pushed.found["whole"]
    assert pushed.held("me/new")["README.md"] == b"# Delta\n"


def test_what_was_uploaded_loads_from_the_hub_as_the_folder_does(pushed: Pushed) -> None:
    held = pushed.held("me/delta")
    assert {"golden.json", "1_Normalize/config.json", "model.safetensors", "README.md"} <= held.keys()
    assert held["model.safetensors"] == (pushed.delta / "model.safetensors").read_bytes()
    assert not [file for repository in ("me/delta", "me/new") for file in pushed.held(repository) if ".pt" in file]
    assert json.loads(held["config.json"])["bases"]["llm"]["path"] == "tiny/llm"
    assert "bases" not in json.loads(pushed.held("me/new")["config.json"])
    config = json.loads((pushed.delta / "config.json").read_text())
    vectors = [pushed.found[name][way] for name in ("load whole", "load delta") for way in ("ours", "theirs")]
    assert all(each == vectors[0] for each in vectors)
    assert config["bases"] and np.isfinite(vectors[0]).all()


def test_doctor_checks_the_vectors_of_a_model_on_the_hub(pushed: Pushed) -> None:
    assert "golden vectors: largest cosine distance" in pushed.found["doctor"]["out"]


def test_a_hub_that_gives_other_files_back_is_told(pushed: Pushed) -> None:
    assert pushed.found["spoilt"]["status"] == 1
    assert "config.json differs from what was uploaded: push again with --overwrite" in pushed.said("spoilt")


def test_the_folder_itself_is_as_it_was(pushed: Pushed) -> None:
    assert not (pushed.delta / "golden.json").exists()
    assert lusifer.load(pushed.model, device="cpu").encode(TEXTS).shape == (2, 48)
