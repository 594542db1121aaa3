"""Where a model stops reading: documents of known length, on a model that reads so many words and no more."""

import json
from pathlib import Path

import numpy as np
import pytest

from lusifer.errors import DataError, UsageError
from lusifer.evaluation.report import card, facts
from lusifer.evaluation.run.evaluate import Options, evaluate
from lusifer.evaluation.scores import long, results
from lusifer.evaluation.search.long import BETWEEN, TASKS
from lusifer.evaluation.tasks import xquad
from support.words import Words

BY_NAME = {task.__name__: task for task in TASKS}
SIX = tuple(f"Long{name}" for name in ("1", "2End", "4Start", "4End", "8Middle", "8End"))


class Tokens:
    """A word is a token, and two stand around a text."""

    model_max_length = 512

    def __call__(self, texts, truncation=False, max_length=None, **_):
        ids = [[1, *(hash(word) % 997 for word in text.split()), 2] for text in texts]
        return {"input_ids": [row[:max_length] if truncation else row for row in ids]}


class Short(Words):
    """Reads the first so many tokens, and knows a paragraph by its number."""

    max_seq_length = 22
    tokenizer = Tokens()

    def vector(self, text: str) -> np.ndarray:
        vector = np.zeros(64, np.float32)
        for word in text.split()[: self.max_seq_length - 2]:
            if word.isdigit():
                vector[int(word)] += 1
        return vector + 1e-3

    def get_embedding_dimension(self) -> int:
        return 64


def paragraph(number: int) -> str:
    """Eight words in two sentences."""
    return f"{number} is the one. That we want."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for code in ("en", "es"):
        value = {
            "paragraphs": [{"id": f"p{n:02}", "text": paragraph(n)} for n in range(30)],
            "questions": [{"id": f"q{n}", "text": f"{n}", "paragraph_id": f"p{n:02}"} for n in range(30)],
        }
        xquad.file_of(tmp_path, code).write_text(json.dumps(value), encoding="utf-8")
    return tmp_path


def test_documents_have_the_answer_at_its_place_and_the_same_others_at_every_length(folder):
    texts = xquad.read(xquad.file_of(folder, "en")).paragraphs
    made = {name: BY_NAME[name].build("en", xquad.read(xquad.file_of(folder, "en"))) for name in SIX}
    assert {len(each.searched.documents) for each in made.values()} == {6}
    for name, place in zip(SIX, (0, 1, 0, 3, 4, 7), strict=True):
        for document in made[name].searched.documents:
            parts = document.text.split(BETWEEN)
            assert parts[place] == texts[document.id] and len(parts) == int(name[4]) == len(set(parts))
            others = [int(part.split()[0]) for part in parts if part != texts[document.id]]
            own = int(document.id[1:])
            assert all(number % 5 and number // 5 != own // 5 for number in others)
    ends = [made[name].searched.documents[2].text.split(BETWEEN)[:-1] for name in ("Long2End", "Long4End", "Long8End")]
    assert ends[0] == ends[1][:1] and ends[1] == ends[2][:3]
    assert [each.right for each in made["Long1"].questions] == [(f"p{n:02}",) for n in range(0, 30, 5)]


def test_what_lies_behind_the_end_of_reading_is_not_found_and_passages_find_it(folder, tmp_path):
    evaluate(Short(), Options("long", folder, languages=["en", "es"]), tmp_path / "scores", name="short")
    made = results.read(tmp_path / "scores")
    found = {entry.key[1]: entry.score for entry in made.scores if entry.language == "es"}
    # Twenty words are read: two paragraphs of seven and a part of the third.
    assert found["Long1"] == found["Long2End"] == found["Long4Start"] == found["Long8Start"] == 100
    assert max(found[name] for name in ("Long4End", "Long8Middle", "Long8End")) <= 17  # one of six
    assert found["Long2EndPassages"] == found["Long4EndPassages"] == found["Long8EndPassages"] == 100
    assert {entry.cross_lingual for entry in made.scores if entry.language == "en"} == {False}
    report = long.reports([made], ["short"])[0]
    assert report.languages == ("en", "es") and report.chance == pytest.approx(100 / 6)
    first, second = report.sentences
    assert "a paragraph of 7 words alone is found for 100 %" in first and "after 21 words" in first
    assert first.endswith("The model reads about 14 words.")
    assert "documents of 56 words with the answer at the end are found for 100 %" in second
    cut = {(row.details.paragraphs, row.details.in_passages, row.details.position): row.details for row in report.rows}
    assert cut[8, False, "end"].cut == 6 and cut[8, True, "end"].cut == 0 and cut[8, False, "middle"].before == 28
    shown = card.markdown(facts.gather([made]))
    assert "## Long texts: short" in shown and "| 8 | in passages | end | 56 | 49 | 0 of " in shown


def test_a_model_that_reads_all_is_said_to(folder, tmp_path):
    class Patient(Short):
        max_seq_length = 500

    names = ["Long1", "Long2End", "Long4End", "Long8End"]
    evaluate(Patient(), Options("long", folder, languages=["en"], tasks=names), tmp_path / "scores")
    sentences = long.reports([results.read(tmp_path / "scores")], ["m"])[0].sentences
    assert len(sentences) == 1 and sentences[0].endswith("to the end.")


def test_damaged_details_and_too_few_paragraphs_are_named(folder, tmp_path):
    evaluate(Short(), Options("long", folder, languages=["en"], tasks=["Long1"]), tmp_path / "scores")
    file = tmp_path / "scores" / "details" / "Long1.json"
    value = json.loads(file.read_text())
    value["en"]["words"] = "many"
    file.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"details/Long1\.json: en: words: .*evaluate again"):
        long.reports([results.read(tmp_path / "scores")], ["m"])
    few = xquad.Questions({f"p{n}": "x" for n in range(9)}, (("q", "x", "p0"),))
    with pytest.raises(DataError, match="9 paragraphs are too few to join 8"):
        BY_NAME["Long1"].build("en", few)


def test_without_files_for_a_language_there_is_nothing_to_measure(folder):
    with pytest.raises(UsageError, match="no file for these languages"):
        evaluate(Short(), Options("long", folder, languages=["fr"]))
    with pytest.raises(UsageError, match="--suite long reads files"):
        evaluate(Short(), Options("long"))
