"""Bases, data, models and checkpoints from a hub, then from the cache without it, and what is said when it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from lusifer.data.sources import SourceSpec
from lusifer.data.sources import load as load_rows
from lusifer.embedder.identity import identity
from lusifer.sharing.convert import convert
from support import fake_hub
from support.forks import Interpreter
from support.hub_plans import (
    BASES,
    DISTILL,
    DOWN,
    GATED,
    HAS_NOT,
    NO_FOLDER,
    OFFLINE,
    RECIPE,
    STEPS,
    TOKENIZER,
    measure,
    prose,
    refusals,
    step,
    streams,
    work,
)
from support.hub_repositories import NUMBERS, fill

pytestmark = pytest.mark.slow


class Runs:
    """Results of three processes: with the hub, without it, and with one that does not answer."""

    def __init__(self, root: Path, interpreter: Interpreter) -> None:
        self.root, self.interpreter = root, interpreter
        self.home = root / "home" / "cache"
        self.home.mkdir(parents=True)
        (root / "recipe.yaml").write_text(RECIPE)
        (root / "distill.yaml").write_text(DISTILL)
        with fake_hub.serving() as hub:
            fill(hub, root)
            self.hub = hub
            steps = [*work(root, root / "online"), *refusals(root), *measure(root), *streams(root)]
            self.online = self._run("online", steps)
        without = [
            *work(root, root / "offline"),
            {"name": "load new", "do": "load", "model": "tiny/new"},
            prose("diary", config="diaries", split="train"),
        ]
        down = [
            {"name": "cached", "do": "load", "model": "tiny/model", "alone": False},
            {"name": "load", "do": "load", "model": "tiny/new"},
            step("base", "train", root / "recipe.yaml", "--output", root / "no", "--set", "model.llm.path=tiny/new"),
            step("convert", "convert", "tiny/new", root / "no"),
            {"name": "data", "do": "rows", "kind": "pairs", "hub": "own/new"},
        ]
        self.offline, self.down = self._run("offline", without, offline=True), self._run("down", down)

    def _run(self, name: str, steps: list[dict[str, Any]], offline: bool = False) -> dict[str, Any]:
        plan = self.root / f"{name}.json"
        plan.write_text(json.dumps(steps))
        return fake_hub.run(self.interpreter, STEPS, [str(plan)], self.hub.endpoint, self.home, offline)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, interpreter: Interpreter) -> Runs:
    return Runs(tmp_path_factory.mktemp("hub"), interpreter)


def line(result: dict[str, Any]) -> str:
    """The one line of a refusal."""
    if "error" in result:
        assert result["status"] in (1, 2)
        return result["error"]
    errors = [text for text in result["err"] if not text.startswith("lusifer: distill: ")]
    assert len(errors) == 1 and result["status"] in (1, 2), result
    return errors[0].removeprefix("lusifer: error: ")


def done(result: dict[str, Any]) -> bool:
    """Whether a command went well and nobody but us said anything."""
    return result["status"] == 0 and all(text.startswith("lusifer: ") for text in result["err"])


def same_weights(one: Path, other: Path) -> bool:
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_a_run_on_bases_and_data_of_the_hub(runs: Runs) -> None:
    assert done(runs.online["train"]), runs.online["train"]
    trained = load_file(runs.root / "online" / "run" / "model" / "model.safetensors")
    second = load_file(runs.root / "second" / "model.safetensors")["embeddings.word_embeddings.weight"]
    llm = load_file(runs.root / "bases" / "llm" / "model.safetensors")["model.embed_tokens.weight"]
    assert trained["encoder.embeddings.word_embeddings.weight"].equal(second)
    assert trained["llm.embed_tokens.weight"].equal(llm)
    read = json.loads((runs.root / "online" / "run" / "inputs.json").read_text())
    assert {"model.encoder", "model.llm"} < read.keys()
    assert all(re.fullmatch("[0-9a-f]{40}", names["commit"]) for names in read.values())
    first = load_file(runs.root / "bases" / "encoder" / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert not first.equal(second)


def test_an_embedder_of_the_hub_teaches(runs: Runs) -> None:
    assert done(runs.online["distill"]), runs.online["distill"]
    assert "is no embedder (no modules.json)" in line(runs.online["teacher"])


def test_without_the_hub_the_cache_gives_the_same(runs: Runs) -> None:
    for name in ("run", "distilled"):
        assert same_weights(runs.root / "online" / name / "model", runs.root / "offline" / name / "model")
    for name in ("train", "distill", "convert", "public", "info"):
        assert done(runs.offline[name]), runs.offline[name]
    for name in ("load", "load embedder", "info", "main", "v1"):
        assert runs.offline[name] == runs.online[name], name
    assert runs.down["cached"]["ours"] == runs.online["load"]["ours"]


def test_a_model_by_its_name(runs: Runs) -> None:
    local = SentenceTransformer(str(runs.root / "model"), device="cpu")
    found = runs.online["load"]
    texts = ["The river rises in spring.", "Сколько воды нужно человеку каждый день?"]
    assert found["ours"] == found["theirs"] == local.encode(texts).tolist()
    assert runs.online["load embedder"]["ours"] == runs.online["load embedder"]["theirs"]
    assert runs.hub.asked("/tiny/model/") and not runs.hub.asked("pytorch_model.bin 302")
    assert not [request for request in runs.hub.asked("pytorch_model.bin") if request.endswith(" 200")]
    assert f"identity         {identity(runs.root / 'model')}\n" in runs.online["info"]["out"]


def test_scores_of_a_name_carry_the_identity_of_its_weights(runs: Runs) -> None:
    assert done(runs.online["evaluate"]), runs.online["evaluate"]
    measured = json.loads((runs.root / "scores" / "summary.json").read_text())["model"]
    assert (measured["name"], measured["identity"]) == ("tiny/model", identity(runs.root / "model"))


def test_a_damaged_model_is_not_loaded(runs: Runs) -> None:
    """Transformers draws missing tensors at random and warns; the vectors would be nonsense."""
    assert "tiny/broken: the files from the Hub are incomplete or damaged" in line(runs.online["load broken"])
    assert "tensors 5 missing" in line(runs.online["load broken"])


def test_a_published_checkpoint_by_its_name(runs: Runs, tmp_path: Path) -> None:
    bases = {backbone: NUMBERS / "backbones" / f"tiny-{name}" for backbone, name in BASES.items()}
    local = tmp_path / "local"
    convert(NUMBERS / "lusifer-lora", local, **{backbone: str(path) for backbone, path in bases.items()})
    for name in ("converted", "public"):
        assert same_weights(runs.root / "online" / name, local)
        assert (runs.root / "online" / name / TOKENIZER).read_bytes() == (local / TOKENIZER).read_bytes()


@pytest.mark.parametrize(("name", "state"), [("main", "main"), ("v1", "v1")])
def test_rows_are_those_of_the_files(runs: Runs, name: str, state: str) -> None:
    path = str(runs.root / f"prose-{state}" / "letters" / "*.jsonl")
    wanted = list(load_rows(SourceSpec(path=path, fields={"text": "body"}, limit=3), "passages"))
    assert runs.online[name] == wanted
    assert all(row["text"].endswith(f"({state})") for row in wanted)


def test_a_streamed_set_has_the_rows_of_its_files(runs: Runs) -> None:
    lines = [
        text for file in ("more", "some") for text in (runs.root / "prose-v1" / "letters" / f"{file}.jsonl").open()
    ]
    texts = {json.loads(text)["body"] for text in lines}
    streamed = runs.online["streamed"]
    assert len(streamed) == 3 == len({row["text"] for row in streamed} & texts)
    whole = list(load_rows(SourceSpec(path=str(runs.root / "msmarco" / "data" / "*.parquet")), "pairs"))
    assert runs.online["streamed whole"] == whole and len(whole) == 30
    assert "dataset own/prose: " in line(runs.online["streamed split"])
    assert "dataset own/unknown: " in line(runs.online["streamed unknown"])


def test_a_recipes_sets_are_fetched_and_checked(runs: Runs) -> None:
    assert runs.online["fetch"]["status"] == 0
    assert runs.online["fetch"]["out"].splitlines() == [
        "align: Hieuman/MSMarco: 30 rows", "align: own/prose: 12 rows", "contrast: Hieuman/MSMarco: 16 rows",
    ]  # fmt: skip


def test_another_revision_in_the_cache_is_not_taken(runs: Runs) -> None:
    assert runs.online["diary"] == [{"text": "Dear diary", "source": None}]
    assert "dataset own/prose: the cache of this machine has revision" in line(runs.offline["diary"])


def test_what_the_hub_refuses_is_one_line(runs: Runs) -> None:
    reasons = {"unknown": HAS_NOT, "private": HAS_NOT, "gated": GATED}
    for name, reason in reasons.items():
        assert line(runs.online[f"base {name}"]) == f"model.llm.path='tiny/{name}': {reason}"
        assert line(runs.online[f"load {name}"]) == f"tiny/{name}: {NO_FOLDER}: {reason}"
        assert line(runs.online[f"convert {name}"]) == f"tiny/{name}: {NO_FOLDER}: {reason}"
        assert line(runs.online[f"data {name}"]).startswith(f"dataset own/{name}: ")
    assert line(runs.online["data unknown"]) == f"dataset own/unknown: {HAS_NOT}"
    assert "is a gated dataset on the Hub. You must be authenticated" in line(runs.online["data gated"])
    no_revision = "the Hub has no such revision of it: correct the revision"
    assert line(runs.online["base revision"]) == f"model.encoder.path='tiny/encoder' at revision 'third': {no_revision}"
    assert line(runs.online["data revision"]) == f"dataset own/prose: {no_revision}"
    assert "'poems' not found. Available: ['letters', 'diaries']" in line(runs.online["data config"])
    assert "Unknown split" in line(runs.online["data split"])
    assert not (runs.root / "no").exists()


def test_a_hub_that_does_not_answer_is_one_line(runs: Runs) -> None:
    assert line(runs.down["load"]) == f"tiny/new: {NO_FOLDER}: {DOWN}"
    assert line(runs.down["base"]) == f"model.llm.path='tiny/new': {DOWN}"
    assert line(runs.down["convert"]) == f"tiny/new: {NO_FOLDER}: {DOWN}"
    assert line(runs.down["data"]) == f"dataset own/new: {DOWN}"
    assert line(runs.offline["load new"]) == f"tiny/new: {NO_FOLDER}: {OFFLINE}"
