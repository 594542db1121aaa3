"""Nothing of what lies in a foreign folder runs: no pickle, and no code of its own, whoever is handed the folder.

What is planted makes a folder when it runs; the tests look for it. Standard input says "y" all the time: transformers
would ask there whether code shall run.
"""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import lusifer
from lusifer.cli import main
from lusifer.data import sources
from lusifer.embedder.folder import load_cross_encoder
from lusifer.errors import LusiferError, UsageError
from lusifer.index.kept import KeptVectors
from lusifer.index.models import IndexModel
from lusifer.index.table import PassageTable
from lusifer.io import names
from lusifer.model.bases.reading import Base, read_backbone, read_config
from lusifer.model.bases.tokenizer import read_tokenizer
from support.small_run import RECIPE
from support.tiny_folder import tiny_delta

SOURCE = Path(lusifer.__file__).parent
PICKLES = (
    "pytorch_model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "adapter_model.bin",
    "model.joblib", "1_Normalize/pytorch_model.bin",
)  # fmt: skip
CODE = ("configuration_evil.py", "modeling_evil.py", "tokenization_evil.py", "evil.py", "custom_generate/generate.py")
REFUSES = ("export", "convert", "push")
"""Commands for which a model of ours is no input, or that need more than this machine has."""
AUTO_MAP = {
    "AutoConfig": "configuration_evil.Evil", "AutoModel": "modeling_evil.Evil",
    "AutoModelForCausalLM": "modeling_evil.Evil", "AutoModelForSequenceClassification": "modeling_evil.Evil",
}  # fmt: skip


class Boom:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


class Planted:
    """Puts what would run into folders; `ran` is what it would make."""

    def __init__(self, place: Path) -> None:
        self.place, self.ran = place, place / "ran"

    def into(self, folder: Path, foreign: bool) -> Path:
        """Into a model folder; of a `foreign` one nothing is read without its own code."""
        for name in PICKLES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            torch.save(Boom(self.ran), folder / name)
        for name in CODE:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(f"import os\nos.mkdir({str(self.ran)!r})\nclass Evil: pass\n")
        changes = {"config.json": {"auto_map": AUTO_MAP} | ({"model_type": "evil"} if foreign else {})}
        changes["tokenizer_config.json"] = {"auto_map": {"AutoTokenizer": [None, "tokenization_evil.Evil"]}}
        if foreign:
            changes["tokenizer_config.json"]["tokenizer_class"] = "Evil"
        for name, change in changes.items():
            file = folder / name
            said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            file.write_text(json.dumps(said | change), encoding="utf-8")
        return folder


@pytest.fixture
def planted(tmp_path, monkeypatch) -> Planted:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"y\n" * 9)))
    return Planted(tmp_path)


def test_what_is_planted_would_run(planted):
    with pytest.raises(pickle.UnpicklingError):
        torch.load(planted.into(planted.place, True) / "optimizer.pt")
    assert not planted.ran.exists()
    torch.load(planted.place / "optimizer.pt", weights_only=False)
    assert planted.ran.is_dir()


