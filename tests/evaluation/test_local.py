"""The offline suite on small SIB-200 files, with vectors whose scores are known."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lusifer.bloom import BloomFilter
from lusifer.errors import DataError
from lusifer.evaluation import local, sib, table
from lusifer.evaluation.means import means
from lusifer.seen import SEEN

LABELS = ("science", "sports", "travel")
BOOTSTRAP = {"resamples": 500, "interval": 0.95}


def write_split(folder: Path, code: str, split: str, ids: list[int]) -> None:
    rows = [{"text": f"{code} {split} {i}", "label": LABELS[i % 3], "index_id": i} for i in ids]
    with gzip.open(sib.file_of(folder, code, split), "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


class Oracle:
    """Knows English and Spanish by heart; every Russian text gets the vector of sentence 100."""

    default_prompt_name = None
    prompts: dict = {}
    max_seq_length = 64

    def encode(self, texts, **kwargs):
        return np.array([self._vector(*text.split()) for text in texts], dtype=np.float32)

    def _vector(self, code, split, number):
        number = 100 if code == "ru" else int(number)
        vector = np.zeros(64)
        vector[number % 3] = 1
        if split == "dev" or code == "ru":
            vector[3 + number - 100] = 0.3
        return vector / np.linalg.norm(vector)

    def get_embedding_dimension(self):
        return 64


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_split(folder, "en", "train", list(range(60)))
    for code in ("en", "es", "ru"):
        write_split(folder, code, "dev", list(range(100, 112)))
    return folder


@pytest.fixture
def summary(data: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setattr(local, "SentenceTransformer", Oracle)
    return local.evaluate(Oracle(), data, ["en", "es", "ru", "fr"], name="oracle", seed=3)


def test_scores_are_what_the_vectors_say(summary):
    topics, retrieval, large = (summary["tasks"][task] for task in (sib.TOPICS, sib.RETRIEVAL, sib.RETRIEVAL_LARGE))
    assert topics["scores"] == {"en": 100, "es": 100, "ru": pytest.approx(100 / 3, abs=1e-3)}
    assert retrieval["scores"] == {"en": 100, "es": 100, "ru": pytest.approx(100 / 12, abs=1e-3)}
    assert large["scores"] == {"en": pytest.approx(100 * 3 / 60, abs=1e-3)}  # of train texts the oracle knows the topic


def test_the_larger_pool_is_the_first_204_sentences_of_the_train_split(data, monkeypatch):
    monkeypatch.setattr(local, "SentenceTransformer", Oracle)
    seen = []
    monkeypatch.setattr(Oracle, "encode", lambda self, texts, **_: seen.append(len(texts)) or np.eye(300)[: len(texts)])
    for code in ("en", "es"):
        write_split(data, code, "train", list(range(240)))
    found = local.evaluate(Oracle(), data, ["es"])["tasks"][sib.RETRIEVAL_LARGE]
    assert found["scores"] == {"es": 100} and 204 in seen


def test_a_missing_language_is_missing_with_its_reason_and_in_no_mean(summary):
    large = summary["tasks"].pop(sib.RETRIEVAL_LARGE)
    assert large["missing"]["es"] == "sib200-es-train.jsonl.gz: no such file" and "es" not in large["scores"]
    for task in summary["tasks"].values():
        assert task["missing"] == {"fr": "sib200-fr-dev.jsonl.gz: no such file"}
        assert "fr" not in task["scores"]
        mean = task["means"]["non_english"]
        assert mean["value"] == pytest.approx((task["scores"]["es"] + task["scores"]["ru"]) / 2, abs=1e-3)
        assert (mean["languages"], mean["missing"]) == (2, ["fr"])
        assert task["means"]["all"]["languages"] == 3
        assert mean["low"] <= mean["value"] <= mean["high"]


def test_the_summary_says_what_was_measured(summary, data):
    assert summary["model"] == {"name": "oracle", "identity": None, "dimension": 64, "max_tokens": 64}
    assert set(summary["data"]) == {f"sib200-{name}.jsonl.gz" for name in ("en-train", "en-dev", "es-dev", "ru-dev")}
    assert summary["settings"]["seed"] == 3
    assert summary["left_out"] == {"xquad": "xquad-en.json: no such file"}
    assert summary["settings"]["prompt"] == ""
    assert {"lusifer", "torch", "scikit-learn"} <= set(summary["versions"])


def test_texts_that_training_has_read_are_counted_for_a_model_in_its_run(data, model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "run" / "model")
    texts = ["es dev 103", "en train 7", "something else"]
    read = BloomFilter(3)
    read.update(texts)
    (tmp_path / "run" / "checkpoints" / "01-align").mkdir(parents=True)
    read.save(tmp_path / "run" / "checkpoints" / "01-align" / SEEN)
    summary = local.evaluate(tmp_path / "run" / "model", data, ["en", "es"], device="cpu")
    assert summary["seen_in_training"] == {"seen": 2, "of": 60 + 2 * 12}
    assert local.evaluate(model_folder, data, ["en"], device="cpu")["seen_in_training"] is None


def test_written_and_read_again_and_laid_out_beside_another(summary, tmp_path):
    local.write(summary, tmp_path / "scores", "a table")
    again = table.read(tmp_path / "scores")
    assert again == json.loads(json.dumps(summary))
    other = {**again, "model": {"name": "other"}, "tasks": {sib.TOPICS: again["tasks"][sib.TOPICS]}}
    text = table.markdown([again, other])
    assert "| language | oracle | other |" in text
    assert "| Russian (ru) | 33.3 | 33.3 |" in text
    assert "| Russian (ru) | 8.3 | missing |" in text
    assert "| French (fr) | missing | missing |" in text
    assert "oracle: fr is missing: sib200-fr-dev.jsonl.gz: no such file" in text
    assert "2 languages)" in text
    assert "| 0.0 |" not in text
    with pytest.raises(DataError, match=r"summary\.json: missing"):
        table.read(tmp_path)


def test_a_damaged_file_of_one_language_leaves_the_others(data, monkeypatch):
    monkeypatch.setattr(local, "SentenceTransformer", Oracle)
    file = sib.file_of(data, "es", "dev")
    file.write_bytes(file.read_bytes()[:60])
    found = local.evaluate(Oracle(), data, ["es", "ru"])["tasks"][sib.TOPICS]
    assert set(found["scores"]) == {"ru"}
    assert "sib200-es-dev.jsonl.gz: damaged" in found["missing"]["es"]


def test_a_language_without_a_sentence_of_the_pool_is_missing_not_nan(data, monkeypatch):
    monkeypatch.setattr(local, "SentenceTransformer", Oracle)
    write_split(data, "ru", "dev", [500, 501])
    found = local.evaluate(Oracle(), data, ["es", "ru"])["tasks"][sib.RETRIEVAL]
    assert found["missing"]["ru"] == "no sentence of it is in the pool" and set(found["scores"]) == {"es"}
    assert found["means"]["all"] == {**found["means"]["all"], "value": 100, "missing": ["ru"]}


@pytest.mark.parametrize("name", ["sib200-en-dev.jsonl.gz", "xquad-en.json"])
def test_damaged_english_files_are_said_before_the_model_is_loaded(data, name):
    (data / name).write_bytes(b"{")
    with pytest.raises(DataError, match=rf"{name}: damaged"):
        local.evaluate("no-such-model", data, ["es"])


def test_scores_are_written_beside_what_is_there(summary, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    local.write(summary, tmp_path, "a table")
    assert {path.name for path in tmp_path.iterdir()} >= {"thesis.txt", "summary.json", "table.md"}


def test_without_english_there_is_nothing_to_measure(data, monkeypatch):
    monkeypatch.setattr(local, "SentenceTransformer", Oracle)
    sib.file_of(data, "en", "train").unlink()
    with pytest.raises(DataError, match=r"data/sib200-en-train\.jsonl\.gz: no such file: the folder must hold"):
        local.evaluate(Oracle(), data, ["es"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x", "label": "y"}', "line 1: expected an object with text, label and index_id"),
        ('{"text": "", "label": "y", "index_id": 1}', "line 1: the text is empty"),
        ('{"text": "x", "label": "y", "index_id": 1}\n' * 2, "line 2: index_id 1 stands there twice"),
        ('{"text": "x", "label": "y", "index_id": "1"}', "line 1: index_id is '1', no number"),
        ("{", "line 1: not JSON"),
        ("", "no rows"),
    ],
)
def test_wrong_rows_are_named(tmp_path, line, message):
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(line)
    with pytest.raises(DataError, match=message):
        sib.read(tmp_path / "a.jsonl.gz")


def test_the_interval_depends_on_the_seed_alone_and_shrinks_with_more_sentences():
    chance = np.random.default_rng(0)
    small = {code: {i: bool(chance.random() < 0.5) for i in range(50)} for code in "ab"}
    large = {code: {i: bool(chance.random() < 0.5) for i in range(5000)} for code in "ab"}
    first, again = (means(small, ["a", "b"], 1, BOOTSTRAP) for _ in range(2))
    assert first == again
    wide, narrow = means(small, ["a", "b"], 1, BOOTSTRAP), means(large, ["a", "b"], 1, BOOTSTRAP)
    assert narrow["high"] - narrow["low"] < (wide["high"] - wide["low"]) / 5
    # 95 % of a mean of 10,000 coin throws: 1.96 * 50 % / 100
    assert narrow["high"] - narrow["low"] == pytest.approx(2 * 1.96 * 50 / 100, rel=0.15)


def test_sentences_are_drawn_once_for_all_languages():
    row = {i: i < 25 for i in range(50)}
    one = means({"a": row}, ["a"], 1, BOOTSTRAP)
    many = means({code: row for code in "abcdef"}, list("abcdef"), 1, BOOTSTRAP)
    assert (one["low"], one["high"]) == (many["low"], many["high"])


def test_a_language_that_lacks_sentences_is_averaged_over_those_it_has():
    hits = {"a": {1: True, 2: True, 3: False, 4: False}, "b": {1: True}}
    assert means(hits, ["a", "b"], 0, BOOTSTRAP)["value"] == 75
    assert means(hits, ["c"], 0, BOOTSTRAP) == {
        "value": None, "low": None, "high": None, "languages": 0, "missing": ["c"],
    }  # fmt: skip
