"""The wheel has all that its user needs: built from the clone, unpacked elsewhere, it embeds and searches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.processes import ENVIRONMENT

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EMBED = ["embed", "mini", "--input", "texts.txt", "--output", "vectors.npy"]
COMMANDS = [
    ["index", "mini", "--input", "texts.txt", "--output", "found"],
    ["search", "found", "Wann öffnet die Bibliothek?", "--json"],
    ["check", "tiny"],  # recipes come along
]
PROGRAM = """
import contextlib, io, json, sys
import lusifer
from lusifer.cli import main
found = [lusifer.__file__]
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = main(words)
    if status:
        sys.exit(status)
    found.append(said.getvalue())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheel is unpacked, which is what an installation does."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


def test_a_wheel_away_from_the_clone_embeds_and_searches(site: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("The library opens at nine.\nBread rises slowly.\n", encoding="utf-8")

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path, env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(site)},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-m", "lusifer.cli", *EMBED)  # a process of its own, which embeds without sentence-transformers
    package, _, hits, checked = json.loads(run("-c", PROGRAM, json.dumps(COMMANDS)))
    assert Path(package).parent == site / "lusifer"  # and not the clone, which is installed as well
    assert "library" in json.dumps(json.loads(hits.splitlines()[0]))
    assert (tmp_path / "vectors.npy").is_file() and checked
    recipes = {file.name for file in (ROOT / "recipes").iterdir()}
    assert recipes and recipes == {file.name for file in (site / "lusifer" / "recipes").iterdir()}
