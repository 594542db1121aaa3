"""`make quick` covers every room, and a test that takes it for more than it is fails."""

import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
from transformers import Trainer

ROOT = Path(__file__).parents[1]
STARTS = {
    "python": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "process": lambda: get_context("forkserver").Process(target=print).start(),
    "training": lambda: Trainer.train(None),
}


def test_every_room_has_quick_tests():
    for room in sorted(path.name for path in (ROOT / "src" / "lusifer").iterdir() if (path / "__init__.py").is_file()):
        files = [file.read_text(encoding="utf-8") for file in (ROOT / "tests" / room).rglob("test_*.py")]
        assert any("pytestmark = pytest.mark.slow" not in text for text in files), room


@pytest.mark.parametrize("kind", STARTS)
def test_a_quick_test_that_starts_python_or_trains_fails(kind):
    with pytest.raises(AssertionError, match=r"a quick test .*: mark it with @pytest\.mark\.slow"):
        STARTS[kind]()
