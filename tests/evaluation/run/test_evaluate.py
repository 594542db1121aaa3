"""An evaluation from model to folder, on small files whose scores are known."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lusifer.errors import DataError, LusiferError, UsageError
from lusifer.evaluation.run.evaluate import Options, evaluate
from lusifer.evaluation.scores import results
from lusifer.evaluation.scores.folder import EvaluationFolder
from lusifer.evaluation.suites import suite
from lusifer.evaluation.tasks import sib200, sts, xquad
from lusifer.io import seen
from support.offline_files import Oracle, write_questions, write_split
from support.words import Words

CODES = ("en", "es", "ru", "fr")


def scores(summary: dict, task: str) -> dict:
    return {entry["language"]: entry["score"] for entry in summary["scores"] if entry["task"] == task}


@pytest.fixture
def summary(data: Path, tmp_path: Path) -> dict:
    return evaluate(Oracle(), Options(data=data, languages=CODES, seed=3), tmp_path / "scores", name="oracle")


def test_scores_are_what_the_vectors_say(summary):
    third, twelfth = pytest.approx(100 / 3, abs=1e-3), pytest.approx(100 / 12, abs=1e-3)
    assert scores(summary, "SIB200ZeroShotTopics") == {"es": 100, "ru": third, "fr": None}
    assert scores(summary, "SIB200Topics") == {"en": 100, "es": 100, "ru": None, "fr": None}
    assert scores(summary, "SIB200TranslationToEnglishDev") == {"es": 100, "ru": twelfth, "fr": None}
    assert scores(summary, "XQuADParagraphs") == {"en": 100, "es": 75, "ru": None, "fr": None}
    assert scores(summary, "XQuADToEnglish")["es"] == 100  # every paragraph is there in English
    assert scores(summary, "XQuADFromEnglish")["es"] == 75
    assert scores(summary, "STSFile") == {"es": pytest.approx(100)}
    assert scores(summary, "SIB200Clusters")["en"] > 90


def test_the_topics_are_those_of_a_classifier_on_all_training_sentences(data, tmp_path):
    from sklearn.linear_model import LogisticRegression

    model = Words(seed=4)
    train, test = (sib200.read(sib200.file_of(data, "es", split)) for split in ("train", "dev"))
    vectors = [model.encode(split.texts, normalize_embeddings=True) for split in (train, test)]
    learned = LogisticRegression(**sib200.CLASSIFIER).fit(vectors[0], train.labels)
    share = 100 * np.mean(learned.predict(vectors[1]) == np.array(test.labels))
    found = evaluate(Words(seed=4), Options(data=data, languages=["es"], tasks=["SIB200Topics"]))
    assert scores(found, "SIB200Topics") == {"es": pytest.approx(share, abs=1e-3)}


def test_the_length_of_a_models_vectors_counts_for_nothing(data):
    class Long(Words):
        def vector(self, text):
            return 50 * super().vector(text)

    options = Options(data=data, languages=["es"], tasks=["SIB200Topics", "SIB200Clusters"])
    plain, long = (evaluate(model(seed=4), options)["scores"] for model in (Words, Long))
    assert [entry["score"] for entry in plain] == [entry["score"] for entry in long]


def test_what_cannot_be_measured_is_missing_with_its_reason(summary):
    for entry in summary["scores"]:
        assert (entry["score"] is None) == bool(entry["missing"])
    reasons = {(entry["task"], entry["language"]): entry["missing"] for entry in summary["scores"] if entry["missing"]}
    assert reasons["SIB200Topics", "ru"] == "sib200-ru-train.jsonl.gz: no such file"
    assert reasons["XQuADToEnglish", "fr"] == "xquad-fr.json: no such file"


def test_the_folder_reads_as_what_was_returned(summary, tmp_path):
    read = results.read(tmp_path / "scores")
    assert (read.suite, read.model.name, read.model.identity) == ("offline", "oracle", summary["model"]["identity"])
    assert [entry.score for entry in read.scores] == [entry["score"] for entry in summary["scores"]]
    found = {entry.key: entry for entry in read.scores}
    topics, clusters = found["es", "SIB200ZeroShotTopics"], found["es", "SIB200Clusters"]
    assert topics.low < topics.high == 100 and topics.n == 12 and topics.cross_lingual
    assert clusters.low is None and not clusters.cross_lingual
    assert set(read.data) >= {"sib200-en-train.jsonl.gz", "xquad-es.json", "sts-es.jsonl"}
    texts = {task: examples.texts for (_, task), examples in read.examples.items()}
    assert texts["SIB200ZeroShotTopics"] == texts["SIB200TranslationToEnglish"] == "SIB-200"
    assert texts["XQuADToEnglish"] == texts["XQuADParagraphs"] == "XQuAD" and texts["STSFile"] is None
    assert read.settings["seed"] == 3 and {"lusifer", "mteb", "torch"} <= set(read.versions)


def test_the_gap_between_languages_is_measured_on_the_sentences_that_all_have(summary, tmp_path):
    found = EvaluationFolder(tmp_path / "scores").read_gap()
    assert found.sentences == 30 and set(found.within) == {"en", "es"}
    assert found.against["es"].shift == pytest.approx(0, abs=1e-6)  # of training texts the oracle knows the topic alone
    drawn = EvaluationFolder(tmp_path / "scores").read_islands()
    assert {code: rows.shape for code, rows in drawn.items()} == {"en": (30, 64), "es": (30, 64)}
    assert np.allclose(np.linalg.norm(drawn["en"], axis=1), 1, atol=1e-2)
    (tmp_path / "scores" / "gap.json").write_text("{")
    with pytest.raises(DataError, match=r"gap\.json: damaged"):
        EvaluationFolder(tmp_path / "scores").read_gap()


def test_the_sample_suite_needs_no_files(tmp_path):
    found = evaluate(Words(), Options(suite="sample", languages=["en", "sw"]), tmp_path / "scores")
    assert {entry["task"] for entry in found["scores"]} == {
        "SampleTranslationToEnglish", "SampleTranslationFromEnglish",
    }  # fmt: skip
    assert all(entry["n"] == 28 and entry["cross_lingual"] for entry in found["scores"])
    assert EvaluationFolder(tmp_path / "scores").read_gap().sentences == 28


@pytest.mark.parametrize(
    ("prompts", "query", "document"),
    [
        ({}, "", ""),
        ({"query": "query: ", "passage": "passage: "}, "query: ", "passage: "),
        ({"document": "d: "}, "", "d: "),
    ],
)
def test_a_model_of_another_kind_gets_its_own_prompts_and_no_instruction_of_ours(data, prompts, query, document):
    model = Words(prompts)
    found = evaluate(model, Options(data=data, languages=["es"], tasks=["XQuADToEnglish"]))
    assert found["scores"][0]["prompt"] == {"query": query, "document": document}
    assert not found["settings"]["instructions"] and {f"{query}es q 0", f"{document}en p 2"} <= set(model.read)
    forced = Options(data=data, languages=["es"], tasks=["XQuADToEnglish"], instructed=True)
    assert evaluate(Words(prompts), forced)["scores"][0]["prompt"] == {
        "query": "Given a question, find passages that answer it.\n", "document": "",
    }  # fmt: skip


def test_a_model_of_ours_gets_the_instructions_if_its_folder_has_any_prompt(data, model_folder):
    options = Options(data=data, languages=["es"], tasks=["XQuADToEnglish"], devices=["cpu"])
    assert evaluate(model_folder, options)["scores"][0]["prompt"]["query"].startswith("Given a question")


def test_texts_that_training_has_read_are_counted_by_language(data, model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "run" / "model")
    stage = tmp_path / "run" / "checkpoints" / "01-align"
    stage.mkdir(parents=True)
    seen.write(stage, ["es dev 3", "es train 7", "something else"], 3)
    options = Options(data=data, languages=["en", "es"], tasks=["SIB200Topics"], devices=["cpu"])
    found = evaluate(tmp_path / "run" / "model", options)["scores"]
    # Those of the test: the classifier's own are no test texts.
    assert {entry["language"]: entry["seen"] for entry in found} == {
        "en": {"seen": 0, "of": 12},
        "es": {"seen": 1, "of": 12},
    }
    assert evaluate(model_folder, options)["scores"][0]["seen"] is None


@pytest.mark.parametrize("name", ["sib200-es-dev.jsonl.gz", "xquad-en.json", "sts-es.jsonl"])
def test_a_damaged_file_is_said_before_the_model_is_loaded(data, name):
    (data / name).write_bytes(b"{")
    with pytest.raises(DataError, match=rf"{name}"):
        evaluate("no-such-model", Options(data=data, languages=["en", "es"]))


def test_the_sample_compares_with_english_and_has_14_languages(tmp_path):
    with pytest.raises(UsageError, match="compared with English: name another"):
        evaluate(Words(), Options(suite="sample", languages=["en"]), tmp_path / "scores")
    with pytest.raises(UsageError, match="'yo' has no packaged sentences: use some of en"):
        evaluate(Words(), Options(suite="sample", languages=["en", "yo"]), tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_without_anything_to_measure_there_is_no_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nothing to measure in it: expected sib200-xx"):
        evaluate(Words(), Options(data=tmp_path / "empty"), tmp_path / "scores")
    with pytest.raises(UsageError, match="--data"):
        evaluate(Words(), Options(), tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_a_hub_that_cannot_be_reached_leaves_nothing_measured_and_says_why(tmp_path):
    options = Options(suite="paper", languages=["fa"], tasks=["FarsTail"])
    with pytest.raises(LusiferError, match="nothing could be measured: FarsTail: cannot be loaded"):
        evaluate(Words(), options, tmp_path / "scores")


def test_tasks_and_languages_are_chosen_by_name(data):
    assert "offline" in suite.names() and "paper" in suite.names()
    found = evaluate(Words(), Options(data=data, languages=["spa"], tasks=["STSFile"]))
    assert [(entry["task"], entry["language"]) for entry in found["scores"]] == [("STSFile", "es")]
    with pytest.raises(UsageError, match="task 'STS99' is not in this suite"):
        evaluate(Words(), Options(data=data, tasks=["STS99"]))
    with pytest.raises(UsageError, match="language 'xx' is unknown"):
        evaluate(Words(), Options(data=data, languages=["xx"]))


def test_all_languages_are_those_of_the_folder_each_with_the_tasks_whose_files_it_has(data, tmp_path):
    for code in ("ace_Arab", "yor_Latn"):
        write_split(data, code, "dev", list(range(12)))
    model = Words()
    found = evaluate(model, Options(data=data, languages=["all"]), tmp_path / "scores")
    tasks = {}
    for entry in found["scores"]:
        assert entry["missing"] is None and entry["score"] is not None
        tasks.setdefault(entry["language"], set()).add(entry["task"])
    assert set(tasks) == {"en", "es", "ru", "ace_Arab", "yo"}
    assert tasks["yo"] == tasks["ace_Arab"] == tasks["ru"] == {"SIB200ZeroShotTopics", "SIB200TranslationToEnglishDev"}
    gap = EvaluationFolder(tmp_path / "scores").read_gap()
    assert gap.sentences == 12 and set(gap.within) == set(tasks)
    english = [text for text in model.read if text.startswith("en ")]
    assert len(english) == len(set(english))  # once, whatever the number of languages
    with pytest.raises(UsageError, match="all already means every language"):
        evaluate(Words(), Options(data=data, languages=["all", "es"]))
    assert len(suite.choose("offline", data, ["ALL"]).rows) == len(found["scores"])  # as codes, in any case


def test_what_any_model_would_find_is_no_score(data):
    """One sentence, one topic, one paragraph: missing with the reason, and other languages are measured."""
    write_split(data, "sw", "train", [0])
    write_split(data, "sw", "dev", [0])
    write_questions(data, "sw", paragraphs=1)
    found = evaluate(Oracle(), Options(data=data, languages=["es", "sw"]))["scores"]
    said = {entry["task"]: entry["missing"] for entry in found if entry["language"] == "sw"}
    for task in ("SIB200TranslationToEnglish", "SIB200TranslationFromEnglish", "SIB200TranslationToEnglishDev"):
        assert "the two languages share one sentence: use files that have two ids or more" in said.pop(task)
    for task in ("SIB200Topics", "SIB200Clusters"):
        assert "sw: all sentences have one label: use a file with two labels or more" in said.pop(task)
    for task, found_of in (("XQuADParagraphs", 2), ("XQuADFromEnglish", 2)):
        assert f"{found_of} questions have a paragraph, and the number of paragraphs is 1" in said.pop(task)
    assert said == {"SIB200ZeroShotTopics": None, "XQuADToEnglish": None}
    missing = {entry["task"]: entry["missing"] for entry in found if entry["language"] == "es"}
    assert not any(missing.values()) and len(missing) == 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x", "label": "y"}', "line 1: expected an object with text, label and index_id"),
        ('{"text": "", "label": "y", "index_id": 1}', "line 1: the text is empty"),
        ('{"text": "x", "label": "y", "index_id": 1}\n' * 2, "line 2: duplicate index_id 1"),
        ('{"text": "x", "label": "y", "index_id": "1"}', "line 1: index_id is '1', not an integer"),
        ("{", "line 1: not JSON"),
        ("", "no rows"),
    ],
)
def test_wrong_rows_of_sib_are_named(tmp_path, line, message):
    import gzip

    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(line)
    with pytest.raises(DataError, match=message):
        sib200.read(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"sentence1": "a", "sentence2": "b"}', "line 1: expected an object with sentence1, sentence2 and score"),
        ('{"sentence1": "a", "sentence2": "b", "score": NaN}', "line 1: score is nan, not a finite number"),
        ('{"sentence1": "a", "sentence2": "b", "score": true}', "line 1: score is True, not a finite number"),
        ('{"sentence1": "a", "sentence2": "", "score": 1}', "line 1: the text is empty"),
        ('{"sentence1": "a", "sentence2": "b", "score": 1}\n' * 2, "all scores are equal, so there is no rank"),
        ('{"sentence1": "a", "sentence2": "b", "score": 1}', "one pair in it, and a rank correlation needs two"),
        ("", "no pair in it, and a rank correlation needs two: add pairs"),
        ("[]", "line 1: expected an object"),
    ],
)
def test_wrong_rows_of_similarity_are_named(tmp_path, lines, message):
    (tmp_path / "sts-en.jsonl").write_text(lines)
    with pytest.raises(DataError, match=message):
        sts.read(sts.file_of(tmp_path, "en"))


def test_a_question_whose_paragraph_the_other_language_lacks_is_left_out(tmp_path):
    write_questions(tmp_path, "en")
    write_questions(tmp_path, "es", paragraphs=2)
    found = evaluate(Oracle(), Options(data=tmp_path, languages=["es"], tasks=["XQuADFromEnglish"]))
    assert found["scores"][0]["n"] == 4 and len(xquad.read(xquad.file_of(tmp_path, "en")).questions) == 8


def test_each_file_is_parsed_once_whatever_reads_it(data, monkeypatch):
    from collections import Counter

    parsed = Counter()
    for module in (sib200, xquad, sts):
        for task in module.TASKS:
            monkeypatch.setattr(task, "parse", lambda file, plain=task.parse: parsed.update([file.name]) or plain(file))
    evaluate(Oracle(), Options(data=data, languages=CODES))
    assert set(parsed.values()) == {1} and {"sib200-en-train.jsonl.gz", "xquad-en.json", "sts-es.jsonl"} <= set(parsed)


def test_where_a_model_gives_one_vector_for_all_similarity_is_undefined(data):
    class Constant(Words):
        def vector(self, text):
            return np.ones(8, np.float32)

    with pytest.raises(LusiferError, match="STSFile: failed: cosine_spearman is undefined: all scores are equal"):
        evaluate(Constant(), Options(data=data, languages=["es"], tasks=["STSFile"]))


@pytest.mark.slow
def test_several_devices_give_the_scores_of_one(data, model_folder, tmp_path):
    tasks, languages = ["SIB200TranslationToEnglish"], ["es"]
    entries = [
        evaluate(model_folder, Options(data=data, languages=languages, tasks=tasks, devices=devices), tmp_path / name)[
            "scores"
        ]
        for name, devices in (("one", ["cpu"]), ("two", ["cpu", "cpu"]))
    ]
    scores = [[(entry["task"], entry["score"], entry["n"]) for entry in each] for each in entries]
    assert scores[0] == scores[1] and scores[0][0][1] is not None
