"""Reading an evaluation folder: whole ones as they are, damaged ones with the file and the mend."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lusifer.errors import DataError
from lusifer.evaluation.scores.bootstrap import Examples
from lusifer.evaluation.scores.results import Model, Seen, difference, names, read
from support.score_folders import entry, results, right, write

SCORED = results(
    "mini",
    {
        ("sw", "Topics"): right(1, 0, 1, 1),
        ("en", "STS"): Examples("spearman", ("a", "b", "c"), [0.1, 0.5, 0.3], [1, 3, 2.5]),
        ("en", "Clusters"): Examples("draws", ("0", "1"), [0.25, 0.5]),
    },
    entry("fr", "Topics", None),
    entry("fr", "STS", 40.25, low=30.0, high=50.5, n=7, prompt={"query": "q: ", "document": None}),
)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "scores", SCORED)


def test_what_was_written_is_read(folder):
    found = read(folder)
    assert found.scores == SCORED.scores
    assert found.model == Model("mini", "hash of mini")
    assert (found.suite, found.folder, found.seconds) == ("offline", folder, 1.5)
    assert found.examples.keys() == SCORED.examples.keys()
    sts = found.examples["en", "STS"]
    assert (sts.kind, sts.ids) == ("spearman", ("a", "b", "c"))
    assert np.array_equal(sts.gold, [1, 3, 2.5])


def change(file, at, value):
    """Set a value deep in a JSON file; `...` takes it out."""
    content = json.loads(file.read_text())
    inner = content
    for step in at[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (["format"], ..., "format None, not 2: name another folder or evaluate again"),
        (["format"], 3, "format 3, not 2: update lusifer"),
        (["model", "name"], ..., "model.name: Field required"),
        (["scores", 0, "score"], "75", r"scores\[0\].score: .*valid number"),
        (["scores", 0, "score"], float("nan"), r"scores\[0\].score: .*finite"),
        (["scores", 0, "score"], None, "Topics in sw: expected either a score or the reason"),
        (["scores", 0, "missing"], "no such file", "Topics in sw: expected either a score or the reason"),
        (["scores", 4, "high"], None, "STS in fr: 30.0 to None is no interval"),
        (["scores", 4, "low"], 60.0, "STS in fr: 60.0 to 50.5 is no interval"),
        (["scores", 3, "task"], "../x", "cannot be the name of a file"),
        (["scores", 3, "language"], "sw", "Topics in sw: duplicate score"),
        (["scores", 4, "subsets"], [], "a score without subsets"),
        (["scores", 0, "seen"], {"seen": 1}, r"scores\[0\].seen.of: Field required"),
        (["scores"], {}, "scores: Input should be a valid array"),
    ],
)
def test_a_damaged_summary_is_refused_with_its_place(folder, at, value, message):
    file = folder / "summary.json"
    change(file, at, value)
    with pytest.raises(DataError, match=message) as error:
        read(folder)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("Topics", ["sw", "ids"], ["a", "a", "b", "c"], "sw: examples: duplicate id 'a'"),
        ("Topics", ["sw", "values"], [1, 0, 1], "sw: examples: 4 ids for 3 values"),
        ("Topics", ["sw", "values"], [1, 0, 0, 1], "give 50.00, summary.json has 75.00: they are from two evaluations"),
        ("Topics", ["fr"], {"kind": "mean", "ids": ["a"], "values": [1]}, "fr: summary.json has no score"),
        ("Topics", ["sw", "kind"], ..., "sw.kind: Field required"),
        ("STS", ["en", "gold"], ..., "en: examples: kind spearman needs gold values"),
        ("STS", ["en", "values"], [0.1, 0.1, 0.1], "all 3 predictions are the same"),
    ],
)
def test_examples_that_are_not_those_of_the_scores_are_refused(folder, name, at, value, message):
    file = folder / "examples" / f"{name}.json"
    change(file, at, value)
    with pytest.raises(DataError, match=message) as error:
        read(folder)
    assert str(error.value).startswith(f"{file}: ")
    assert str(error.value).endswith("evaluate again")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_summary_is_refused(tmp_path, content):
    (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(DataError, match=r"summary.json: (damaged|format None)"):
        read(tmp_path)


def test_no_summary_is_said(tmp_path):
    with pytest.raises(DataError, match="no such file: an evaluation folder is what `lusifer evaluate` writes"):
        read(tmp_path)
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)


def test_scores_without_examples_are_scores(folder):
    (folder / "examples" / "Topics.json").unlink()
    found = read(folder)
    assert found.scores == SCORED.scores
    assert ("sw", "Topics") not in found.examples


def test_the_parts_hold_every_entry_once():
    cross = entry("es", "MLQA", cross_lingual=True)
    both = replace(SCORED, scores=(*SCORED.scores, cross))
    assert both.part(True).scores == (cross,)
    assert both.part(False).scores == SCORED.scores


def test_every_model_has_a_name_of_its_own(tmp_path):
    one, other, third = (replace(results("model", {}), folder=tmp_path / name) for name in ("a", "b", "b"))
    assert names([one, results("mini", {}), other]) == ["model (a)", "mini", "model (b)"]
    assert len(set(names([one, other, third, results("model", {})]))) == 4


def test_one_task_under_two_conditions_is_two():
    assert difference(entry("es"), replace(entry("es"), score=1.0, seen=Seen(1, 2))) is None
    assert difference(entry("es"), entry("es", split="test")) == "split dev against test"
    assert difference(entry("es", subsets=("a", "b")), entry("es", subsets=("a",))) == "subsets a, b against a"
