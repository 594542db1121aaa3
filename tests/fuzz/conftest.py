"""Figures of a fuzzing run: printed at its end, and written where LUSIFER_FUZZ_OUTPUT says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from support import fuzzing


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what became of the inputs of a long run."""
    if fuzzing.TOTAL:
        terminalreporter.write(fuzzing.table())
        if output := os.environ.get("LUSIFER_FUZZ_OUTPUT"):
            Path(output).write_text(fuzzing.table(), encoding="utf-8")
