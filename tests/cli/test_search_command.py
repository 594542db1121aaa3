"""`lusifer index`, `search` and `reindex` as typed; and an index whose writer is killed."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from lusifer import extras
from lusifer.cli import main, search
from lusifer.index.index import Index
from lusifer.io import names
from lusifer.serving import guard
from support.processes import lusifer

TEXTS = {"a.txt": "The station is in the north.", "b/c.md": "# Вода\n\nВода — это жизнь.", "d.txt": "水は命です。"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> Path:
    """A folder of texts, in the working folder of a user."""
    monkeypatch.chdir(tmp_path)
    for name, text in TEXTS.items():
        (tmp_path / "notes" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "notes" / name).write_text(text, encoding="utf-8")
    (tmp_path / "model").symlink_to(model_folder)
    return tmp_path


def run(capsys, *words: str) -> tuple[list[str], list[str]]:
    """Lines on standard output and standard error of a command that must work."""
    assert main(list(words)) == 0
    said = capsys.readouterr()
    return said.out.splitlines(), said.err.splitlines()


def refused(capsys, status: int, *words: str) -> str:
    assert main(list(words)) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("lusifer: error: "), lines
    return lines[0]


def test_a_folder_of_texts_is_indexed_searched_and_brought_up_to_date(capsys):
    command = ["index", "model", "--input", "notes", "--output", "i"]
    said = run(capsys, *command)[1]
    assert said == ["lusifer: 3 documents -> i: 3 added, 0 replaced, 0 unchanged; 3 passages embedded"]
    out, err = run(capsys, "search", "i", "水は命です。", "--top-k", "2")
    assert out[:2] == ["1  1.000  d.txt", "   水は命です。"] and len(out) == 4 and err == []
    err = run(capsys, "search", "i", "water " * 100)[1]
    assert err == ["lusifer: the query has 203 tokens; the model reads the first 64"]
    out, _ = run(capsys, "search", "i", "ВОДА", "--mode", "words", "--json")
    text = TEXTS["b/c.md"]
    expected = {"id": "b/c.md", "score": None, "text": text, "start": 0, "end": len(text), "fields": {}}
    assert [json.loads(line) for line in out] == [expected]
    Path("notes/a.txt").unlink()
    Path("notes/d.txt").write_text("火。", encoding="utf-8")
    Path("notes/empty.txt").write_text("\n")
    assert run(capsys, *command, "--prune")[1] == [
        "lusifer: 1 empty file is left out",
        "lusifer: 2 documents -> i: 0 added, 1 replaced, 1 unchanged, 1 deleted; 1 passage embedded",
    ]
    assert run(capsys, "search", "i", "station", "--mode", "words") == ([], ["lusifer: i: nothing found"])


def test_rows_are_filtered_by_their_fields_and_reindexed_in_other_passages(capsys):
    rows = [{"id": n, "body": text * 9, "lang": n} for n, text in TEXTS.items()]
    Path("r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["--input", "r.jsonl", "--field", "body", "--output", "i", "--overlap", "4"]
    run(capsys, "index", "model", *words)
    out, _ = run(capsys, "search", "i", "station", "--where", "lang != 'a.txt'", "--json")
    assert {json.loads(line)["id"] for line in out} == {"b/c.md", "d.txt"}
    assert "filter 'lang': " in refused(capsys, 2, "search", "i", "station", "--where", "lang")
    before = len(Index.open("i"))
    said = run(capsys, "reindex", "i", "--model", "model", "--tokens", "32")[1]
    assert said[0] == "lusifer: tokens of a passage: 64 -> 32"
    assert said[1].startswith("lusifer: 3 documents -> i: 3 added") and len(Index.open("i")) > before
    refusal = refused(capsys, 2, "index", "model", *words[:-2], "--tokens", "40")
    wanted = "another value: leave the option out; to embed the texts again: `lusifer reindex i "
    assert wanted in refusal
    run(capsys, "index", "model", *words[:-2], "--tokens", "32")


def test_on_long_and_prompts_reach_the_index(capsys):
    Path("long.txt").write_text("water " * 200 + "\n")
    words = ["--input", "long.txt", "--output", "i", "--task", "retrieval"]
    assert "tokens, but a passage has at most 64" in refused(capsys, 1, "index", "model", *words, "--on-long", "error")
    said = run(capsys, "index", "model", *words, "--on-long", "cut")[1]
    assert "1 of 1 text is longer than the 64 tokens" in said[0]
    model = Index.open("i").model
    assert model.query.endswith("\n") and model.document == ""
    assert "--task: the index was made with another value" in refused(capsys, 2, "index", "model", *words[:-1], "sts")


def test_texts_are_cut_where_a_passage_ends_and_split_by_a_later_call(capsys):
    Path("long.txt").write_text("".join("water stone. " * 9 + end + "\n" for end in ("fire fire", "night night")))
    words = ["index", "model", "--input", "long.txt", "--output", "i"]
    err = run(capsys, *words, "--tokens", "20", "--on-long", "cut")[1]
    assert err[0].startswith("lusifer: 2 of 2 texts are longer than the 20 tokens of a passage and were truncated; ")
    hits = Index.open("i").search("fire fire")[0]
    assert hits[0].score == pytest.approx(hits[1].score) and {len(hit.text) for hit in hits} == {126, 128}
    assert "0 replaced, 2 unchanged" in run(capsys, *words, "--on-long", "cut")[1][0]
    assert "tokens, but a passage has at most 20" in refused(capsys, 1, *words, "--on-long", "error")
    assert "0 added, 2 replaced, 0 unchanged" in run(capsys, *words)[1][0] and len(Index.open("i")) > 2
    assert "0 replaced, 2 unchanged" in run(capsys, *words)[1][0]


def test_texts_and_questions_in_a_script_without_a_score_are_said_or_refused(capsys, model_folder, monkeypatch):
    monkeypatch.setattr(guard, "identifier", lambda: pytest.fail("reads py3langid, which nobody asked for"))
    (shutil.copytree(model_folder, Path("carded")) / "README.md").write_text("---\nlanguage: [en]\n---\n")
    command = ["index", "carded", "--input", "notes", "--output", "i"]
    words = "of 3 texts 2 may get bad vectors from carded: "
    words += "Cyrillic 1, Japanese 1 without a score on its card; the first is "
    assert words + "notes/b/c.md: leave these texts out" in refused(capsys, 1, *command, "--unscored", "error")
    assert not Path("i").exists()
    assert run(capsys, *command)[1][1:] == [f"lusifer: {words}notes/b/c.md"]
    assert len(run(capsys, *command, "--unscored", "off")[1]) == 1
    question = ["search", "i", "水は命です。"]
    out, err = run(capsys, *question)
    assert out and len(err) == 1 and err[0].startswith("lusifer: ")
    assert "carded may give a bad vector: it has no score for Japanese" in err[0]
    assert "it has no score for Japanese" in refused(capsys, 1, *question, "--unscored", "error")
    for more in (["--unscored", "off"], ["--mode", "words"]):
        assert run(capsys, *question, *more)[1] == []
    assert run(capsys, "search", "i", "station")[1] == []


def test_a_model_without_its_golden_vectors_embeds_nothing_and_leaves_nothing(capsys, model_folder):
    bad = shutil.copytree(model_folder, Path("bad"))
    command = ["index", "bad", "--input", "notes", "--output", "i"]
    run(capsys, *command)
    (bad / "golden.json").write_text(json.dumps({"texts": ["a"], "vectors": [[1.0] * 48]}))
    wrong = "bad: gives other vectors than when it was written"
    assert wrong in refused(capsys, 1, *command[:-1], "new") and not Path("new").exists()
    assert wrong in refused(capsys, 1, *command)
    assert wrong in refused(capsys, 1, "reindex", "i", "--model", "bad")


def test_a_question_to_an_index_of_an_embedder_is_told_of_the_model_that_was_trained_in_its_space(
    capsys, folder, monkeypatch
):
    run(capsys, "index", "model", "--input", "notes", "--output", "i")
    assert run(capsys, "search", "i", "vatn")[1] == []
    made, models = Index.open("i").model, folder / "shipped"
    for name, whose in (("lusifer-else", "another"), ("lusifer-many", made.identity)):
        (models / name).mkdir(parents=True)
        (models / name / "config.json").write_text(json.dumps({"space": {"name": "model", "identity": whose}}))
    monkeypatch.setattr(names, "roots", lambda kind: [models])
    (line,) = run(capsys, "search", "i", "vatn")[1]
    assert f"{made.name} embedded the question" in line and line.endswith("add `--model many`")
    assert run(capsys, "search", "i", "vatn", "--model", "model")[1] == []  # who names it has chosen
    for identifies in (True, False):
        monkeypatch.setattr(extras, "tells_languages", lambda known=identifies: known)
        assert run(capsys, "search", "i", "Where is the station?")[1] == []
        for question in ("¿Dónde está la estación?", "Kituo kiko wapi?", "पानी"):
            assert run(capsys, "search", "i", question)[1] == [line]
    assert len(run(capsys, "search", "i", "station", "--mode", "words")[1]) == 0


def test_advice_to_embed_an_index_again_is_quoted_and_only_given_where_it_has_texts(capsys, folder):
    words = ["index", "model", "--input", "notes", "--output", "my index"]
    run(capsys, *words)
    again = "to embed the texts again: `lusifer reindex 'my index' --model model"
    assert f"{again} --dtype bfloat16`" in refused(capsys, 2, *words, "--dtype", "bfloat16")
    assert f"{again}`" in refused(capsys, 2, *words, "--tokens", "20")
    np.save("v.npy", np.eye(2, 48, dtype=np.float32))
    words = ["index", "model", "--vectors", "v.npy", "--output", "bare"]
    run(capsys, *words)
    said = refused(capsys, 2, *words, "--dtype", "bfloat16")
    assert "reindex" not in said and "has no texts to embed again: for other vectors, make a new index" in said


def test_an_index_whose_model_was_moved_names_both_and_is_asked_by_it_in_its_new_place(capsys, model_folder):
    shutil.copytree(model_folder, Path("old"))
    run(capsys, "index", "old", "--input", "notes", "--output", "i")
    whose = Index.open("i").model.identity
    Path("old").rename("new")
    said = refused(capsys, 2, "search", "i", "水は命です。")
    assert f"i: its model {Path('old').resolve()} (identity {whose}) was moved or deleted: if you have it in" in said
    assert "another folder, name that folder: `--model PATH`" in said
    assert "otherwise embed the stored texts again with another model: `lusifer reindex i --model MODEL`" in said
    out, _ = run(capsys, "search", "i", "水は命です。", "--model", "new", "--top-k", "1")
    assert out[0] == "1  1.000  d.txt"
    (Path("new") / "config.json").write_text("{")
    Path("new").rename("old")
    assert f"i: its model {Path('old').resolve()} (identity {whose}) cannot be read (" in refused(
        capsys, 2, "search", "i", "water"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["index", "model", "--output", "i"], "--input: name a folder or a file of texts"),
        (["index", "model", "--input", "no.txt", "--output", "i"], "no.txt: no such file"),
        (["index", "model", "--input", "notes", "--output", "notes"], "notes: has other files and is no index"),
        (["index", "nowhere", "--input", "notes", "--output", "i"], "nowhere: no such folder"),
        (["index", "model", "--input", "notes", "--output", "i", "--task", "x"], "task 'x' is unknown"),
        (["search", "i", "water"], "i: no index there: make one with `lusifer index"),
        (["search", "notes", "water"], "notes: no index there"),
        (["reindex", "i", "--model", "model"], "i: no index there"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_wrong_calls_are_status_2_and_leave_nothing(capsys, words, message):
    assert message in refused(capsys, 2, *words)
    assert not Path("i").exists()


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_whole_commits_and_the_same_call_goes_on(folder):
    rows = [{"id": f"r{n}", "text": f"Row {n}. " + "water " * (n % 500 // 10)} for n in range(3072)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["index", "model", "--input", "rows.jsonl", "--output", "i"]
    started = lusifer(folder, *command)
    end = time.monotonic() + 120
    while len(list(Path("i/documents.lance/_versions").glob("*.manifest"))) < 3:
        assert started.process.is_alive() and time.monotonic() < end, started.stderr
        time.sleep(0.001)
    started.process.kill()
    assert started.wait() == -9
    index = Index.open("i")
    found = index.ids()
    assert 0 < len(found) < len(rows) and found == {row["id"] for row in rows[: len(found)]} and len(found) % 1024 == 0
    for row in rows[: len(found) : 97]:
        hit = index.search(row["text"].split(".")[0], mode="words", top_k=1)[0][0]
        assert hit.id == row["id"] and row["text"].startswith(hit.text)
    again = lusifer(folder, *command)
    assert again.wait() == 0, again.stderr
    assert f"{len(rows) - len(found):,} added, 0 replaced, {len(found):,} unchanged" in again.stderr
    assert index.ids() == {row["id"] for row in rows}


@pytest.fixture
def statistics(capsys, folder: Path) -> Path:
    """What `lusifer calibrate` makes of the sample, which says how little that is."""
    assert main(["calibrate", "model", "--parallel", "sample", "--output", "s.safetensors"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].startswith("at one threshold for all languages, on the half")
    assert [line.split()[0] for line in said.out.splitlines()[3:]][:2] == ["es", "ru"]
    taken, first, second = said.err.splitlines()
    assert taken.startswith("lusifer: sample: 28 sentences, each in 14 languages: English (en), ")
    assert "Swahili (sw)" in taken
    assert "28 sentences in 14 languages -> s.safetensors; the zero of a score is precise to " in first
    assert (
        second
        == "lusifer: fewer than 200 sentences are only a demonstration: take a few hundred for a threshold to rely on"
    )
    return folder / "s.safetensors"


def test_scores_that_can_be_compared_are_shown_where_asked(capsys, statistics, monkeypatch):
    run(capsys, "index", "model", "--input", "notes", "--output", "i")
    error = refused(capsys, 2, "search", "i", "vatn", "--calibrated")
    assert "(`lusifer calibrate " in error and "--statistics" in error
    more = ["--calibrated", "--statistics", "s.safetensors"]
    out, err = run(capsys, "search", "i", "水は命です。", *more, "--language", "ko", "--json")
    hits = [json.loads(line) for line in out]
    assert hits[0]["id"] == "d.txt" and err == [] and all("calibrated" in hit for hit in hits)
    least = f"{hits[0]['calibrated'] - 0.001:.3f}"
    with monkeypatch.context() as patched:
        for told, said in (("ja", ""), (None, ", with all languages")):
            patched.setattr(guard, "told", lambda text, codes, told=told: told)
            out, _ = run(capsys, "search", "i", "水は命です。", *more, "--language", "ko", "--top-k", "1", "--json")
            hit = json.loads(out[0])
            assert hit["language"] == told
            out, _ = run(capsys, "search", "i", "水は命です。", *more, "--language", "ko", "--top-k", "1")
            assert out[0] == f"1  1.000 ({hit['calibrated']:.2f}{said})  d.txt"
    out, _ = run(capsys, "search", "i", "水は命です。", *more, "--language", "ko", "--min-score", least)
    assert "d.txt" in out[0]
    out, err = run(capsys, "search", "i", "water", "--min-score", "1.1")
    assert out == [] and err == ["lusifer: i: nothing found with a score of 1.1 or more"]
    err = run(capsys, "search", "i", "水は命です。", *more)[1]
    assert err == [
        "lusifer: the language of the query was not identified: scores are calibrated with all languages together "
        "(set it with --language)"
    ]
    err = run(capsys, "search", "i", "Wasser", *more, "--language", "de")[1]
    assert err[0].startswith("lusifer: the language of the query (de) is not one of 14 known: scores are")
    error = refused(capsys, 2, "search", "i", "Wasser", "--language", "de")
    assert "--language de: is for calibrated scores or an index with offsets: add --calibrated" in error
    error = refused(capsys, 2, "search", "i", "Wasser", *more, "--language", "deutsch!")
    assert "is unknown" in error
    assert "gives no scores" in refused(capsys, 2, "search", "i", "Wasser", "--mode", "words", "--min-score", "1")


def test_an_index_with_offsets_as_typed(capsys, statistics):
    rows = ({"id": "a", "text": "Maji ni uhai.", "lang": "sw"}, {"id": "b", "text": "Νερό", "lang": "el"})
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["index", "model", "--input", "rows.jsonl", "--output", "o"]
    said = run(capsys, *command, "--offsets", "s.safetensors", "--language-field", "lang")[1]
    assert said[0] == (
        "lusifer: the language of 1 of 2 documents was not identified or has no offset: their vectors are stored "
        "without an offset; the first is rows.jsonl line 2"
    )
    assert run(capsys, *command)[1][-1].endswith("2 unchanged; 0 passages embedded")
    out, err = run(capsys, "search", "o", "Maji ni uhai.", "--language", "sw", "--calibrated")
    assert out[0].startswith("1  1.000 (") and err == []
    err = run(capsys, "search", "o", "Νερό", "--language", "el")[1]
    assert (
        "(el) is not one of 14 known: no offset is subtracted from the vector of the query (set it with --language)"
        in err[0]
    )
    for more in (["--language-field", "lang"], ["--offsets", "s.safetensors"]):  # as it was made
        assert run(capsys, *command, *more)[1][-1].endswith("2 unchanged; 0 passages embedded")
    error = refused(capsys, 2, *command, "--language-field", "tongue")
    assert "--language-field: the index was made with another value: leave the option out; to embed" in error
    error = refused(capsys, 2, *command, "--offsets", "s.safetensors", "--language-field", "tongue")
    assert "--language-field: the index was made with another value: leave the option out; to embed" in error
    error = refused(capsys, 2, *command, "--offsets", "none.safetensors")
    assert "none.safetensors: no such file: make it with `lusifer calibrate" in error
    said = run(capsys, "reindex", "o", "--model", "model", "--offsets", "none")[1]
    assert "-> none" in said[0]


def test_a_language_field_for_an_index_without_offsets_has_no_effect(capsys):
    command = ["index", "model", "--input", "notes", "--output", "i"]
    for _ in range(2):  # a new index, and an existing one
        error = refused(capsys, 2, *command, "--language-field", "lang")
        assert "--language-field lang: has no effect without --offsets: give them, or leave it out" in error
        run(capsys, *command)


def test_an_index_that_another_process_made_while_the_model_was_loaded(capsys, monkeypatch, model_folder):
    real = search.load_to_embed

    def meanwhile(*words, **named):
        Index.create("i", model_folder)
        return real(*words, **named)

    monkeypatch.setattr(search, "load_to_embed", meanwhile)
    command = ["index", "model", "--input", "notes", "--output", "i"]
    error = refused(capsys, 2, *command)
    assert "i: was made by another process meanwhile: run the command again to add to it" in error


def test_where_the_statistics_go(capsys, folder, model_folder):
    own = shutil.copytree(model_folder, folder / "own")
    before = sorted(file.name for file in own.iterdir())
    assert main(["calibrate", "own", "--parallel", "sample"]) == 0
    capsys.readouterr()
    assert sorted(file.name for file in own.iterdir()) == sorted([*before, "languages.safetensors"])
    run(capsys, "index", "own", "--input", "notes", "--output", "own.index")
    assert run(capsys, "search", "own.index", "water", "--calibrated", "--language", "en")[0]
    error = refused(capsys, 2, "calibrate", "mini", "--parallel", "sample")
    assert error.startswith("lusifer: error: --output: needed, because mini is not a folder: name a file")
    Path("two.jsonl").write_text('{"en": "a", "sw": "b"}\n{"en": "a"}\n')
    assert "two.jsonl" in refused(capsys, 1, "calibrate", "own", "--parallel", "two.jsonl", "--output", "x.safetensors")
    assert not Path("x.safetensors").exists()


def test_index_with_another_model_than_that_of_the_index_advises_another_output(capsys, model_folder):
    run(capsys, "index", "model", "--input", "notes", "--output", "i")
    file = shutil.copytree(model_folder, Path("other")) / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prompts": {"query": "Find: ", "document": ""}}))
    said = refused(capsys, 2, "index", "other", "--input", "notes", "--output", "i")
    assert "gives other vectors: choose another --output, name the first model, or embed the stored texts again" in said
    said = refused(capsys, 2, "search", "i", "water", "--model", "other")
    assert "gives other vectors: search with the first model, or embed the stored texts again" in said
