"""Lengths of local texts: in tokens where the tokenizers are here, else from characters, and the output says which."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lusifer.cli import check
from lusifer.io import hub
from lusifer.model import build
from lusifer.training.estimate import lengths
from lusifer.training.estimate.cost import SourceLoad, StageLoad, stage_load
from lusifer.training.recipe.load import load_recipe
from lusifer.training.recipe.recipe import Recipe

LONG = "whale " * 200


@pytest.fixture(autouse=True)
def fresh() -> None:
    lengths._read.cache_clear()


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """The recipe `tiny` with pairs in two files: an instruction of their own, and one text that is truncated."""
    row = {"query": "what is a whale?", "positive": ["a mammal"], "negative": [LONG], "instruction": "Find the answer."}
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    data = f"[{{path: '{tmp_path}/*.jsonl'"
    changes = [
        f"stages.contrastive.data={data}}}]",
        f"stages.alignment.data={data}, role: query_to_passage}}]",
        "stages.alignment.objectives={completion: 1}",
    ]
    return load_recipe("tiny", changes)


def tokens(backbone: str, *texts: str, special: bool = True) -> list[int]:
    tokenizer = lengths.at_hand(SimpleNamespace(path=f"tiny:{backbone}", revision=None), backbone)
    return [len(tokenizer(text, add_special_tokens=special)["input_ids"]) for text in texts]


def test_texts_are_counted_in_tokens_as_a_stage_reads_them(recipe: Recipe) -> None:
    align, contrast = (stage_load(recipe, stage).sources[0] for stage in recipe.stages)
    assert (align.counted, align.looked, align.texts) == (contrast.counted, contrast.looked, contrast.texts - 1)
    assert (align.looked, align.rows, contrast.texts) == (6, 6, 3)
    plain = tokens("encoder", "what is a whale?", "a mammal")  # no instruction, and no negatives
    assert align.tokens == pytest.approx(sum(plain) / 2) and align.cut == 0
    own = tokens("llm", "what is a whale?", "a mammal", special=False)
    assert align.target == pytest.approx(sum(own) / 2 + 2)  # BOS and EOS around the text
    asked = tokens("encoder", "Find the answer.\nwhat is a whale?", "a mammal")
    assert contrast.tokens == pytest.approx((sum(asked) + recipe.longest(recipe.stages[1])) / 3)
    assert (contrast.cut, contrast.target) == (pytest.approx(1 / 3), None)


def test_without_a_tokenizer_characters_are_counted(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "at_hand", lambda base, backbone: None)
    load = stage_load(recipe, recipe.stages[0]).sources[0]
    assert (load.measured, load.counted, load.target) == (True, False, None)
    assert load.tokens == pytest.approx((len("what is a whale?") + len("a mammal")) / 2 / 4 + 2)


def test_many_files_are_read_evenly(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "LOOK", 4)
    assert stage_load(recipe, recipe.stages[1]).sources[0].looked == 4
    monkeypatch.setattr(lengths, "LOOK", 1)
    assert stage_load(recipe, recipe.stages[1]).sources[0].looked == 1


def test_a_tokenizer_of_the_hub_is_read_from_the_cache_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def cached(name: str, files: list[str], revision: str | None = None) -> Path | None:
        asked.append((name, revision))
        return build.TINY / "encoder" if name == "someone/here" else None

    monkeypatch.setattr(hub, "cached", cached)
    here, away = (
        lengths.at_hand(SimpleNamespace(path=f"someone/{name}", revision="abc"), "encoder") for name in ("here", "away")
    )
    assert here is not None and away is None
    assert asked == [("someone/here", "abc"), ("someone/away", "abc")]


def test_the_output_says_how_lengths_were_found() -> None:
    counted = SourceLoad("a", 10, 5.0, True, looked=10, counted=True)
    guessed = SourceLoad("b", 10, 5.0, True, looked=1000)
    away = SourceLoad("c", 10, 64.0, False)
    stages = [
        SimpleNamespace(load=StageLoad([counted, guessed], [], 1)),
        SimpleNamespace(load=StageLoad([away], [], 1)),
    ]
    one, two, three = check._lengths(stages)
    assert one == "1 of 3 sources: lengths counted in tokens, from the first 10 rows"
    assert two.startswith("1 of 3 sources: lengths estimated from characters, from the first 1,000 rows: the tokenizer")
    assert "1 of 3 sources are not on this machine" in three and "upper bounds" in three


def test_stage_means_weigh_by_rows() -> None:
    load = StageLoad([SourceLoad("a", 30, 10.0, True, target=20.0), SourceLoad("b", 10, 50.0, True)], [], 1)
    assert (load.tokens, load.target) == (20.0, 27.5)
