"""Instructions that come from rows and tasks are saved with the model, and every way of using it gives them again."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import lusifer
from lusifer.cli import main
from lusifer.embedder import info
from lusifer.evaluation.run.encoder import load_model
from lusifer.serving.encode import choose_prompt
from lusifer.training.recipe.load import load_recipe
from lusifer.training.stages import contrastive
from support.small_run import train, unfinish

pytestmark = pytest.mark.slow

RECIPE = """
name: told
max_length: 48
model: {encoder: {path: "tiny:encoder"}, llm: {path: "tiny:llm"}}
stages:
  - name: contrast
    kind: contrastive
    train: {encoder: frozen, connector: true}
    hard_negatives: 1
    batch_size: 4
    mini_batch_size: 4
    max_steps: 5
    save_steps: 2
    learning_rate: 1.0e-3
    data:
      - {path: rows.jsonl}
      - {path: alike.jsonl, symmetric: true}
"""
ROWS, ALIKE = "Find what answers it.", "Find the same news."
SEARCH, SAME = "retrieval", "sts"
"""Tasks of the table, of which documents of the second have the instruction."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with an instruction, with a task, with a task of texts of one kind, with neither, and a symmetric source."""
    folder = tmp_path_factory.mktemp("told")
    kinds = [{"instruction": f" {ROWS} "}, {"task": SEARCH}, {"task": SAME}, {}]
    rows = [
        {"query": f"{kind} question {n}", "positive": [f"answer {kind} {n}"], "negative": ["no"], **more}
        for kind, more in enumerate(kinds)
        for n in range(8)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    alike = [
        {"query": f"news {n}", "positive": [f"report {n}"], "negative": [], "instruction": ALIKE} for n in range(8)
    ]
    (folder / "alike.jsonl").write_text("".join(json.dumps(row) + "\n" for row in alike))
    (folder / "told.yaml").write_text(RECIPE)
    return folder / "told.yaml"


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe, tmp_path_factory.mktemp("run") / "whole").parent


@pytest.fixture(scope="module")
def resumed(recipe: Path, whole: Path) -> Path:
    copy = unfinish(whole, whole.with_name("resumed"), "01-contrast", 2)
    return train(recipe, copy, resume=True).parent


@pytest.fixture(params=["whole", "resumed"])
def model(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param) / "model"


def test_a_query_and_a_document_get_what_stood_before_them_in_training(model, recipe):
    read = load_recipe(recipe)
    seen = {}
    for found, _ in contrastive.examples(read, read.stages[0], 1).found.values():
        seen[found.prompts["query"].strip()] = (found.prompts["query"], found.prompts["positive"])
    assert len(seen) == 5  # among them no instruction at all
    saved = lusifer.load(model, device="cpu").prompts
    for words, (query, document) in seen.items():
        if not words:
            continue
        assert choose_prompt(saved, words) == choose_prompt(saved, words, role="query") == query
        if document:
            assert choose_prompt(saved, words, role="document") == document
        else:
            assert f"{words}-document" not in saved and choose_prompt(saved, role="document") == ""
    for task, alike in ((SEARCH, False), (SAME, True)):
        query, document = (choose_prompt(saved, task=task, role=role) for role in ("query", "document"))
        assert seen[query.strip()] == (query, document) and bool(document) == alike


def test_every_checkpoint_has_them_too(whole, resumed):
    wanted = lusifer.load(whole / "model", device="cpu").prompts
    assert {ROWS, ALIKE, f"{ALIKE}-document"} < wanted.keys() and f"{ROWS}-document" not in wanted
    for run in (whole, resumed):
        for place in [run / "model", *run.glob("checkpoints/01-contrast/checkpoint-*")]:
            settings = json.loads((place / "config_sentence_transformers.json").read_text())
            assert settings["prompts"] == wanted, place


def test_evaluation_uses_instructions_and_info_lists_them(model):
    assert load_model(model, None, "cpu").instructed
    said = info.describe(model)
    assert said[f"prompt {ROWS}"] == repr(f"{ROWS}\n") and said[f"prompt {ALIKE}-document"] == repr(f"{ALIKE}\n")


def test_without_them_a_model_is_scored_without(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "copy")
    file = copy / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prompts": {"query": "", "document": ""}}))
    assert not load_model(copy, None, "cpu").instructed


def test_the_example_of_the_card_has_an_instruction_of_training(model):
    card = (model / "README.md").read_text()
    for words in (ROWS, ALIKE):
        assert f"`'{words}\\n'`" in card
    block = re.search(r"```python\n(.*?)```", card, flags=re.DOTALL)[1]
    typed: dict = {}
    exec(block.replace("DIR", str(model)), typed)
    prompt = re.search(r"prompt='(.*?)\\n'", block)[1]
    assert prompt in card.partition("Instructions of training")[2] and "before queries only" in card
    loaded = lusifer.load(model, device="cpu")
    assert np.abs(typed["queries"] - loaded.encode(["Where is the station?"], prompt=f"{prompt}\n")).max() < 1e-6
    assert np.abs(typed["documents"] - loaded.encode(["La estación está en el norte."], prompt="")).max() < 1e-6


@pytest.mark.parametrize(
    ("wish", "prefix"),
    [
        (["--prompt", ROWS], f"{ROWS}\n"),
        (["--prompt", ALIKE, "--role", "document"], f"{ALIKE}\n"),
        (["--task", SAME, "--role", "document"], "Find a sentence with the same meaning.\n"),
        (["--task", SEARCH, "--role", "document"], ""),
        (["--role", "document"], ""),
    ],
)
def test_embed_gives_the_vectors_of_training(wish, prefix, whole, tmp_path):
    (tmp_path / "in.txt").write_text("Rain fell on the roof.\n")
    call = ["embed", str(whole / "model"), "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "o.npy")]
    assert main([*call, *wish]) == 0
    wanted = lusifer.load(whole / "model", device="cpu").encode(["Rain fell on the roof."], prompt=prefix)
    assert np.abs(np.load(tmp_path / "o.npy") - wanted).max() < 1e-6


def test_an_instruction_of_queries_is_refused_for_documents(whole, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("Rain fell on the roof.\n")
    call = ["embed", str(whole / "model"), "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "o.npy")]
    assert main([*call, "--prompt", ROWS, "--role", "document"]) == 2
    assert "this model has no such instruction for documents" in capsys.readouterr().err