@pytest.mark.parametrize(
    "words",
    [
        ["info", "MODEL"],
        ["doctor", "MODEL"],
        ["embed", "MODEL", "--input", "texts.txt", "--output", "v.npy"],
        ["index", "MODEL", "--input", "texts.txt", "--output", "i"],
        ["calibrate", "MODEL", "--parallel", "sample", "--output", "s.safetensors"],
        ["export", "MODEL", "--output", "out"],
        ["evaluate", "MODEL", "--suite", "sample", "--languages", "en,es", "--output", "scores"],
        ["serve", "MODEL"],
        ["convert", "MODEL", "out"],
        ["push", "MODEL", "me/model"],
        ["data", "mine", "texts.jsonl", "--model", "MODEL", "--output", "mined.jsonl"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("kind", ["ours", "foreign", "module"])
def test_no_command_runs_what_lies_in_a_model_folder(planted, model_folder, words, kind, monkeypatch):
    monkeypatch.setattr("lusifer.server.run.serve", lambda *_: None)  # which would wait for requests
    folder = planted.into(Path(shutil.copytree(model_folder, planted.place / "model")), kind == "foreign")
    if kind == "module":  # sentence-transformers imports such a class, if it is told to trust it
        modules = json.loads((folder / "modules.json").read_text())
        modules.append({"idx": 9, "name": "9", "path": "1_Normalize", "type": "evil.Evil"})
        (folder / "modules.json").write_text(json.dumps(modules))
    (planted.place / "texts.txt").write_text("y\ny\n")
    (planted.place / "texts.jsonl").write_text(
        "".join(f'{{"query": "question {n}", "positive": "answer {n}"}}\n' for n in range(60))
    )
    status = main(["model" if word == "MODEL" else word for word in words])
    assert not planted.ran.exists() and (status == 0 or kind != "ours" or words[0] in REFUSES)


@pytest.mark.parametrize("kind", ["ours", "foreign"])
def test_no_command_on_an_index_runs_what_lies_in_the_folder_of_its_model(planted, model_folder, kind):
    folder = planted.into(Path(shutil.copytree(model_folder, planted.place / "model")), False)
    (planted.place / "texts.txt").write_text("y\ny\n")
    assert main(["index", "model", "--input", "texts.txt", "--output", "i"]) == 0
    planted.into(folder, kind == "foreign")
    for name in PICKLES:
        torch.save(Boom(planted.ran), planted.place / "i" / Path(name).name)
    for words in (["search", "i", "y"], ["reindex", "i", "--model", "model", "--tokens", "9"], ["doctor", "i"]):
        status = main(words)
        assert not planted.ran.exists() and (status == 0 or kind == "foreign"), words


@pytest.mark.parametrize("foreign", [True, False])
def test_the_check_of_a_recipe_runs_nothing_of_a_base(planted, bases_folder, foreign):
    planted.into(Path(shutil.copytree(bases_folder[0], planted.place / "base")), foreign)
    (planted.place / "recipe.yaml").write_text(RECIPE.replace("tiny:encoder", "./base"))
    status = main(["check", "recipe.yaml"])
    assert not planted.ran.exists() and (status == 0) == (not foreign)


@pytest.mark.parametrize("backbone", ["encoder", "llm"])
@pytest.mark.parametrize("foreign", [True, False])
def test_a_base_is_read_without_its_code_and_its_pickles(planted, bases_folder, backbone, foreign):
    own = bases_folder[("encoder", "llm").index(backbone)]
    folder = planted.into(Path(shutil.copytree(own, planted.place / "base")), foreign)
    (folder / "model.safetensors").unlink()
    for read in (
        lambda: read_config(Base(str(folder)), backbone),
        lambda: read_tokenizer(str(folder)),
        lambda: read_backbone(Base(str(folder)), backbone),
        lambda: load_cross_encoder(str(folder)),
        lambda: lusifer.load(folder, "cpu"),
    ):
        try:
            read()
        except Exception as error:  # noqa: BLE001 - what is said of such a folder is another test's
            assert not isinstance(error, FileExistsError)
        assert not planted.ran.exists()


@pytest.mark.parametrize("on_path", ["", "whole"])
@pytest.mark.parametrize("words", [["search", "evil", "hello"], ["doctor", "evil"], ["doctor", "model"]])
def test_no_folder_is_imported_because_it_calls_itself_a_package(planted, bases_folder, monkeypatch, on_path, words):
    """The working folder is where Python looks for modules under `python -m`, in a notebook and under torchrun."""
    monkeypatch.syspath_prepend(on_path or str(planted.place))
    evil = planted.place / "evil"
    if words[-1] == "model":
        config = tiny_delta(bases_folder, planted.place / "model") / "config.json"
        said = json.loads(config.read_text())
        for base in said["bases"].values():
            base["path"] = "package:evil"
        config.write_text(json.dumps(said))
        evil.mkdir()
    else:
        PassageTable.create(evil, IndexModel("package:evil", "0", 4, None, None, None, 64, 0).to_dict(), 4)
    (evil / "__init__.py").write_text(f"import os\nos.mkdir({str(planted.ran)!r})\n")
    assert main(words) and not planted.ran.exists()
    with pytest.raises(UsageError, match="package 'evil' is not installed"):
        names.base("package:evil")


def test_arrays_of_objects_are_refused(planted):
    np.save(planted.place / "v.npy", np.array([[Boom(planted.ran)]], dtype=object), allow_pickle=True)
    np.save(planted.place / "good.npy", np.zeros((1, 4), np.float32))
    for vectors, ids in (("v.npy", None), ("good.npy", "v.npy")):
        with pytest.raises(LusiferError, match="v.npy: not a readable array"):
            list(KeptVectors(vectors, ids=ids).documents())
    assert not planted.ran.exists()


@pytest.mark.parametrize("spec", [{"path": "evil/evil.py"}, {"path": "evil"}, {"hub": "evil/evil"}, {"hub": "./evil"}])
def test_no_script_of_a_data_set_runs(planted, spec):
    planted.into(planted.place, True)
    (planted.place / "evil" / "evil").mkdir(parents=True)
    for place in ("evil/evil.py", "evil/evil/evil.py"):
        shutil.copy(planted.place / "evil.py", planted.place / place)
    with pytest.raises(UsageError):
        sources.load(sources.SourceSpec(**spec), "pairs")
    assert not planted.ran.exists()


NO_CODE = {
    ("model/bases/reading.py", "BertModel.from_pretrained"),  # its keywords have it
    ("model/bases/reading.py", "cls.from_pretrained"),
    ("model/delta.py", "cls.from_pretrained"),  # of a class that is there, not an automatic one
    ("model/lusifer.py", "cls.config_class.from_pretrained"),
    ("model/lusifer.py", "super().from_pretrained"),
}
"""Calls that do not say themselves that no code is trusted, and why they need not."""
IMPORTS = {
    ("__init__.py", "importlib.import_module"), ("extras.py", "importlib.import_module"),
    ("model/config.py", "importlib.import_module"), ("model/bases/backbones.py", "importlib.import_module"),
    ("cli/models.py", "self.__spec__.loader.exec_module"),
}  # fmt: skip
"""Where a module is imported by a name: none of these names comes from a file of the user."""
IMPORTING = ("import_module", "__import__", "exec_module", "load_module", "run_path", "run_module", "find_spec")


def test_every_reading_of_a_folder_says_that_no_code_is_trusted():
    """By the text of the source: a new call that forgets it would ask the user, and standard input may answer."""
    seen = set()
    for file in SOURCE.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            said = {word.arg: ast.unparse(word.value) for word in call.keywords}
            called = ast.unparse(call.func)
            assert said.get("trust_remote_code", "False") == "False", (file, called)
            assert said.get("weights_only", "True") == "True" and said.get("allow_pickle", "False") == "False"
            assert called not in ("pickle.load", "pickle.loads", "joblib.load", "eval", "exec", "os.system"), file
            place, name = (str(file.relative_to(SOURCE)), called), called.rpartition(".")[2]
            seen.add(place)
            if name == "from_pretrained" or name in ("SentenceTransformer", "CrossEncoder") and "modules" not in said:
                assert said.get("trust_remote_code") == "False" or place in NO_CODE, place
            assert name != "load" or "torch" not in called or said.get("weights_only") == "True", place
            assert name != "load_dataset" or place[0] == "data/sources.py", place  # which refuses folders and scripts
            if name in IMPORTING and not (name == "find_spec" and isinstance(call.args[0], ast.Constant)):
                assert place in IMPORTS, place
    assert seen >= NO_CODE | IMPORTS  # what is gone leaves the tables too
