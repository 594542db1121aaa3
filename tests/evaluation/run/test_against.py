"""Queries by one model against the documents of another embedder."""

import numpy as np
import pytest

from lusifer.errors import UsageError
from lusifer.evaluation.report import card, facts
from lusifer.evaluation.run.evaluate import Options, evaluate
from lusifer.evaluation.scores import results
from lusifer.evaluation.scores.folder import EvaluationFolder
from support.offline_files import Oracle, write_pairs

CODES = ("en", "es")


class Turned(Oracle):
    """Knows what the oracle knows, in another space."""

    def vector(self, text: str) -> np.ndarray:
        return np.roll(super().vector(text.removeprefix("doc: ")), 5)


class Same(Oracle):
    """The oracle, whose own documents have a prompt."""

    def vector(self, text: str) -> np.ndarray:
        return super().vector(text.removeprefix("doc: "))


def measured(found: dict) -> dict:
    return {(entry["task"], entry["language"]): entry["score"] for entry in found["scores"]}


def test_each_side_is_read_by_its_own_embedder(data):
    model, other = Oracle(), Same({"document": "doc: "}, seed=1)
    found = evaluate(model, Options(data=data, languages=CODES, against=other), name="mini")
    alone = measured(evaluate(Oracle(), Options(data=data, languages=CODES)))
    assert set(measured(found)) == {
        ("SIB200Topics", "en"), ("SIB200ZeroShotTopics", "es"), ("SIB200TranslationToEnglish", "es"),
        ("SIB200TranslationToEnglishDev", "es"), ("XQuADParagraphs", "en"), ("XQuADToEnglish", "es"), ("STSFile", "es"),
    }  # fmt: skip
    assert measured(found) == {key: alone[key] for key in measured(found)}  # one space, whoever speaks
    # English is read by the model where it asks: the topics of its dev sentences, its questions.
    read = {text for text in model.read if text.startswith("en ")}
    assert read == {f"en dev {n}" for n in range(12)} | {f"en q {n}" for n in range(4)}
    assert all(text.startswith("doc: ") for text in other.read)
    assert {text for text in other.read if "es" in text} == {f"doc: es s {n}" for n in range(1, 7)}  # of a pair
    assert {text for text in model.read if " s " in text} == {"es s 1"}
    assert {entry["prompt"]["query"] for entry in found["scores"]} == {""}
    assert {entry["prompt"]["document"] for entry in found["scores"]} == {"doc: "}


def test_a_space_of_its_own_finds_nothing_in_the_index(data):
    tasks = ["SIB200TranslationToEnglishDev", "XQuADToEnglish"]
    alone = evaluate(Turned(), Options(data=data, languages=CODES, tasks=tasks))
    against = evaluate(Turned(), Options(data=data, languages=CODES, tasks=tasks, against=Oracle()))
    assert min(measured(alone).values()) == 100
    assert max(measured(against).values()) < 50


def test_the_folder_says_whose_documents_they_are_and_mixes_nothing(data, tmp_path):
    options = Options(data=data, languages=CODES, against=Oracle(seed=1))
    made = evaluate(Oracle(), options, tmp_path / "against", name="mini")
    read = results.read(tmp_path / "against")
    assert read.model.name == "mini against in memory" and read.model.against.name == "in memory"
    assert read.model.identity != read.model.against.identity == made["model"]["against"]["identity"]
    assert EvaluationFolder(tmp_path / "against").read_gap() is None  # it would be of the model alone
    evaluate(Oracle(), Options(data=data, languages=CODES), tmp_path / "alone", name="mini")
    for other in (Options(data=data, languages=CODES), Options(data=data, languages=CODES, against=Oracle(seed=2))):
        with pytest.raises(UsageError, match=r"holds another evaluation \(against "):
            evaluate(Oracle(), other, tmp_path / "against", name="mini")
    with pytest.raises(UsageError, match="holds another evaluation"):
        evaluate(Oracle(), options, tmp_path / "alone", name="mini")
    alone, beside = facts.read([tmp_path / "alone", tmp_path / "against"])
    assert alone.names == ("mini",) and beside.title == "suite offline, documents by in memory"
    assert "| task | mini against in memory | mini | results |" in card.markdown(beside)
    assert {(entry.task, entry.language) for entry in beside.evaluations[1].scores} == set(measured(made))
    again = evaluate(Oracle(), options, tmp_path / "against", name="mini")  # goes on
    assert measured(again) == measured(made)


def test_vectors_of_another_size_are_refused_before_anything_is_scored(data):
    class Short(Oracle):
        def get_embedding_dimension(self) -> int:
            return 32

    model = Oracle()
    with pytest.raises(
        UsageError, match=r"--against in memory: its vectors have 32 dimensions, those of mini 64: name"
    ):
        evaluate(model, Options(data=data, languages=CODES, against=Short()), name="mini")
    assert not model.read


def test_a_suite_from_the_hub_and_a_task_without_an_index_are_refused(data):
    with pytest.raises(UsageError, match="--against: not with the suite 'paper' from the Hub: use one of offline, sam"):
        evaluate(Oracle(), Options(suite="paper", against=Oracle()))
    with pytest.raises(UsageError, match="task 'SIB200Clusters' is not in this suite: use one of SIB200Topics"):
        evaluate(Oracle(), Options(data=data, languages=CODES, tasks=["SIB200Clusters"], against=Oracle()))


def test_pairs_in_a_language_are_compared_across(data):
    write_pairs(data, "en")
    found = evaluate(Turned(), Options(data=data, languages=CODES, tasks=["STSFile"], against=Oracle()))
    alone = evaluate(Turned(), Options(data=data, languages=CODES, tasks=["STSFile"]))
    assert measured(alone) == dict.fromkeys([("STSFile", "en"), ("STSFile", "es")], pytest.approx(100))
    assert set(measured(found)) == set(measured(alone)) and max(measured(found).values()) < 99
