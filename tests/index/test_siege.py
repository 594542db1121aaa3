"""The short form of `benchmarks/index_siege.py`: an index that is attacked holds what was committed."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import index_siege
assert index_siege.main({words!r}) == {status}
"""


def run(interpreter, status: int, *words: str) -> str:
    return interpreter.run(PROGRAM.format(folder=str(BENCHMARKS), words=[*words, "--no-mount"], status=status))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "work"), [("kill", "update"), ("disk", "reindex"), ("writers", "delete")])
def test_an_attacked_index_holds_what_was_committed(interpreter, kind, work):
    said = run(interpreter, 0, "--times", "1", "--only", kind, "--works", work)
    assert f"{work}" in said and "1 times" in said and "wrong 0 []" in said


@pytest.mark.slow
def test_the_siege_sees_what_is_lost(interpreter, tmp_path):
    """With a writer that says it has committed what it has not, the comparison fails."""
    lying = PROGRAM.replace(
        "assert", "import lusifer.index.table as t; t.PassageTable.write = lambda *a, **k: None\nassert"
    ).format(
        folder=str(BENCHMARKS), words=["--times", "1", "--only", "writers", "--works", "delete", "--no-mount"], status=1
    )
    assert "wrong 0" not in interpreter.run(lying)
