"""The scripts of examples/mini on a toy: the encoder starts from its teacher's layers, a small folder is the model."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertModel, ElectraConfig, ElectraModel

import lusifer
from lusifer.evaluation.run.evaluate import Options, evaluate
from support import processes
from support.offline_files import Oracle, write_questions, write_split

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples" / "mini"
WORDS = "water river house bread night train money road school doctor market letter garden winter bridge".split()
OTHER = "maji mto nyumba mkate usiku treni pesa barabara shule daktari soko barua bustani baridi daraja".split()


def write(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of three words and a dictionary, in a made-up grammar."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    rows = [{"en": word, "sw": other, "source": "freedict"} for word, other in zip(WORDS, OTHER, strict=True)]
    texts = []
    for number in range(300):
        chosen = generator.integers(len(WORDS), size=4)
        english, other = (" ".join(words[place] for place in chosen) for words in (WORDS, OTHER))
        rows.append({"en": english, "sw": other, "source": ("ntrex", "news")[number % 2]})
        texts.append({"text": english + " and then home"})
    write(folder / "parallel" / "en-sw.jsonl.gz", rows)
    write(folder / "english" / "passages.jsonl.gz", texts[:200])
    write(folder / "english" / "labelled.jsonl.gz", texts[200:])
    write(folder / "english" / "pairs.jsonl.gz", [{"query": "a", "positive": ["b c"], "negative": []}])
    return folder


@pytest.fixture
def script(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CompletedProcess[str]]:
    """Run a script of the example in a process of its own."""
    return lambda name, *words: processes.script(EXAMPLES / name, tmp_path_factory.mktemp("said"), *words)


def test_the_encoder_trains_on_a_toy_and_loads_as_an_embedder(
    data: Path, minilm_like_folder: Path, tmp_path: Path, script: Callable[..., CompletedProcess[str]]
) -> None:
    modules = [Transformer(str(minilm_like_folder)), Pooling(48)]
    teacher = tmp_path / "teacher"
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(teacher), create_model_card=False)
    words = ["--data", data, "--output", tmp_path / "encoder", "--languages", "sw", "--teacher", teacher]
    words += ["--layers", "0,0", "--vocabulary", 120, "--width", 16, "--table-steps", 2]
    words += ["--encoder-steps", 2, "--held-out", 5]
    done = script("train_encoder.py", *words)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "encoder" / "training.json").read_text())
    assert report["steps"] == {"table": 2, "encoder": 2}
    assert set(report["held_out_retrieval"]) == {"table", "before training", "encoder"}
    embedder = SentenceTransformer(str(tmp_path / "encoder"))
    assert embedder.encode(["maji", "water"]).shape == (2, 48)
    assert len(embedder[0].auto_model.encoder.layer) == 2
    for option, value in (("--width", 48), ("--layers", "0,7"), ("--vocabulary", 0)):  # said before anything is read
        refused = script("train_encoder.py", *words, option, value)
        assert refused.returncode == 2 and f"{option}" in refused.stderr.splitlines()[-1]
    missing = script("train_encoder.py", *words[:5], "sw,xx", *words[6:])
    assert missing.returncode == 2
    assert (
        missing.stderr.strip()
        .splitlines()[-1]
        .endswith("en-xx.jsonl.gz: no such file (see --data and --languages in README.md)")
    )


@pytest.mark.parametrize(("width", "likeness"), [(47, 0.98), (24, 0.8)])
def test_words_at_a_smaller_width_give_the_layers_nearly_what_the_teacher_reads(
    width: int, likeness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    from encoder import _factorise  # noqa: PLC0415

    torch.manual_seed(0)
    size = {"vocab_size": 500, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    theirs = BertModel(BertConfig(hidden_size=48, **size), add_pooling_layer=False).eval()
    low = torch.randn(500, 20) @ torch.randn(20, 48)  # as of real words, few directions carry most
    with torch.no_grad():
        theirs.embeddings.word_embeddings.weight.copy_(0.02 * low + 0.02 * torch.randn(500, 48))
        theirs.embeddings.LayerNorm.weight.uniform_(0.5, 1.5)
        theirs.embeddings.LayerNorm.bias.normal_(std=0.1)
    ours = ElectraModel(ElectraConfig(hidden_size=48, embedding_size=width, **size)).eval()
    _factorise(ours, theirs.embeddings.word_embeddings.weight.clone(), theirs)
    ids = torch.randint(500, (20, 12))
    with torch.no_grad():
        wanted, found = theirs.embeddings(ids), ours.embeddings_project(ours.embeddings(ids))
    assert torch.cosine_similarity(found, wanted, dim=-1).mean() > likeness
    assert found.norm(dim=-1).mean() == pytest.approx(wanted.norm(dim=-1).mean().item(), rel=0.15)


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
    topics, found, *xquad = done.stdout.split("\n\n")
    assert "| English (en) | 100.0 (74–100) |" in topics and "| **mean without English** | **100.0**" in topics
    assert len(xquad) == 2 and "Spanish" in xquad[0] and "English (en)" in xquad[0] and "Finnish" not in found
    assert script("results.py", f"oracle={tmp_path}").returncode == 2


def test_a_small_folder_gives_the_vectors_of_the_model(
    model_folder: Path, tmp_path: Path, script: Callable[..., CompletedProcess[str]]
) -> None:
    refused = script("ship.py", model_folder, tmp_path / "small", "--card", tmp_path / "none.md")
    assert refused.returncode == 2 and "none.md: no such file" in refused.stderr
    done = script("ship.py", model_folder, tmp_path / "small")
    assert done.returncode == 0, done.stderr
    tensors = load_file(tmp_path / "small" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert tensors["llm.embed_tokens.weight"].shape[0] == 1
    texts = ["Water.", "Сколько воды нужно?"]
    large, small = (lusifer.load(path, device="cpu") for path in (model_folder, tmp_path / "small"))
    assert {p.dtype for p in small.parameters()} == {torch.float32}
    assert np.abs(large.encode(texts) - small.encode(texts)).max() < 2e-3
    sizes = [(path / "model.safetensors").stat().st_size for path in (model_folder, tmp_path / "small")]
    assert sizes[1] < 0.6 * sizes[0]
