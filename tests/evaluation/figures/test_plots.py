"""Loss curves: read from what training logs; a missing package is said with its install line."""

import sys

import pytest

from lusifer.errors import DataError, MissingExtraError
from lusifer.evaluation.figures import plots

LINES = """{"stage": "alignment", "step": 5, "loss": 7.1}
{"stage": "alignment", "step": 10, "loss": 6.5}
{"stage": "alignment", "step": 10, "train_runtime": 2.0}
{"stage": "contrastive", "step": 5, "loss": 3.4}
"""


@pytest.fixture
def metrics(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(LINES, encoding="utf-8")
    return tmp_path / "metrics.jsonl"


def test_losses_by_stage(metrics):
    assert plots.losses(metrics) == {"alignment": [(5, 7.1), (10, 6.5)], "contrastive": [(5, 3.4)]}
    with pytest.raises(DataError, match="no readable metrics"):
        plots.losses(metrics.with_name("other"))


def test_without_matplotlib_the_install_line_is_said(metrics, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'lusifer\[report\]'"):
        plots.loss_curves(metrics, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
