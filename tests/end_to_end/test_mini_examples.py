"""The scripts of examples/mini on a toy: a curve along a run, the tables of the README."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from lusifer.evaluation.run.evaluate import Options, evaluate
from support import processes
from support.offline_files import Oracle, write_questions, write_split

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples" / "mini"


@pytest.fixture
def script(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CompletedProcess[str]]:
    """Run a script of the example in a process of its own."""
    return lambda name, *words: processes.script(EXAMPLES / name, tmp_path_factory.mktemp("said"), *words)


def test_a_curve_tells_of_every_checkpoint(
    model_folder: Path, tmp_path: Path, script: Callable[..., CompletedProcess[str]]
) -> None:
    missing = script("curve.py", tmp_path)
    assert missing.returncode == 2 and "no checkpoints there" in missing.stderr
    for place in ("01-alignment/checkpoint-20", "01-alignment/checkpoint-100", "02-contrastive/checkpoint-5"):
        shutil.copytree(model_folder, tmp_path / "checkpoints" / place)
    done = script("curve.py", tmp_path, "--output", tmp_path / "curve.png")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "curve.json").read_text())
    assert [(row["stage"], row["step"]) for row in rows] == [
        ("01-alignment", 20), ("01-alignment", 100), ("02-contrastive", 5),
    ]  # fmt: skip
    assert all(0 <= row["translation found, %"] <= 100 for row in rows)
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_the_tables_of_the_card_come_from_evaluation_folders(
    tmp_path: Path, script: Callable[..., CompletedProcess[str]]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for code in ("en", "es"):
        for split in ("train", "dev"):
            write_split(data, code, split, list(range(12)))
        write_questions(data, code)
    evaluate(Oracle(), Options(data=data, languages=["en", "es", "fi"]), tmp_path / "scores")
    done = script("results.py", f"oracle={tmp_path / 'scores'}")
    assert done.returncode == 0, done.stderr
    means, topics, found, *xquad = done.stdout.split("\n\n")
    assert "| topics, without English | 100.0 |" in means and "| XQuAD, English | 100.0 (" in means
    assert "| English (en) | 100.0 (74–100) |" in topics and "| **mean without English** | **100.0**" in topics
    assert len(xquad) == 2 and "Spanish" in xquad[0] and "English (en)" in xquad[0] and "Finnish" not in found
    assert script("results.py", f"oracle={tmp_path}").returncode == 2
    words = ("languages.py", "SIB200ZeroShotTopics", f"oracle={tmp_path / 'scores'}", "--output")
    assert script(*words, tmp_path / "all.png").returncode == 0
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    assert "expected a name that ends in .png" in script(*words, tmp_path / "all.jpg").stderr
