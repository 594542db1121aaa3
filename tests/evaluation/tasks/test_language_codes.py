"""Files named by any code of a language, also of one outside the table, are found, scored and named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from lusifer.errors import DataError, UsageError
from lusifer.evaluation.report import card, facts, figures, page, words
from lusifer.evaluation.run.evaluate import Options, evaluate
from lusifer.evaluation.scores import results
from lusifer.evaluation.scores.averages import groups
from lusifer.evaluation.suites import suite
from lusifer.evaluation.tasks import local

OTHERS = ["ace_Arab", "ace_Latn", "nob_Latn", "zho_Hant", "tir_Ethi", "iw", "twi_Latn", "aka_Latn", "arb_Latn"]
CODES = dict(zip(OTHERS, ["ace_Arab", "ace", "nb", "zh_Hant", "ti", "he", "twi", "ak", "ar_Latn"], strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SIB-200 in English and in languages that the table does not have, under the names that its authors gave."""
    path = tmp_path_factory.mktemp("codes")
    for code in ["eng_Latn", *OTHERS]:
        for split, count in (("train", 24), ("dev", 12)):
            rows = [
                {"text": f"{code} {split} text {i} of kind {i % 3}", "label": f"k{i % 3}", "index_id": i}
                for i in range(count)
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (path / f"sib200-{code}-{split}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    (path / "sts-nb-NO.jsonl").write_text(
        "".join(json.dumps({"sentence1": "a", "sentence2": "b" * i, "score": i}) + "\n" for i in range(1, 5))
    )
    (path / "sib200-notes-dev.jsonl.gz").write_bytes(b"")
    return path


@pytest.mark.parametrize(
    "asked", [*CODES, *CODES.values(), "zh-TW", "zh-CN", "no", "he", "ACE-arab", "tir", "tw", "ar"]
)
def test_a_file_is_found_by_any_code_of_its_language(asked: str, folder: Path) -> None:
    chosen = suite.choose("offline", folder, [asked], ["SIB200Topics"])
    (row,) = chosen.rows
    mine = [name for name in chosen.digests if "eng" not in name and name.startswith("sib200")]
    assert not chosen.absent.get(row.key) and len(mine) == 2
    assert {CODES[name.split("-")[1]] for name in mine} == {row.language}


def test_codes_of_a_folder_are_those_of_its_files(folder: Path) -> None:
    assert local.codes(local.tasks("offline"), folder) == {"en", *CODES.values()}
    rows = suite.choose("offline", folder, ["nb"]).rows
    assert "STSFile" in {row.task for row in rows}


def test_mteb_takes_every_language(folder: Path) -> None:
    chosen = suite.choose("offline", folder, OTHERS)
    for row in chosen.rows:
        task = chosen.make([row])
        assert set(row.subsets) <= set(task.metadata.eval_langs)


def test_what_has_no_file_is_missing_and_what_is_no_language_refused(folder: Path) -> None:
    chosen = suite.choose("offline", folder, ["ti", "pt-BR"], ["SIB200Topics"])
    assert chosen.absent[("pt", "SIB200Topics")] == "sib200-pt-train.jsonl.gz: no such file"
    with pytest.raises(UsageError, match="language 'tigrinia' is unknown: did you mean"):
        suite.choose("offline", folder, ["tigrinia"])
    with pytest.raises(UsageError, match="language 'nb' is not in this suite: use one of en,"):
        suite.choose("paper", None, ["no"])


def test_languages_outside_the_table_are_in_tables_report_and_figures(folder: Path, model_folder: Path, tmp_path: Path):
    options = Options(data=folder, languages=["en", "zh-TW", "tir", "ace_Arab"], tasks=["SIB200Topics"])
    evaluate(model_folder, options, tmp_path / "e")
    made = results.read(tmp_path / "e")
    assert {entry.language: entry.missing for entry in made.scores} == dict.fromkeys(
        ["en", "zh_Hant", "ti", "ace_Arab"]
    )
    assert groups(["en", "ti", "zh_Hant", "ace_Arab"])["all but English"] == ["ace_Arab", "ti", "zh_Hant"]
    assert groups(["en", "sw", "ti", "de"])["resource level unknown"] == ["de", "ti"]
    gathered = facts.gather([made], 0)
    table, html = card.markdown(gathered), page.page([gathered])
    for name in ("Tigrinya (ti)", "Chinese (Traditional) (zh_Hant)", "Acehnese (Arabic) (ace_Arab)"):
        assert name in table and name in html
    assert "unknown (outside the paper" in html and "Ethiopic" in html
    marks = figures.language_marks(["en", "ti", "zh_Hant", "ace_Arab", "ace"])
    assert [code for group in marks.values() for code in group] == ["en", "ace", "ace_Arab", "ti", "zh_Hant"]
    assert words.language_name("no language at all") == "no language at all"


def pairs(folder: Path, *words: str) -> None:
    rows = "".join(json.dumps({"sentence1": "a", "sentence2": "b" * i, "score": i}) + "\n" for i in range(1, 5))
    for word in words:
        (folder / f"sts-{word}.jsonl").write_text(rows)


@pytest.mark.parametrize("word", ["en-de", "en_de", "EN-de", "eng-deu", "en-tr", "en-Latn-de", "en-De"])
def test_a_pair_of_languages_is_no_file_of_the_first(word: str, tmp_path: Path) -> None:
    pairs(tmp_path, word, "sw")
    chosen = suite.choose("offline", tmp_path, ["en", "sw"], ["STSFile"])
    assert {row.language for row in chosen.rows} == {"sw"} and list(chosen.digests) == ["sts-sw.jsonl"]
    assert [note.split(":")[0] for note in chosen.notes if word in note] in ([f"sts-{word}.jsonl"], [])


@pytest.mark.parametrize("word", ["en-DE", "en_US", "EN-GB", "eng_Latn", "en-Latn-GB", "en-us", "en-gb"])
def test_a_file_under_another_code_is_named(word: str, tmp_path: Path) -> None:
    pairs(tmp_path, word)
    chosen = suite.choose("offline", tmp_path, ["en"], ["STSFile"])
    assert list(chosen.digests) == [f"sts-{word}.jsonl"]
    assert list(chosen.notes) == [f"sts-{word}.jsonl: read as en (English)"]


@pytest.mark.parametrize("words_", [("pt-BR", "pt-PT"), ("pt-BR", "pt"), ("por_Latn", "pt_PT")])
def test_two_files_of_one_language_are_refused(words_: tuple[str, str], tmp_path: Path) -> None:
    pairs(tmp_path, *words_, "en")
    names = " and ".join(f"sts-{word}.jsonl" for word in words_)
    with pytest.raises(DataError, match=f"{names} are both for pt: leave only one of them"):
        suite.choose("offline", tmp_path, ["pt"], ["STSFile"])
    assert suite.choose("offline", tmp_path, ["en"], ["STSFile"]).notes == []
    (tmp_path / "sts-en.jsonl.gz").write_bytes(gzip.compress((tmp_path / "sts-en.jsonl").read_bytes(), mtime=0))
    with pytest.raises(DataError, match="sts-en.jsonl and sts-en.jsonl.gz are both for en"):
        suite.choose("offline", tmp_path, ["en"], ["STSFile"])


def test_another_script_is_said(model_folder: Path, tmp_path: Path) -> None:
    pairs(tmp_path, "zh-TW", "en")
    said: list[str] = []
    evaluate(model_folder, Options(data=tmp_path, languages=["zh"], tasks=["STSFile"]), note=said.append)
    assert said == [
        "zh: only zh_Hant (Chinese (Traditional)) has texts, so it is measured",
        "sts-zh-TW.jsonl: read as zh_Hant (Chinese (Traditional))",
    ]
    chosen = suite.choose("paper", None, ["hi-Latn"])
    assert chosen.notes == ["hi-Latn: only hi (Hindi) has texts, so it is measured"]


def test_a_pair_that_is_asked_for_is_said_to_be_the_first(tmp_path: Path) -> None:
    pairs(tmp_path, "en", "de", "zh-cn", "fr-fr")
    chosen = suite.choose("offline", tmp_path, ["en-de"], ["STSFile"])
    assert {row.language for row in chosen.rows} == {"en"}
    assert list(chosen.notes) == ["en-de: read as en (English): write a comma between two languages"]
    assert suite.choose("offline", tmp_path, ["en-US"], ["STSFile"]).notes == []
    for code in ("zh-cn", "fr-fr"):
        found = suite.choose("offline", tmp_path, [code], ["STSFile"])
        assert list(found.digests) == [f"sts-{code}.jsonl", "sts-en.jsonl"] and len(found.notes) == 1


def test_a_folder_of_pairs_alone_says_why_nothing_is_read(tmp_path: Path) -> None:
    pairs(tmp_path, "en-de")
    with pytest.raises(
        DataError, match="nothing to measure in it: .*; sts-en-de.jsonl: not read: en-de looks like two"
    ):
        suite.choose("offline", tmp_path, ["en"])


@pytest.mark.parametrize("end", [".JSONL", ".Jsonl.GZ"])
def test_endings_of_evaluation_files_may_be_in_capitals(end: str, tmp_path: Path) -> None:
    pairs(tmp_path, "en")
    content = (tmp_path / "sts-en.jsonl").read_bytes()
    (tmp_path / "sts-en.jsonl").unlink()
    (tmp_path / f"sts-en{end}").write_bytes(gzip.compress(content, mtime=0) if end.endswith("GZ") else content)
    assert list(suite.choose("offline", tmp_path, ["en"], ["STSFile"]).digests) == [f"sts-en{end}"]
