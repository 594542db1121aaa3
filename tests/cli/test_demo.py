"""`lusifer demo` from nothing to vectors, and a second time on what it left."""

import numpy as np

from lusifer.cli import main


def test_the_demo_trains_checks_and_embeds_and_can_be_repeated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--output", "demo"]) == 0
    said = capsys.readouterr().out
    assert "It shows the mechanics, not quality" in said
    assert "all 13 checks hold" in said
    vectors = np.load("demo/vectors.npy")
    assert vectors.shape == (5, 48)
    assert main(["demo", "--output", "demo"]) == 0
    assert np.array_equal(np.load("demo/vectors.npy"), vectors)
    assert main(["doctor", "demo/run/model"]) == 0
    checkpoint = next((tmp_path / "demo" / "run" / "checkpoints" / "02-contrastive").glob("checkpoint-*"))
    capsys.readouterr()
    assert main(["doctor", str(checkpoint)]) == 0
    assert "what trained is saved: 61 tensors" in capsys.readouterr().out
