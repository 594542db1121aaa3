"""A user's own questions from files to folder, on an embedder whose scores are known and on a tiny one."""

import json
from pathlib import Path

import numpy as np
import pytest

from lusifer.cli import main
from lusifer.errors import LusiferError, UsageError
from lusifer.evaluation.run.evaluate import Options, evaluate
from lusifer.evaluation.scores import questions, results
from lusifer.evaluation.scores.folder import EvaluationFolder
from lusifer.evaluation.tasks import xquad
from support.offline_files import Oracle
from support.words import Words


def write(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def as_own_files(data: Path, target: Path, codes: tuple[str, ...], documents: tuple[str, ...]) -> Path:
    """XQuAD as a user's file: questions in some languages, documents in some; the English one is right."""
    rows = []
    for code in documents:
        found = xquad.read(xquad.file_of(data, code)).paragraphs
        rows += [{"id": f"{code} {id}", "text": text, "language": code} for id, text in found.items()]
    for code in codes:
        for id, text, paragraph in xquad.read(xquad.file_of(data, code)).questions:
            rows.append({"id": f"{code} {id}", "question": text, "right": f"en {paragraph}", "language": code})
    return write(target, rows)


@pytest.fixture
def own(data: Path, tmp_path: Path) -> Path:
    return as_own_files(data, tmp_path / "own.jsonl", ("en", "es"), ("en",))


def scores(summary: dict) -> dict:
    return {(entry["language"], entry["cross_lingual"]): entry["score"] for entry in summary["scores"]}


@pytest.mark.parametrize("model", [Words(seed=3), Oracle()], ids=["words", "oracle"])
def test_accuracy_is_that_of_the_suites_own_task(model, data, own, tmp_path):
    tasks = ["XQuADToEnglish", "XQuADParagraphs"]
    theirs = evaluate(model, Options(data=data, languages=["en", "es"], tasks=tasks))["scores"]
    expected = {
        entry["language"]: entry["score"] for entry in theirs if entry["task"] == tasks[entry["language"] == "en"]
    }
    evaluate(model, Options("mine", own), tmp_path / "scores")
    report = questions.reports([results.read(tmp_path / "scores")], ["m"])[0]
    assert {row.language: row.first.value for row in report.languages} == pytest.approx(expected, abs=1e-3)


def test_documents_in_many_languages_are_searched_together(data, tmp_path):
    mixed = as_own_files(data, tmp_path / "mixed.jsonl", ("en", "es"), ("es", "en"))
    summary = evaluate(Oracle(), Options("mine", mixed), tmp_path / "scores")
    # Of equal vectors the Spanish one stands first in the file: the needed English one is second.
    value = pytest.approx(100 * (6 / 8 / np.log2(3) + 2 / 8))
    assert scores(summary) == {("es", True): value, ("en", False): value}
    rows = {row.language: row for row in questions.reports([results.read(tmp_path / "scores")], ["m"])[0].languages}
    assert rows["es"].worst_place.value == 2 and rows["es"].errors == 6
    assert rows["es"].own.value == 100 and rows["es"].chance == pytest.approx(100 * 4 / 7, abs=1e-3)
    assert rows["en"].own.value == 0 and rows["en"].chance == pytest.approx(100 * 3 / 7, abs=1e-3)


def test_a_call_goes_on_where_one_was_stopped_and_measures_again_what_has_lost_its_details(own, tmp_path):
    target, notes, model = tmp_path / "scores", [], Oracle()
    first = evaluate(model, Options("mine", own), target)
    model.read.clear()
    assert scores(evaluate(model, Options("mine", own), target)) == scores(first) and not model.read
    file = target / "details" / "MyQuestions.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({"en": kept["en"]}))
    evaluate(model, Options("mine", own), target, note=notes.append)
    assert json.loads(file.read_text()) == kept and "es" in notes[0] and "no details" in notes[0]
    assert not any(text.startswith("en q") for text in model.read)


def test_other_questions_are_another_evaluation(own, tmp_path):
    evaluate(Oracle(), Options("mine", own), tmp_path / "scores")
    own.write_text(own.read_text() + "\n" + json.dumps({"question": "en q 1", "language": "en"}))
    with pytest.raises(UsageError, match="holds another evaluation"):
        evaluate(Oracle(), Options("mine", own), tmp_path / "scores")


def test_documents_of_another_embedder(own, tmp_path):
    other = Oracle(seed=1)
    model = Oracle()
    summary = evaluate(model, Options("mine", own, against=other), tmp_path / "scores")
    assert set(scores(summary).values()) == {100}
    assert {text.split()[1] for text in model.read} == {"q"} and {text.split()[1] for text in other.read} == {"p"}


def test_two_models_are_compared_question_by_question(own, tmp_path):
    for seed, model in enumerate((Words(seed=3), Oracle())):
        evaluate(model, Options("mine", own, languages=["es"]), tmp_path / str(seed))
    from lusifer.evaluation.scores.compare import compare_all

    found = compare_all([results.read(tmp_path / str(seed)) for seed in (1, 0)])[0]
    assert found.rows[0].difference.value > 0 and found.cross_lingual


def test_two_files_with_other_questions_in_the_same_lines_are_not_the_same_examples(tmp_path):
    from lusifer.evaluation.scores.compare import compare_all

    pages = [{"id": f"p{n}", "text": f"en p {n}", "language": "en"} for n in range(3)]
    for name, more, numbers in (("one", [], (0, 1)), ("other", [], (1, 0)), ("longer", [{"text": "en p 9"}], (0, 1))):
        asked = [{"question": f"en q {n}", "right": f"p{n}", "language": "en"} for n in numbers]
        rows = [*asked, *pages, *({"id": "p9", "language": "en"} | each for each in more)]
        evaluate(Oracle(), Options("mine", write(tmp_path / f"{name}.jsonl", rows)), tmp_path / name)
    made = {name: results.read(tmp_path / name) for name in ("one", "other", "longer")}
    assert compare_all([made["one"], made["other"]])[0].rows[0].reason
    assert compare_all([made["one"], made["longer"]])[0].rows[0].reason is None  # the same over other documents
    assert [each["id"] for each in made["one"].details["en", "MyQuestions"]["questions"]] == ["line 1", "line 2"]


def test_a_perfect_model_is_perfect_where_a_question_needs_several_documents(tmp_path):
    rows = [{"id": f"p{n}", "text": f"en p {n % 2}", "language": "en"} for n in range(4)]
    rows += [{"question": "en q 0", "right": ["p0", "p2"], "language": "en"}]
    evaluate(Oracle(), Options("mine", write(tmp_path / "two.jsonl", rows)), tmp_path / "scores")
    row = questions.reports([results.read(tmp_path / "scores")], ["m"])[0].languages[0]
    assert (row.first.value, row.ten.value, row.errors) == (100, 100, 0)


def test_a_question_in_a_language_that_is_not_there(own):
    with pytest.raises(UsageError, match="'fr' is not in this suite: use one of en, es"):
        evaluate(Oracle(), Options("mine", own, languages=["fr"]))
    with pytest.raises(UsageError, match="name it with --data"):
        evaluate(Oracle(), Options("mine"))
    with pytest.raises(UsageError, match="is a folder: name the file of questions in it"):
        evaluate(Oracle(), Options("mine", own.parent))


def test_vectors_of_another_size_than_the_documents_have(own, tmp_path):
    from lusifer.evaluation.search.collection import Searched, SearchedDocument

    searched = Searched(
        tuple(SearchedDocument(f"en p{n}", None, "en") for n in range(4)), np.eye(4, 9, dtype=np.float32), np.arange(4)
    )
    asked = write(tmp_path / "asked.jsonl", [{"question": "en q 1", "right": "en p1", "language": "en"}])
    with pytest.raises(LusiferError, match="questions have 64 dimensions, those of documents 9: name the model"):
        evaluate(Oracle(), Options("mine", asked, documents=searched))


HANDBOOK = {"trains.md": "Trains leave from platform two.", "food.md": "Bread is sold in the morning. " * 30}


@pytest.fixture
def handbook(tmp_path: Path) -> tuple[Path, Path]:
    folder = tmp_path / "handbook"
    folder.mkdir()
    for name, text in HANDBOOK.items():
        (folder / name).write_text(text, encoding="utf-8")
    asked = [{"question": f"{text[:25]}?", "right": name, "language": "en"} for name, text in HANDBOOK.items()]
    asked += [{"question": "Where is the moon?", "language": "en"}]
    return folder, write(tmp_path / "asked.jsonl", asked)


def test_the_documents_of_a_folder_and_of_an_index(handbook, model_folder, tmp_path, capsys):
    folder, asked = handbook
    index, model = tmp_path / "texts.index", str(model_folder)
    call = ["evaluate", model, "--suite", "mine", "--data", str(asked), "--documents"]
    assert main([*call, str(folder), "--output", str(tmp_path / "folder")]) == 0
    shown = capsys.readouterr().out
    assert "2 documents searched." in shown and " 1 are longer than the embedder reads" in shown
    assert "**Questions without an answer**" in shown
    assert main(["index", model, "--input", str(folder), "--output", str(index)]) == 0
    assert main([*call, str(index), "--output", str(tmp_path / "index")]) == 0
    shown = capsys.readouterr().out
    assert "2 documents searched in " in shown and "longer than the embedder" not in shown
    made = results.read(tmp_path / "index")
    assert set(made.data) == {"asked.jsonl", "texts.index"}
    report = questions.reports([made], ["m"])[0]
    assert report.passages > report.documents == 2
    # The scores are those of the index itself.
    from lusifer.index.index import Index

    hits = Index.open(index).search([f"{text[:25]}?" for text in HANDBOOK.values()], top_k=2)
    details = made.details["en", "MyQuestions"]["questions"]
    for each, found in zip(details, hits, strict=False):
        assert [hit["id"] for hit in each["hits"]] == [hit.id for hit in found]
        assert [hit["score"] for hit in each["hits"]] == pytest.approx([hit.score for hit in found], abs=1e-4)


def test_a_field_of_an_index_that_is_no_language_is_named_and_leaves_the_language_open(model_folder, tmp_path, capsys):
    rows = [{"id": "a", "text": "Trains leave from platform two.", "lang": "prose"}]
    rows += [{"id": "b", "text": "Bread is sold in the morning.", "lang": "en"}]
    index, model = str(tmp_path / "texts.index"), str(model_folder)
    call = ["index", model, "--input", str(write(tmp_path / "rows.jsonl", rows)), "--output", index]
    assert main(call) == 0
    asked = write(tmp_path / "asked.jsonl", [{"question": "Which platform?", "right": "a", "language": "en"}])
    capsys.readouterr()
    assert main(["evaluate", model, "--suite", "mine", "--data", str(asked), "--documents", index]) == 0
    said = capsys.readouterr().err
    assert (
        "1 document has a value that is no language code; the language counts as unknown: field 'lang': 'prose'" in said
    )
    assert "1 of 3 rows have no `language`" in said


def test_an_index_is_asked_by_whom_it_allows_with_its_own_prompt(handbook, model_folder, tmp_path, capsys):
    folder, asked = handbook
    index, model = str(tmp_path / "texts.index"), str(model_folder)
    assert main(["index", model, "--input", str(folder), "--output", index, "--prompt", "Find it."]) == 0
    call = ["--suite", "mine", "--data", str(asked), "--documents", index, "--output", str(tmp_path / "scores")]
    assert main(["evaluate", model, *call]) == 0
    assert results.read(tmp_path / "scores").scores[0].prompt == {"query": "Find it.\n", "document": None}
    capsys.readouterr()
    wrong = {
        "--instructions": "has its own prompt of questions",
        "--dtype=bfloat16": "made in",
        f"--against={model}": "have vectors",
    }
    for more, words in wrong.items():
        assert main(["evaluate", model, *call, more]) == 2
        assert words in capsys.readouterr().err
    assert main(["evaluate", "mini", *call]) == 2
    assert "gives other vectors" in capsys.readouterr().err


def test_details_belong_to_a_score(own, tmp_path):
    evaluate(Oracle(), Options("mine", own), tmp_path / "scores")
    file = tmp_path / "scores" / "details" / "MyQuestions.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"ru": {}}))
    with pytest.raises(LusiferError, match="ru: summary.json has no score for these details"):
        results.read(tmp_path / "scores")
    file.write_text(json.dumps({"en": {"questions": []}}))
    with pytest.raises(LusiferError, match=r"details/MyQuestions\.json: en: kind: .*evaluate again"):
        results.read(tmp_path / "scores")
    file.write_text(json.dumps(kept))
    assert set(EvaluationFolder(tmp_path / "scores").finished("MyQuestions")[0]) == {"en", "es"}
