"""A set of pairs on a few themes, and mining it."""

from __future__ import annotations

import json
from pathlib import Path

from lusifer.data import sources
from lusifer.data.mining import mine as mining
from lusifer.data.mining.negatives import MineSettings
from support.words_model import retriever

THEMES = 8


def pairs(count: int = 120) -> list[dict]:
    """Questions on a few themes: texts of one theme share words."""
    rows = []
    for number in range(count):
        theme = number % THEMES
        words = " ".join(f"theme{theme}word{place}" for place in range(6))
        rows.append(
            {"query": f"{words} question{number}", "positive": [f"{words} answer{number}"], "source": f"s{theme % 2}"}
        )
    return rows


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def mine(file: Path, output: Path, settings: MineSettings, model=None, corpus=None, kind: str = "pairs"):
    rows = lambda: sources.read_file(file, kind)  # noqa: E731
    return mining.mine(rows, kind, [file], output, model or retriever(), settings, corpus)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


FEW = MineSettings(negatives=3, skip=2, keep=6)
