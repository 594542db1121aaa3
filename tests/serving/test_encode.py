"""Vectors of a file are those of `SentenceTransformer.encode`, in order, whatever the batches."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from lusifer import load
from lusifer.errors import DataError, LusiferError, UsageError
from lusifer.serving import bulk, encode
from lusifer.serving.files import TextRow, TextSource

WORDS = "river воды 水 नदी maji نهر stone Straße 🙂 </s> <mask> naïve".split()


def some_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of 1 to 60 words, scripts mixed within each."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 60))) for _ in range(count)]


def embedded(embedder, texts: list[str], prompt: str | None = None, batch_tokens: int | None = None) -> np.ndarray:
    rows = [(f"text {number}", text) for number, text in enumerate(texts, 1)]
    report = encode.EmbedReport(limit=embedder.max_seq_length)
    return encode.embed_rows(embedder, rows, report, prompt=prompt, batch_tokens=batch_tokens)


def embed_file(embedder, source: TextSource, output: Path, progress=None, **settings) -> encode.EmbedReport:
    job = bulk.EmbedJob(source, output)
    return bulk.run(job, bulk.local(embedder, embedder.max_seq_length, **settings), progress)


@pytest.fixture(scope="module")
def embedder(model_folder: Path):
    return load(model_folder, device="cpu")


@pytest.mark.parametrize("budget", [1, 64, 500, 8192, None])
@pytest.mark.parametrize("prompt", [None, "", "Given a question, find passages that answer it.\n"])
def test_vectors_are_those_of_sentence_transformers(embedder, budget, prompt):
    texts = some_texts(40)
    expected = embedder.encode(texts, prompt=prompt)
    found = embedded(embedder, texts, prompt, batch_tokens=budget)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-6


def test_the_default_prompt_of_a_model_is_used_and_counted(model_folder):
    embedder = load(model_folder, device="cpu")
    without = embedded(embedder, ["water"])
    assert encode.token_counts(embedder, ["water"]) == [len(embedder.tokenizer("water")["input_ids"])]
    embedder.default_prompt_name = "passage"
    assert encode.token_counts(embedder, ["water"]) == [len(embedder.tokenizer("Find: water")["input_ids"])]
    assert np.array_equal(embedded(embedder, ["water"]), embedder.encode(["water"]))
    assert not np.array_equal(embedded(embedder, ["water"]), without)


def test_a_vector_is_cut_where_the_model_was_trained_for_it_and_has_length_1_again(model_folder):
    embedder = load(model_folder, device="cpu")
    assert encode.dimensions(embedder) == [48]
    embedder[0].model.config.matryoshka_dims = [8, 48, 16]
    assert encode.dimensions(embedder) == [48, 16, 8]
    whole = embedder.encode(some_texts(3))
    short = encode.shorten(whole, 8)
    assert np.allclose(short, whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True), atol=1e-7)
    assert short.dtype == np.float32 and encode.shorten(whole, 48) is encode.shorten(whole, None) is whole


def test_windows_are_bounded_by_characters_too(monkeypatch):
    monkeypatch.setattr(bulk, "CHARACTERS_AT_ONCE", 10)
    rows = [TextRow("a", "x" * 6), TextRow("b", "x" * 6), TextRow("c", "x")]
    assert [len(found) for found in bulk._cut(rows, 100)] == [2, 1]
    assert [len(found) for found in bulk._cut(rows, 1)] == [1, 1, 1]


def test_what_is_cut_is_counted_and_the_first_one_named(embedder, tmp_path):
    (tmp_path / "in.txt").write_text("short\n" + "water " * 500 + "\n" + "stone " * 900 + "\n", encoding="utf-8")
    source = TextSource(str(tmp_path / "in.txt"))
    report = embed_file(embedder, source, tmp_path / "o.npy")
    assert (report.rows, report.cut, report.limit) == (3, 2, 64)
    assert report.first_cut.endswith("in.txt line 2")
    assert report.first_tokens == len(embedder.tokenizer("water " * 500, truncation=False)["input_ids"])
    with pytest.raises(DataError, match=r"in\.txt line 2: [\d,]+ tokens, but the model reads 64"):
        embed_file(embedder, source, tmp_path / "refused.npy", refuse_long=True)
    assert not (tmp_path / "refused.npy").exists()


def test_a_vector_that_is_not_finite_is_an_error_and_leaves_no_file(model_folder, tmp_path):
    import torch

    embedder = load(model_folder, device="cpu")
    with torch.no_grad():
        embedder[0].model.connector.mapping.ff[0].bias[0] = float("nan")
    (tmp_path / "in.txt").write_text("one\n", encoding="utf-8")
    with pytest.raises(LusiferError, match="line 1: the vector is not finite"):
        embed_file(embedder, TextSource(str(tmp_path / "in.txt")), tmp_path / "o.npy")
    assert list(tmp_path.iterdir()) == [tmp_path / "in.txt"]


def test_the_prompt_follows_instruction_task_role_and_model():
    choose = encode.choose_prompt
    own = {"query": "", "document": "d: ", "sts-query": "own: "}
    assert choose(own) is None
    assert choose(own, role="document") == "d: "
    assert choose({}, role="query") == ""
    assert choose(own, "Find it.") == choose(own, "Find it.", role="query") == "Find it.\n"
    assert choose(own, task="sts") == "own: "
    assert choose(own, task="sts", role="document") == "Find a sentence with the same meaning.\n"
    assert choose({}, task="retrieval", role="document") == ""
    with pytest.raises(UsageError, match="exclude each other"):
        choose(own, "x", "sts")
    with pytest.raises(UsageError, match="this model has no such instruction for documents"):
        choose(own, "x", role="document")
    with pytest.raises(UsageError, match="task 'stss' is unknown"):
        choose(own, task="stss")
    with pytest.raises(UsageError, match="its own form of prompts"):
        choose({"query": "<s>"}, "x")


@pytest.mark.parametrize(
    ("dtype", "device", "has", "told"),
    [
        ("bfloat16", "cpu", {"avx2": True}, True),
        ("bfloat16", "cpu", {"amx_bf16": True}, False),
        ("bfloat16", "cpu", {"avx512_bf16": True}, False),
        ("bfloat16", "cuda", {"avx2": True}, False),
        ("float16", "cpu", {"amx_bf16": True}, True),
        ("float32", "cpu", {}, False),
        (None, "cpu", {}, False),
    ],
)
def test_a_format_that_the_processor_has_no_instructions_for_is_said(monkeypatch, dtype, device, has, told):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", **has})
    said = encode.slow_format(torch.device(device), dtype)
    assert (said is not None) == told
    assert said is None or (dtype in said and "float32 is faster here" in said)
