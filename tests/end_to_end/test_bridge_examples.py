"""One backbone trained alone (examples/bridge/alone.py), and all rows of a table (rows.sh)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from lusifer.evaluation.run.evaluate import Options, evaluate
from lusifer.model.build import make_tiny_bases
from support import processes
from support.offline_files import Oracle, write_split

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "bridge" / "alone.py"
TEXTS = ["The station is in the north.", "A ferry leaves at noon.", "The station"]


@pytest.fixture(scope="module")
def alone() -> ModuleType:
    spec = importlib.util.spec_from_file_location("alone", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    encoder, llm = make_tiny_bases(tmp_path_factory.mktemp("bases"))
    return ["--set", f"model.encoder.path={encoder}", "--set", f"model.llm.path={llm}"]


def run(alone: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["alone.py", *map(str, words)])
    return alone.main()


@pytest.mark.parametrize(("backbone", "train"), [("llm", "lora"), ("encoder", "lora"), ("encoder", "linear")])
def test_what_trains_moves_the_vectors_of_a_backbone(
    backbone: str, train: str, alone: ModuleType, bases: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for how in ("none", train):
        words = ("tiny", "--backbone", backbone, "--train", how, "--output", tmp_path / how, *bases)
        assert run(alone, monkeypatch, *words, "--set", "stages.contrastive.max_steps=4") == 0
    before, after = (SentenceTransformer(str(tmp_path / how), device="cpu").encode(TEXTS) for how in ("none", train))
    assert np.allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5) and np.isfinite(after).all()
    assert np.abs(after - before).max() > 1e-4
    assert not [name for name, _ in SentenceTransformer(str(tmp_path / train)).named_parameters() if "lora" in name]


def test_the_llm_alone_attends_in_both_directions(
    alone: ModuleType, bases: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        run(alone, monkeypatch, "tiny", "--backbone", "llm", "--train", "none", "--output", tmp_path / "m", *bases) == 0
    )
    model = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    ids = model.tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % 100
    with torch.inference_mode():
        first, second = (model[0].model(input_ids=each).last_hidden_state[0, 0] for each in (ids, other))
    assert (first - second).abs().max() > 1e-5


def test_a_wrong_call_is_refused(
    alone: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(alone, monkeypatch, "tiny", "--backbone", "llm", "--output", tmp_path) == 2
    assert f"{tmp_path} exists: choose a new folder" in capsys.readouterr().err
    words = ("mini", "--backbone", "llm", "--output", tmp_path / "m", "--set", "data_root=nowhere")
    assert run(alone, monkeypatch, *words) == 2 and "no such file" in capsys.readouterr().err


def test_every_row_is_trained_once_and_scored(tmp_path: Path) -> None:
    stub = '#!/bin/sh\necho "$(basename $0) $*" >> calls\nfor last; do :; done\n'
    for name, more in (("lusifer", "echo table"), ("python", '[ "$FAIL" ] && exit 1; mkdir "$last"')):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(stub + more + "\n", encoding="utf-8")
        program.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"

    def rows(*words: str, **changes: str) -> list[str]:
        (tmp_path / "calls").unlink(missing_ok=True)
        call = ["bash", str(SCRIPT.parent / "rows.sh"), "data", "out", *words]
        done = subprocess.run(call, cwd=tmp_path, env={"PATH": path, **changes}, stdout=subprocess.PIPE, check=False)
        assert (done.returncode != 0) == ("FAIL" in changes)
        return (tmp_path / "calls").read_text(encoding="utf-8").splitlines()

    assert len(rows("0", ONLY="none", FAIL="1")) == 1  # the script ends with the row that failed
    calls = rows()
    assert sum(call.startswith("lusifer ablate bridge") for call in calls) == 2
    trained = [call for call in calls if call.startswith("python")]
    assert len(trained) == len(set(trained)) == 14 and all(f"--set seed={s}" in " ".join(trained) for s in (0, 1))
    assert sum(call.startswith("lusifer evaluate") for call in calls) == 14
    again = rows(ONLY="full")
    assert not [call for call in again if call.startswith("python")]
    assert all("--only full" in call for call in again if "ablate" in call)
    assert rows("3", BACKBONES="none", TASKS="STS17")[0].count("STS17") == 1
    shorter = rows(
        "3", ONLY="full,none", SET="stages.contrastive.max_steps=60 model.dtype.frozen=float32", DTYPE="float32"
    )
    made = [call for call in shorter if not call.startswith("lusifer evaluate")]
    assert made and all("max_steps=60 --set=model.dtype.frozen=float32 --set seed=3" in call for call in made)
    assert all("--dtype float32" in call for call in shorter if call.startswith("lusifer"))


class Deaf(Oracle):
    """Knows every third text of Spanish."""

    def vector(self, text: str) -> np.ndarray:
        code, kind, number = text.split()
        return super().vector(f"{code} {kind} 40" if code == "es" and int(number) % 3 else text)


def test_a_table_compares_rows_seed_by_seed(tmp_path: Path) -> None:
    for code in ("en", "es", "fi"):
        write_split(tmp_path, code, "dev", list(range(12)))
    task = "SIB200TranslationToEnglishDev"

    def scored(place: str, model: Oracle, *codes: str) -> None:
        options = Options(data=tmp_path, languages=["en", *codes], tasks=[task])
        evaluate(model, options, tmp_path / "rows" / place / "scores")

    def table(*words: object) -> CompletedProcess[str]:
        return processes.script(SCRIPT.parent / "table.py", tmp_path, tmp_path / "rows", *words)

    for place, model in (("0/full", Oracle()), ("1/full", Oracle()), ("0/half", Deaf()), ("1/half", Deaf())):
        scored(f"seed-{place}", model, "es", "fi")
    scored("seed-0/once", Deaf(), "es", "fi")
    done = table()
    assert done.returncode == 0, done.stderr
    head, _, full, half, once = ([word.strip() for word in line.split("|")[1:-1]] for line in done.stdout.splitlines())
    assert head[0] == task and full == ["full", "0, 1", "100.0 (100.0 to 100.0)", "", "", ""]
    # Of twelve Spanish texts every third is found, and of the others, which are alike, one at most.
    value = float(half[2].split()[0])
    assert half[:2] == ["half", "0, 1"] and 66 < value < 72 and half[5] == "worse"
    assert half[4] == f"{value - 100:.1f}, {value - 100:.1f}" and once[1] == "0" and once[5] == "one seed"
    assert half[3] == once[3] and half[3].startswith(f"{value - 100:.1f} (-")
    assert table("--tasks", task).stdout == done.stdout
    assert "no such row" in table("--first", "nothing").stderr
    assert f"--tasks XNLI: not scored in {tmp_path}" in table("--tasks", "XNLI").stderr
    scored("seed-1/once", Deaf(), "fi")
    assert "other languages" in table().stderr
