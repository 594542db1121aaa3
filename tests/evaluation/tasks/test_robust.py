"""The suite `robust` from files to scores, with a model whose weakness is known."""

import re
from pathlib import Path

import numpy as np
import pytest

from lusifer.errors import DataError, MissingExtraError, UsageError
from lusifer.evaluation.run.evaluate import Options, evaluate
from lusifer.evaluation.scores import perturbed, results
from lusifer.evaluation.suites import suite
from lusifer.evaluation.tasks import local, perturbations, robust, sib200
from support.offline_files import write_questions, write_split
from support.words import Words

TASKS = ["SIB200Clean", "SIB200Capitals", "SIB200TypingErrors", "SIB200Romanised", "XQuADClean", "XQuADCapitals"]

PLAIN = ["SIB200TranslationToEnglishDev", "XQuADToEnglish"]


class Shy(Words):
    """Knows a text by its number, unless it is in capitals or begins in a dialect."""

    def vector(self, text: str) -> np.ndarray:
        found = re.search(r"\d+", text)
        vector = np.zeros(64, np.float32)
        vector[63 if text.isupper() or text.startswith("arz") or not found else int(found[0])] = 1
        vector[0] += 0.1
        return vector

    def get_embedding_dimension(self) -> int:
        return 64


@pytest.fixture(autouse=True)
def quick_romaniser(monkeypatch):
    monkeypatch.setattr(perturbations, "_romanise", lambda text, code3: re.sub(r"[^\W\d]", "x", text))


def scores(found: dict, task: str) -> dict:
    return {entry["language"]: entry["score"] for entry in found["scores"] if entry["task"] == task}


def test_what_a_perturbation_costs_follows_from_the_vectors(data, tmp_path):
    write_split(data, "ar", "dev", list(range(12)))
    write_split(data, "arz_Arab", "dev", list(range(12)))
    tasks = [*TASKS, "SIB200InEgyptianArabic", "SIB200Decomposed"]
    options = Options("robust", data=data, languages=["en", "es", "ar"], tasks=tasks)
    found = evaluate(Shy(), options, tmp_path / "scores", name="shy")
    assert scores(found, "SIB200Clean") == {"es": 100, "ar": 100} == scores(found, "SIB200TypingErrors")
    assert scores(found, "SIB200Capitals") == {"es": pytest.approx(100 / 12, abs=1e-3)}
    assert scores(found, "SIB200InEgyptianArabic") == {"ar": pytest.approx(100 / 12, abs=1e-3)}
    assert scores(found, "XQuADClean") == {"en": 100, "es": 100}
    assert scores(found, "XQuADCapitals") == {"en": 25, "es": 25}
    assert {entry["n"] for entry in found["scores"] if entry["task"].startswith("XQuAD")} == {4}  # one a paragraph
    kinds = {(entry["language"], entry["cross_lingual"]) for entry in found["scores"]}
    assert kinds == {("en", False), ("es", True), ("ar", True)}
    changes = {each.task: each for each in perturbed.changes(results.read(tmp_path / "scores"))}
    assert changes["SIB200Capitals"].change == pytest.approx(-1100 / 12)
    assert changes["SIB200Capitals"].spared == ("ar",)
    # The texts are in Latin letters without accents.
    assert changes["SIB200Romanised"].languages == changes["SIB200Decomposed"].languages == ()
    assert set(changes["SIB200Romanised"].spared) == {"es", "ar"}
    assert changes["XQuADCapitals"].base == "XQuAD, paragraph in English"


def test_the_texts_as_they_were_have_the_scores_of_the_plain_suites(data, tmp_path):
    write_questions(data, "es")
    plain = evaluate(Words(seed=2), Options("offline", data, ["es"], PLAIN), tmp_path / "plain")
    sample = evaluate(Words(seed=2), Options("sample", None, ["es", "hi"]), tmp_path / "sample")
    found = evaluate(Words(seed=2), Options("robust", data, ["es", "hi"], [*TASKS, "SampleClean"]), tmp_path / "robust")
    assert scores(found, "SIB200Clean") == scores(plain, "SIB200TranslationToEnglishDev")
    assert scores(found, "SampleClean") == scores(sample, "SampleTranslationToEnglish")
    one, other = (results.read(tmp_path / name).examples for name in ("robust", "plain"))
    mine, theirs = one["es", "XQuADClean"], other["es", "XQuADToEnglish"]
    assert mine.ids == ("q0", "q2", "q4", "q6") and mine.texts == theirs.texts
    assert mine.values.tolist() == theirs.ordered(mine.ids).values.tolist()


def test_without_a_folder_the_packaged_sentences_are_measured():
    found = suite.choose("robust", languages=["en", "es", "hi"])
    rows = {row.task: set() for row in found.rows}
    for row in found.rows:
        rows[row.task].add(row.language)
    assert rows["SampleClean"] == {"es", "hi"} == rows["SampleTypingErrors"]
    assert rows["SampleRomanised"] == {"hi"} and rows["SampleCapitals"] == {"es"}
    assert all(name.startswith("Sample") for name in rows) and not any("Mixed" in name for name in rows)
    facts = found.facts["disguises"]["tasks"]["SampleCapitals"]
    assert facts == {"clean": "SampleClean", "disguise": "in capitals", "changed": {"es": [28, 28], "hi": [0, 28]}}
    assert found.parallel is None and set(found.digests) == {"texts in disguise"}


def test_all_languages_are_those_of_the_package_and_of_the_folder(data):
    write_split(data, "yo", "dev", list(range(12)))
    found = suite.choose("robust", data, ["all"], ["SampleClean", "SIB200Clean", "XQuADClean"])
    rows = {task: {row.language for row in found.rows if row.task == task} for task in {row.task for row in found.rows}}
    assert len(rows["SampleClean"]) == 13 and "yo" not in rows["SampleClean"]
    assert rows["SIB200Clean"] == {"es", "ru", "yo"} and rows["XQuADClean"] == {"en", "es"}


