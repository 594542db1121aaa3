"""A user's own files of questions: what they may look like, and what is said of those that are wrong."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lusifer.errors import DataError
from lusifer.evaluation.search import questions
from lusifer.evaluation.search.collection import Question, SearchedDocument

DOCUMENTS = [{"id": "a", "text": "one"}, {"id": 7, "text": "seven"}, {"id": "b c", "text": "two"}]
GOOD = [*DOCUMENTS, {"question": "one?", "right": ["a"]}]


def write(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def with_language(rows: list[dict], code: str = "en") -> list[dict]:
    return [row | {"language": code} for row in rows]


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    asked = [
        {"question": "one or two?", "right": ["a", "b c"], "id": "q", "language": "de"},
        {"question": "seven?", "right": 7, "language": "deu_Latn"},
        {"question": "nothing?", "language": "en"},
    ]
    return write(tmp_path / "q.jsonl", [*with_language(DOCUMENTS), *asked])


def test_questions_documents_and_controls_are_read(jsonl):
    asked, digests, notes = questions.read(jsonl)
    assert asked.questions == (
        Question("q", "one or two?", "de", ("a", "b c")),
        Question("line 5", "seven?", "de", ("7",)),
        Question("line 6", "nothing?", "en"),
    )
    assert asked.searched.documents[1] == SearchedDocument("7", "seven", "en")
    assert list(digests) == ["q.jsonl"]
    assert notes == [f"1 question has no `right` and counts as a negative control: the first is {jsonl} line 6"]


def test_csv_and_parquet_say_the_same(jsonl, tmp_path):
    table = tmp_path / "q.csv.gz"
    lines = [
        "id,text,question,right,language", "a,one,,,en", "7,seven,,,en", "b c,two,,,en", "q,,one or two?,a|b c,de",
        "line 5,,seven?, 7 ,de", "line 6,,nothing?,,en",
    ]  # fmt: skip
    with gzip.open(table, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    columns = {"id": ["a", "7", "b c", "q", "line 5", "line 6"], "text": ["one", "seven", "two", None, None, None]}
    columns |= {
        "question": [None, None, None, "one or two?", "seven?", "nothing?"],
        "language": ["en"] * 3 + ["de"] * 2 + ["en"],
    }
    columns |= {"right": [None, None, None, ["a", "b c"], ["7"], []]}
    pq.write_table(pa.table(columns), tmp_path / "q.parquet")
    same = questions.read(jsonl)[0]
    for file in (table, tmp_path / "q.parquet"):
        made = questions.read(file)[0]
        assert made.questions == same.questions and made.searched.documents == same.searched.documents


def test_ids_in_a_cell_may_have_spaces_between(tmp_path):
    file = tmp_path / "q.csv"
    file.write_text("id,text,question,right,language\na,one,,,en\nb,two,,,en\n,,which?,a b,en\n")
    assert questions.read(file)[0].questions[0].right == ("a", "b")


@pytest.mark.parametrize(
    ("cell", "right"),
    [("b c", ("b c",)), (" b c ", ("b c",)), ('"[""a"", ""b c"", 7]"', ("a", "b c", "7")), ("a 7", ("a", "7"))],
)
def test_a_cell_is_an_id_or_a_list_of_json_before_it_is_split(tmp_path, cell, right):
    file = tmp_path / "q.csv"
    file.write_text(f"id,text,question,right,language\na,one,,,en\n7,two,,,en\nb c,x,,,en\n,,which?,{cell},en\n")
    assert questions.read(file)[0].questions[0].right == right


def test_ids_with_spaces_that_were_split_are_named_with_the_mend(tmp_path):
    file = tmp_path / "q.csv"
    file.write_text("id,text,question,right,language\na,one,,,en\nb c,x,,,en\n,,which?,a b c,en\n")
    with pytest.raises(
        DataError, match=r"line 4: right: no document has the id 'b': the cell was split at spaces; put \|"
    ):
        questions.read(file)


def test_a_misspelt_column_of_a_table_is_refused(tmp_path):
    columns = {"id": ["a", "b"], "text": ["one", "two"], "question": [None, None], "rigth": [None, None]}
    pq.write_table(
        pa.table({name: [*each, "x"] for name, each in columns.items()} | {"text": ["one", "two", None]}),
        tmp_path / "q.parquet",
    )
    with pytest.raises(DataError, match="q.parquet row 3: key 'rigth' is unknown"):
        questions.read(tmp_path / "q.parquet")


def test_other_keys_of_a_question_are_allowed(tmp_path):
    more = {"weight": 2, "qid": 3, "rights": "all", "source": "x", "lang": "de"}
    rows = with_language([*DOCUMENTS, {"question": "one?", "right": "a"} | more])
    assert questions.read(write(tmp_path / "q.jsonl", rows))[0].questions[0].right == ("a",)


def test_documents_come_from_another_file(tmp_path):
    asked = write(tmp_path / "q.jsonl", with_language([{"question": "one?", "right": ["a"]}]))
    found, digests, _ = questions.read(asked, write(tmp_path / "d.jsonl", with_language(DOCUMENTS)))
    assert len(found.searched.documents) == 3 and list(digests) == ["q.jsonl", "d.jsonl"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([*GOOD, {"question": "x?", "right": ["lost"]}], "line 5: right: no document has the id 'lost': correct"),
        ([*GOOD, {"id": "a", "text": "x"}], r"line 5: id 'a' is already at .*line 1: give each"),
        ([*GOOD, {"id": "q", "question": "x"}, {"id": "q", "question": "y"}], r"line 6: id 'q' is already at .*line 5"),
        (DOCUMENTS, "no question in it: add rows with `question`"),
        ([{"question": "x?", "right": ["a"]}], "no document to search.*--documents"),
        ([DOCUMENTS[0], GOOD[-1]], "one document to search"),
        ([*DOCUMENTS, {"question": "x?"}, {"question": "y?", "right": []}], "no question has a right document"),
        ([*GOOD, {"question": " ", "right": ["a"]}], "line 5: question: the text is empty: remove it or fill it"),
        ([*GOOD, {"question": 3, "right": ["a"]}], "line 5: question: expected a text, found int"),
        ([*GOOD, {"id": "z", "text": ""}], "line 5: text: the text is empty"),
        ([*GOOD, {"id": "z", "text": ["x"]}], "line 5: text: expected a text, found list"),
        ([*GOOD, {"id": 1.5, "text": "x"}], "line 5: id is 1.5: an id is a text or an integer"),
        ([*GOOD, {"id": True, "text": "x"}], "line 5: id is True"),
        ([*GOOD, {"text": "x"}], r"line 5: no `id` \(found text\): a question has"),
        ([*GOOD, {"id": "z"}], r"line 5: no `text` \(found id\)"),
        ([*GOOD, {"other": "z"}], r"line 5: no `text` \(found other\)"),
        ([*GOOD, {"id": "z", "text": "x", "question": "y"}], "line 5: both `question` and `text`: a row is"),
        ([*GOOD, {"right": ["a"], "text": "x", "id": "z"}], "line 5: `right` without `question`"),
        ([*GOOD, {"question": "x?", "right": ["a", "a"]}], "line 5: right: duplicate id 'a'"),
        ([*GOOD, {"question": "x?", "right": {"a": 1}}], "line 5: right is {'a': 1}: an id is"),
        ([*GOOD, {"question": "x?", "right": ["a"], "language": "qq"}], "line 5: language 'qq' is unknown"),
        ([*GOOD, {"question": "x?", "right": ["a"], "language": 3}], "line 5: language is 3: write a code such as en"),
        ([*GOOD, {"question": "x?", "rigth": ["a"]}], "line 5: key 'rigth' is unknown and looks like 'right'"),
        ([*GOOD, {"question": "x?", "right": "a", "langauge": "de"}], "line 5: key 'langauge' .* 'language'"),
        ([*GOOD, {"question": "x?", "right": "a", "ID": "de"}], "line 5: key 'ID' .* 'id'"),
        ([*GOOD, ["question"]], "line 5: expected an object with columns, found a list"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_named_with_file_line_and_mend(tmp_path, rows, words):
    with pytest.raises(DataError, match=words) as error:
        questions.read(write(tmp_path / "q.jsonl", rows))
    assert str(error.value).startswith(str(tmp_path / "q.jsonl"))


def test_questions_and_documents_in_the_wrong_file_are_refused(tmp_path):
    good, asked = write(tmp_path / "q.jsonl", GOOD), write(tmp_path / "d.jsonl", [{"question": "x?"}])
    with pytest.raises(DataError, match=r"q\.jsonl line 1: a row without `question` is a document, and --documents"):
        questions.read(good, write(tmp_path / "e.jsonl", DOCUMENTS))
    with pytest.raises(DataError, match=r"d\.jsonl line 1: a question in the file of documents: name the"):
        questions.read(write(tmp_path / "f.jsonl", [{"question": "x?", "right": "a"}]), asked)


GERMAN = "Der Zug nach Hamburg fährt heute zwanzig Minuten später vom Gleis gegenüber ab."
ENGLISH = "The train to Hamburg leaves twenty minutes late today from the opposite platform."


def test_languages_that_nobody_gave_are_told_and_short_texts_among_those_of_long_ones(tmp_path):
    rows = [{"id": "a", "text": ENGLISH}, {"id": "b", "text": "Late trains are shown on the board in the hall today."}]
    rows += [{"question": GERMAN, "right": "a"}, {"question": "Welches Gleis?", "right": "b"}]
    found, _, notes = questions.read(write(tmp_path / "q.jsonl", rows))
    assert [each.language for each in found.questions] == ["de", "de"]
    assert [each.language for each in found.searched.documents] == ["en", "en"]
    assert "4 of 4 rows have no `language`" in notes[0] and "py3langid" in notes[0]


def test_without_the_identifier_languages_are_unknown_and_a_note_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(questions.extras, "tells_languages", lambda: False)
    found, _, notes = questions.read(write(tmp_path / "q.jsonl", GOOD))
    assert found.questions[0].language == "und" and "pip install 'lusifer[languages]'" in notes[0]
    rows, _ = questions.survey(found)
    assert [(row.language, row.cross_lingual) for row in rows] == [("und", False)]


def test_a_language_of_controls_alone_has_no_row_and_is_named(jsonl):
    rows, notes = questions.survey(questions.read(jsonl)[0])
    assert [(row.key, row.cross_lingual, row.cost) for row in rows] == [(("de", "MyQuestions"), True, 5)]
    assert "1 in en left out" in notes[0]
