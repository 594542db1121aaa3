"""A prompt as long as the model reads makes every vector the same: it is refused wherever a prompt can be given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lusifer
from lusifer.cli import main
from lusifer.embedder import doctor
from lusifer.errors import UsageError
from lusifer.prompts import check_room

WORDS = ["water", "the", "train", "late", "walked", "home", "park", "where", "river", "of", "Rain"]
LIMIT = 64
LONG = "Given a question about a river, find the passage that answers it. " * 12
TEXTS = ["Water.", "The train was late.", "Сколько воды нужно?", "7"]


@pytest.fixture(scope="module")
def embedder(model_folder):
    return lusifer.load(model_folder, device="cpu")


def prompt_near(embedder, words: list[str], end: str, tokens: int) -> str:
    """A prompt of those words, over and over, as long as can be with at most so many tokens."""
    found = ""
    for number in range(10 * tokens):
        longer = f"{found} {words[number % len(words)]}".strip()
        if len(embedder.tokenizer(longer + end)["input_ids"]) > tokens:
            break
        found = longer
    return found + end


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), st.sampled_from(["\n", ": ", "", " "]), st.integers(-4, 4)
)
def test_it_is_refused_just_when_all_vectors_are_equal(embedder, words, end, more):
    prompt = prompt_near(embedder, words, end, LIMIT + more)
    vectors = embedder.encode(["a", "the", "1", "Z", "?", "水"], prompt=prompt)
    equal = np.abs(vectors - vectors[0]).max() < 1e-6
    if equal:
        with pytest.raises(UsageError, match=rf"^here: the prompt .* leaves no room for a text in max_length {LIMIT}:"):
            check_room(prompt, embedder.tokenizer, LIMIT, "here")
    else:
        check_room(prompt, embedder.tokenizer, LIMIT, "here")


@pytest.mark.parametrize("prompt", [None, "", "query: ", "Where is it?\n"])
def test_a_short_one_no_limit_and_no_tokenizer_pass(embedder, prompt):
    check_room(prompt, embedder.tokenizer, LIMIT, "here")
    check_room(LONG, embedder.tokenizer, None, "here")
    check_room(LONG, object(), LIMIT, "here")


@pytest.fixture
def texts(tmp_path) -> Path:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    return tmp_path / "texts.txt"


def with_prompts(model_folder: Path, place: Path, **prompts: str) -> Path:
    shutil.copytree(model_folder, place)
    file = place / "config_sentence_transformers.json"
    content = json.loads(file.read_text())
    default = prompts.pop("default_name", None)
    content["prompts"] |= prompts
    content["default_prompt_name"] = default
    file.write_text(json.dumps(content))
    return place


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> None:
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert "has " in said and f"leaves no room for a text in max_length {LIMIT}: shorten it" in said


def test_embed_refuses_it_given_saved_by_role_by_task_and_by_default(model_folder, texts, tmp_path, capsys):
    made = tmp_path / "out.npy"
    call = ["embed", model_folder, "--input", texts, "--output", made]
    refused(capsys, *call, "--prompt", LONG)
    own = with_prompts(model_folder, tmp_path / "own", query=LONG, **{"mine-query": LONG})
    refused(capsys, "embed", own, *call[2:], "--role", "query")
    task = with_prompts(model_folder, tmp_path / "task", **{"retrieval-query": LONG})
    refused(capsys, "embed", task, *call[2:], "--task", "retrieval")
    default = with_prompts(model_folder, tmp_path / "default", passage=LONG, default_name="passage")
    refused(capsys, "embed", default, *call[2:])
    assert not made.exists()
    assert main([*map(str, call), "--prompt", "Find: "]) == 0


@pytest.mark.parametrize("option", ["--query-prompt", "--document-prompt"])
def test_mine_refuses_it(model_folder, tmp_path, capsys, option):
    rows = [{"query": f"question {n}", "positive": f"answer {n}"} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call = ["data", "mine", tmp_path / "rows.jsonl", "--model", model_folder, "--output", tmp_path / "o.jsonl"]
    refused(capsys, *call, option, LONG)
    assert not (tmp_path / "o.jsonl").exists()


def test_cluster_refuses_it(model_folder, tmp_path, capsys):
    rows = [{"query": f"question {n}", "positive": f"answer {n}"} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call = ["data", "cluster", tmp_path / "rows.jsonl", "--model", model_folder, "--output", tmp_path / "o.jsonl"]
    refused(capsys, *call, "--query-prompt", LONG)


def test_doctor_is_red_for_a_saved_one(model_folder, tmp_path):
    place = with_prompts(model_folder, tmp_path / "own", passage=LONG)
    red = [probe for probe in doctor.examine(place, device="cpu") if not probe.ok]
    assert [probe.name for probe in red] == ["a prompt reaches the model"]
    assert "prompt 'passage': the prompt 'Given a question about a river, find the' has" in red[0].detail


def test_evaluate_refuses_the_models_own(minilm_like_folder, tmp_path, capsys):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    model = SentenceTransformer(
        modules=[Transformer(str(minilm_like_folder)), Pooling(48)], prompts={"query": LONG}, device="cpu"
    )
    model.max_seq_length = LIMIT
    model.save_pretrained(str(tmp_path / "bert"))
    refused(capsys, "evaluate", tmp_path / "bert", "--suite", "sample", "--output", tmp_path / "scores")
    assert not (tmp_path / "scores" / "summary.json").exists()
