"""Runs that are broken at random and resumed end as one that was never broken; 1,000: benchmarks/faults.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import processes

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_twenty_faults(tmp_path: Path) -> None:
    table = tmp_path / "faults.md"
    words = ["--work", tmp_path / "work", "--faults", "20", "--one-of-each", "--output", table]
    done = processes.script(BENCHMARKS / "faults.py", tmp_path, *words)
    rows = [json.loads(line) for line in (tmp_path / "work" / "faults.jsonl").read_text().splitlines()]
    assert done.returncode == 0, "\n".join(row["wrong"] for row in rows)
    assert len(rows) == 20 and len({row["fault"] for row in rows}) >= 9
    assert "| all | 20 | 20 | 0 |" in table.read_text()