def test_a_perturbation_applies_from_a_tenth_of_the_texts_on(tmp_path):
    for code, marked in (("en", 0), ("es", 2), ("fr", 1)):
        write_split(tmp_path, code, "dev", list(range(20)))
        split = sib200.read(sib200.file_of(tmp_path, code, "dev"))
        rows = [f"é {text}" if number < marked else text for number, text in enumerate(split.texts)]
        _rewrite(tmp_path, code, rows)
    found = suite.choose("robust", tmp_path, ["es", "fr"], ["SIB200Clean", "SIB200WithoutDiacritics"])
    assert [row.key for row in found.rows if row.task != "SIB200Clean"] == [("es", "SIB200WithoutDiacritics")]
    about = found.facts["disguises"]["tasks"]["SIB200WithoutDiacritics"]
    assert about["changed"] == {"es": [2, 20], "fr": [1, 20]}


def _rewrite(folder: Path, code: str, texts: list[str]) -> None:
    import gzip
    import json

    with gzip.open(sib200.file_of(folder, code, "dev"), "wt", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"text": text, "label": "a", "index_id": number}) + "\n")


def test_questions_alone_are_mixed_with_the_english_of_their_words(data):
    write_questions(data, "es")
    kinds = {kind.__name__: kind for kind in robust.TASKS}
    assert not {"SIB200CodeMixed", "SampleCodeMixed"} & set(kinds)
    kind = kinds["XQuADCodeMixed"]
    contents = [kind.parse(file) for file in kind.files(data, "es-en")]
    assert kind.perturbed("es-en", *contents)["q0"] in ("es q 0", "en q 0")
    made = kind.build("es-en", *contents)["all"]
    assert len(made["queries"]) == 4 and made["corpus"]["text"] == ["en p 0", "en p 1", "en p 2", "en p 3"]
    changed = suite.choose("robust", data, ["en", "es"]).facts["disguises"]["tasks"]["XQuADCodeMixed"]["changed"]
    assert changed["en"] == [0, 4] and changed["es"][0] > 0


def test_without_the_romaniser_its_rows_are_missing_and_no_others(monkeypatch):
    def gone():
        raise MissingExtraError("this needs the package uroman: pip install 'lusifer[robust]'")

    monkeypatch.setattr(robust, "romaniser", gone)
    tasks = ["SampleClean", "SampleRomanised", "SampleCapitals"]
    found = evaluate(Words(), Options("robust", languages=["es", "hi"], tasks=tasks))
    assert scores(found, "SampleRomanised") == {"hi": None}
    missing = {entry["missing"] for entry in found["scores"] if entry["score"] is None}
    assert missing == {"this needs the package uroman: pip install 'lusifer[robust]'"}
    assert None not in {*scores(found, "SampleClean").values(), *scores(found, "SampleCapitals").values()}


def test_an_english_index_is_asked_with_perturbed_texts(data):
    model, index = Shy(), Shy()
    evaluate(model, Options("robust", data, ["es"], ["SIB200Clean", "SIB200Capitals"], against=index))
    assert all(text.startswith("en") for text in index.read)
    assert {text[:2] for text in model.read} == {"es", "ES"}


def test_what_cannot_be_measured_is_said(data, tmp_path):
    with pytest.raises(
        UsageError, match="nothing to measure: no task has texts in it, or the perturbations change fewe"
    ):
        suite.choose("robust", data, ["es"], ["SIB200Romanised"])
    found = suite.choose("robust", data, ["es", "yo"], TASKS)
    assert [note for note in found.notes if note.startswith("yo")] == [
        "yo: no score: no task has texts in it, or the perturbations change fewer than 10% of them"
    ]
    with pytest.raises(UsageError, match="'yo' has no packaged sentences"):
        suite.choose("robust", languages=["yo"])
    with pytest.raises(UsageError, match="name another language"):
        suite.choose("robust", languages=["en"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nothing to measure in it"):
        suite.choose("robust", tmp_path / "empty")


def test_other_texts_are_another_evaluation(data, tmp_path, monkeypatch):
    options = Options("robust", data, ["es"], ["SIB200Clean", "SIB200Capitals"])
    evaluate(Shy(), options, tmp_path / "scores")
    changed = [kind for kind in robust.TASKS if kind.__name__ == "SIB200Capitals"][0]
    other = perturbations.Perturbation("Capitals", "in capitals", lambda text, code, english: f"{text}!")
    monkeypatch.setattr(changed, "perturbation", other)
    with pytest.raises(UsageError, match="choose another"):
        evaluate(Shy(), options, tmp_path / "scores")


def test_an_evaluation_goes_on_when_the_romaniser_was_installed_later(monkeypatch, tmp_path):
    def gone():
        raise MissingExtraError("this needs the package uroman: pip install 'lusifer[robust]'")

    options = Options("robust", languages=["hi"], tasks=["SampleClean", "SampleRomanised", "SampleTypingErrors"])
    with monkeypatch.context() as without:
        without.setattr(robust, "romaniser", gone)
        first = evaluate(Words(), options, tmp_path / "scores")
    assert [entry["task"] for entry in first["scores"] if entry["missing"]] == ["SampleRomanised"]
    monkeypatch.setattr(robust, "romaniser", lambda: None)
    again = evaluate(Words(), options, tmp_path / "scores")
    assert not any(entry["missing"] for entry in again["scores"])


def test_the_names_that_are_known_without_mteb_are_those_of_the_tasks():
    assert {suite: [task.__name__ for task in local.tasks(suite)] for suite in local.MODULES} == local.NAMES
