"""The index: what is committed is found, filters come before the search, and no other model gets in."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from lusifer.errors import DataError, TextError, UsageError
from lusifer.index import table, writing
from lusifer.index.index import Index
from lusifer.index.ranks import RRF, fuse, merged

TEXTS = [
    "Water is life.",
    "Вода — это жизнь.",
    "पानी ही जीवन है।",
    "水は命です。",
    "Maji ni uhai.",
    "The train is late.",
]
DOCUMENTS = [
    {
        "id": f"d{number}",
        "text": text,
        "lang": lang,
        "Year": 2000 + number,
        "price": number / 2,
        "open": number % 2 == 0,
    }
    for number, (text, lang) in enumerate(zip(TEXTS, ["en", "ru", "hi", "ja", "sw", "en"], strict=True))
]
NAMES = {  # a family name in its own script, and a sentence that has it in another form of the language or not at all
    "en": "Wollstonecraft", "es": "Cervantes", "ru": "Ахматова", "fr": "Lavoisier", "vi": "Nguyễn", "fa": "فردوسی",
    "id": "Kartini", "ar": "ابن سينا", "fi": "Sibelius", "ko": "세종대왕", "hi": "प्रेमचंद", "bn": "রবীন্দ্রনাথ",
    "te": "పోతన", "sw": "Nyerere", "th": "สุนทรภู่", "ja": "紫式部", "zh": "曹雪芹",
}  # fmt: skip


@pytest.fixture(scope="module")
def shared(model_folder, embedder, tmp_path_factory) -> Index:
    """An index of `DOCUMENTS`. Read only."""
    made = Index.create(tmp_path_factory.mktemp("index") / "i", model_folder, embedder=embedder)
    report = made.add(DOCUMENTS)
    assert (report.added, report.replaced, report.unchanged, report.embedded.rows) == (6, 0, 0, 6)
    return made


@pytest.fixture
def fresh(model_folder, embedder, tmp_path) -> Index:
    return Index.create(tmp_path / "i", model_folder, embedder=embedder)


def ids(index: Index, *words, **more) -> list[str]:
    return [hit.id for hit in index.search(*words, **more)[0]]


def test_a_document_is_its_own_nearest_with_all_that_was_kept_of_it(shared):
    for document, (first, *others) in zip(DOCUMENTS, shared.search(TEXTS), strict=True):
        assert (
            first.id == document["id"] and first.text == document["text"] and first.score == pytest.approx(1, abs=1e-5)
        )
        assert (first.start, first.end) == (0, len(document["text"]))
        assert first.fields == {key: document[key] for key in ("lang", "Year", "price", "open")}
        assert [hit.score for hit in others] == sorted((hit.score for hit in others), reverse=True) and len(others) == 5
    assert shared.fields == {"lang": "text", "Year": "int", "price": "float", "open": "bool"}


def test_scores_are_the_cosines_that_the_model_gives(shared, embedder):
    vectors = embedder.encode([*TEXTS, "fire"])
    expected = (vectors[:-1] @ vectors[-1]) / np.linalg.norm(vectors[:-1], axis=1) / np.linalg.norm(vectors[-1])
    found = {hit.id: hit.score for hit in shared.search("fire")[0]}
    assert [found[f"d{number}"] for number in range(6)] == pytest.approx(list(expected), abs=1e-5)
    given = shared.search("fire", vectors=3 * vectors[-1:])[0]
    assert {hit.id: hit.score for hit in given} == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize("mode", ["vector", "hybrid", "words"])
def test_a_filter_comes_before_the_search(shared, mode):
    # Water's own document is the nearest, and is not among those that the filter lets through.
    assert ids(shared, "Water is life. train", where="lang = 'en' AND `Year` > 2000", mode=mode, top_k=1) == ["d5"]
    assert ids(shared, "Water is life.", where="open AND price > 100", mode=mode) == []


def test_rows_of_a_filter_are_kept_until_something_is_committed_and_those_of_a_function_never(fresh, monkeypatch):
    fresh.add([{"id": "a", "text": "one", "tag": "x"}, {"id": "b", "text": "two", "tag": "y"}])
    asked = []
    real = table.filtered
    monkeypatch.setattr(table, "filtered", lambda where, fields: asked.append(where) or real(where, fields))
    for _ in range(2):
        assert ids(fresh, "one", where="tag IN ('x')") == ["a"]
        assert ids(fresh, "one", where="lower(tag) = 'y'") == ["b"]
    assert asked == ["tag IN ('x')", "lower(tag) = 'y'", "lower(tag) = 'y'"]
    fresh.add([{"id": "c", "text": "three", "tag": "x"}])
    fresh.delete(["a"])
    assert ids(fresh, "one", where="tag IN ('x')") == ["c"]
    for number in range(2 * table.FILTERS_KEPT):
        assert ids(fresh, "one", where=f"tag = 'y' AND {number} = {number}") == ["b"]
    assert len(fresh._table._allowed) == table.FILTERS_KEPT


@pytest.mark.parametrize("mode", ["vector", "words"])
@pytest.mark.parametrize("where", ["nothing = 1", "lang =", "'", "lang = 1 AND OR"])
def test_a_wrong_filter_is_named(shared, where, mode):
    with pytest.raises(UsageError, match="^filter .*: give an SQL condition on the fields"):
        shared.search("water", where=where, mode=mode)


def test_a_question_that_is_none_is_refused(shared):
    for text in ("", " \n", "a\x00b", "\u200b"):
        with pytest.raises(TextError, match="^question 2: "):
            shared.search(["water", text])
    for wrong in ({"mode": "magic"}, {"top_k": 0}):
        with pytest.raises(UsageError, match="use one of vector, hybrid, words, and 1 or more"):
            shared.search("water", **wrong)
    assert shared.search([]) == []


@pytest.mark.parametrize("query", ["*", "-", '"', "(", "AND", "🙂", "text:water", "a" * 5000, "水 OR ("])
def test_full_text_takes_any_question(shared, query):
    shared.search(query, mode="hybrid")


def test_hybrid_finds_a_name_typed_in_its_own_script_and_full_text_knows_no_english_stop_words(fresh):
    fresh.add(
        {"id": lang, "text": f"{name}: 1, 2. {TEXTS[place % 5]}"} for place, (lang, name) in enumerate(NAMES.items())
    )
    fresh.add([{"id": "stop", "text": "To be or not to be."}])
    for lang, name in NAMES.items():
        assert ids(fresh, name, mode="words", top_k=1) == [lang], name
        assert ids(fresh, name, mode="hybrid", top_k=2).count(lang) == 1, name
    assert ids(fresh, "to be", mode="words") == ["stop"]


def test_neither_search_filters_the_other(fresh):
    fresh.add(DOCUMENTS)
    assert set(ids(fresh, "train", mode="hybrid")) == {document["id"] for document in DOCUMENTS}
    assert ids(fresh, "xyzzy", mode="hybrid") == ids(fresh, "xyzzy")


def test_ranks_are_fused_by_reciprocal_rank():
    assert fuse([["a", "b", "c"], ["c", "d"]]) == ["c", "a", "b", "d"]  # b and d both stand second: the first list's
    assert fuse([["a", "b"]]) == ["a", "b"] and fuse([[], []]) == []
    assert 1 / (RRF + 1) > 1 / (RRF + 2)


def test_passages_are_merged_to_their_documents_however_many_one_has():
    rows = [("a", row) for row in range(50)] + [("b", 50), ("c", 51)]
    assert merged(lambda limit: rows[:limit], 2) == [("a", 0), ("b", 50)]
    assert merged(lambda limit: rows[:limit], 9) == [("a", 0), ("b", 50), ("c", 51)]


def test_a_long_document_is_found_by_any_of_its_passages_and_once(fresh):
    sentences = [f"{text} {number}." for number in range(10) for text in TEXTS]
    fresh.add([{"id": "long", "text": " ".join(sentences)}, *DOCUMENTS])
    assert len(fresh) > 10
    for mode in ("vector", "hybrid", "words"):
        assert ids(fresh, "The train is late. 7", mode=mode).count("long") == 1
    first = next(hit for hit in fresh.search("Maji ni uhai. 9")[0] if hit.id == "long")
    assert " ".join(sentences)[first.start : first.end] == first.text
    assert len(fresh.search("water", top_k=100)[0]) == 7


def test_update_replaces_what_changed_and_embeds_nothing_else(fresh):
    fresh.add(DOCUMENTS)
    changed = [dict(each) for each in DOCUMENTS]
    changed[0]["text"], changed[1]["lang"] = "Fire is hot. " * 40, "uk"
    report = fresh.update([*changed, {"id": 7, "text": "New."}])
    assert (report.added, report.replaced, report.unchanged) == (1, 2, 4)
    assert ids(fresh, "Water", mode="words") == [] and ids(fresh, "fire", mode="words") == ["d0"]
    assert fresh.search(TEXTS[1])[0][0].fields["lang"] == "uk"
    fresh.update([{**changed[0], "text": "Cold."}])
    assert len(fresh) == 7 and ids(fresh, "fire", mode="words") == [] and ids(fresh, "Cold.", top_k=1) == ["d0"]


def test_delete_takes_out_whole_documents_by_id(fresh):
    fresh.add([{"id": "it's", "text": "word " * 200}, *DOCUMENTS])
    assert fresh.delete(["it's", "d0", "no", "d0"]) == 2
    assert fresh.ids() == {"d1", "d2", "d3", "d4", "d5"} and len(fresh) == 5
    assert ids(fresh, "word", mode="words") == ids(fresh, "Water", mode="words") == []
    assert fresh.delete([]) == 0
    fresh.add([{"id": 7, "text": "seven"}, {"id": "8", "text": "eight"}])
    assert fresh.delete("d1") == 1 and fresh.delete([7]) == 1 and fresh.delete(8) == 1
    for wrong in (b"d2", [1.5], [True], [None]):
        with pytest.raises(UsageError, match="not the id of a document: give texts or integers"):
            fresh.delete(wrong)
    assert fresh.ids() == {"d2", "d3", "d4", "d5"}


def test_an_id_that_is_there_is_refused_by_add_and_nothing_of_that_commit_stays(fresh):
    fresh.add(DOCUMENTS[:2])
    with pytest.raises(DataError, match="^document 2: the id 'd1' is already in the index"):
        fresh.add([{"id": "new", "text": "new"}, DOCUMENTS[1]])
    with pytest.raises(DataError, match="^document 2: duplicate id 'x': give each document its own"):
        fresh.update([{"id": "x", "text": "one"}, {"id": "x", "text": "two"}])
    assert fresh.ids() == {"d0", "d1"}


def test_new_fields_may_come_later_and_a_value_of_another_kind_is_refused(fresh):
    fresh.add([{"id": "a", "text": "one", "n": 1}])
    fresh.add([{"id": "b", "text": "two", "n": 2.0, "tag": "x"}])
    assert ids(fresh, "one", where="tag = 'x'") == ["b"] and ids(fresh, "one", where="tag IS NULL") == ["a"]
    with pytest.raises(DataError, match="^document 1: field 'n': the index has int values in this field"):
        fresh.add([{"id": "c", "text": "three", "n": "many"}])


def test_a_reader_sees_what_a_writer_committed_and_its_own_model_is_known(fresh, embedder):
    reader = Index.open(fresh.folder, embedder=embedder)
    assert reader.search("water")[0] == []
    fresh.add(DOCUMENTS)
    assert ids(reader, TEXTS[3], top_k=1) == ["d3"] and reader.model == fresh.model
    fresh.delete(["d3"])
    assert "d3" not in ids(reader, TEXTS[3])
    fresh.optimize()
    assert ids(reader, TEXTS[4], top_k=1) == ["d4"]


def test_one_writes_at_a_time(fresh, embedder):
    other = Index.open(fresh.folder, embedder=embedder)
    with fresh.locked():
        for write in (lambda: other.add(DOCUMENTS), lambda: other.delete(["d0"]), other.optimize):
            with pytest.raises(UsageError, match="another process writes to this index"):
                write()
    other.add(DOCUMENTS)


def test_threads_may_search_while_one_writes(fresh):
    fresh.add(DOCUMENTS)
    wrong: list[object] = []

    def read() -> None:
        try:
            for _ in range(20):
                hits = fresh.search(TEXTS[2], mode="hybrid")[0]
                if hits[0].id != "d2" or len(fresh) < 6:
                    wrong.append(hits)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(5):
        fresh.update([{"id": "more", "text": f"Another text, {number}."}])
    for thread in threads:
        thread.join()
    assert wrong == []


def test_above_the_limit_an_approximate_index_finds_the_same_and_filters_first(fresh, monkeypatch):
    monkeypatch.setattr(table, "EXACT_UP_TO", 300)
    fresh.add(
        {"id": f"n{number}", "text": f"{TEXTS[number % 6]} {number}", "even": number % 2 == 0} for number in range(400)
    )
    assert len(fresh) == 400
    assert "vector" in {column for one in fresh._table._table.list_indices() for column in one.columns}
    asked = [f"{TEXTS[number % 6]} {number}" for number in range(0, 400, 37)]
    exact = [f"n{number}" for number in range(0, 400, 37)]
    assert [hits[0].id for hits in fresh.search(asked, top_k=3)] == exact
    assert all(hit.fields["even"] for hits in fresh.search(asked, where="even") for hit in hits)
    assert all(hits[0].id == id for hits, id in zip(fresh.search(asked, mode="hybrid"), exact, strict=True))


def test_many_commits_are_joined(fresh, monkeypatch):
    monkeypatch.setattr(table, "MANY_FRAGMENTS", 4)
    monkeypatch.setattr(writing, "DOCUMENTS_AT_ONCE", 1)
    monkeypatch.setattr(writing, "TIDY_EVERY", 4)
    fresh.add({"id": f"n{number}", "text": f"{TEXTS[number % 6]} {number}"} for number in range(18))
    assert fresh._table._table.stats()["fragment_stats"]["num_fragments"] <= 8
    assert len(fresh) == 18 and ids(fresh, f"{TEXTS[5]} 17", top_k=1) == ["n17"]


def test_only_its_own_model_or_one_trained_into_its_space_may_ask(
    shared, model_folder, trained_into, minilm_like_folder
):
    own = Index.open(shared.folder, model_folder)
    own.require_own()
    reader = Index.open(shared.folder, trained_into)
    assert ids(reader, TEXTS[1], top_k=1) == ["d1"] and reader.asks == str(trained_into)
    with pytest.raises(
        UsageError, match="its documents are embedded by .*reader may only search it: add documents with the first"
    ):
        reader.require_own()
    with pytest.raises(UsageError, match=r"embedded by"):
        reader.add([{"id": "x", "text": "x"}])
    with pytest.raises(
        UsageError, match=r"i: was made by .* gives other vectors: .*`lusifer reindex .* --model .*minilm"
    ):
        Index.open(shared.folder, minilm_like_folder)


def test_a_model_in_memory_makes_an_index_that_is_asked_by_it(embedder, tmp_path):
    made = Index.create(tmp_path / "i", embedder)
    made.add(DOCUMENTS)
    assert ids(Index.open(made.folder, embedder), TEXTS[0], top_k=1) == ["d0"]
    with pytest.raises(UsageError, match="made by a model in memory: pass it as `model`, or run `lusifer reindex "):
        Index.open(made.folder).search("water")
    assert ids(Index.open(made.folder), "train", mode="words") == ["d5"]  # which needs no model


def test_a_model_in_memory_is_told_how_to_say_that_it_is_the_right_one(shared, model_folder, embedder, tmp_path):
    with pytest.raises(UsageError, match="was made by .*if it is that model, use `Index.open") as told:
        Index.open(shared.folder, embedder)
    opened = eval(str(told.value).split("`")[1], {"Index": Index, "model": embedder})
    assert ids(opened, TEXTS[1], top_k=1) == ["d1"]
    made = Index.create(tmp_path / "an index", embedder)
    with pytest.raises(UsageError, match="in memory .* gives other vectors: .*`lusifer reindex '.*an index' --m"):
        Index.open(made.folder, model_folder)


@pytest.mark.parametrize("wrong", [[[0.0] * 5], [0.0] * 48, [[0.0] * 48] * 2, [["a"] * 48], [[1.0], []], 3.0])
def test_vectors_that_are_none_of_the_questions_are_refused_with_the_shape_that_is_right(shared, wrong):
    with pytest.raises(UsageError, match=r"^vectors.*: give an array of shape \(1, 48\), one row per question"):
        shared.search("water", vectors=wrong)


def test_vectors_that_are_not_finite_are_refused(shared):
    with pytest.raises(UsageError, match="^vectors: one is not finite"):
        shared.search("water", vectors=[[float("nan")] * 48])


@pytest.mark.parametrize("mode", ["vector", "words"])
def test_a_blank_filter_is_none(shared, mode):
    for where in ("", " ", "\n", None):
        assert ids(shared, "train", where=where, mode=mode)[0] == ids(shared, "train", mode=mode)[0]


def test_a_place_that_is_none_is_refused(tmp_path, model_folder, shared):
    with pytest.raises(UsageError, match="no index there: make one with `lusifer index"):
        Index.open(tmp_path)
    (tmp_path / "file").write_text("x")
    for place, words in ((tmp_path, "has other files and is no index"), (shared.folder, "already has an index")):
        with pytest.raises(UsageError, match=words):
            Index.create(place, model_folder)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"text": "a"}, "no field 'id' (found text): name it with --id"),
        ({"id": "a"}, "no field 'text' (found id): name it with --field"),
        ({"id": "", "text": "a"}, "its 'id' is an empty text: give a text or an integer as id"),
        ({"id": 1.5, "text": "a"}, "its 'id' is a number"),
        ({"id": True, "text": "a"}, "its 'id' is true or false"),
        ({"id": "a", "text": " "}, "the text is empty"),
        ({"id": "a", "text": "a", "vector": 1}, "field 'vector': the name is reserved"),
        ({"id": "a", "text": "a", "a.b": 1}, "field 'a.b': the name is reserved"),
        ({"id": "a", "text": "a", "_rowid": 1}, "field '_rowid': the name is reserved"),
        ({"id": "a", "text": "a", "n": "\ud800"}, "field 'n': lone surrogate"),
        ({"id": "a", "text": "a", "n": 2**63}, "field 'n': 9223372036854775808 is too large"),
        (["a"], "expected an object with columns, found a list"),
    ],
)
def test_what_is_no_document_is_named(fresh, document, message):
    with pytest.raises(DataError) as caught:
        fresh.add([{"id": "ok", "text": "ok"}, document])
    assert str(caught.value).startswith("document 2: ") and message in str(caught.value)


def test_passages_without_room_are_refused_before_anything_is_made(tmp_path, model_folder, embedder):
    for wrong in ({"tokens": 65}, {"tokens": 1}, {"overlap": 40}, {"tokens": 20, "overlap": -1}):
        with pytest.raises(UsageError, match="^passages of "):
            Index.create(tmp_path / "i", model_folder, embedder=embedder, **wrong)
        assert not (tmp_path / "i").exists()


def test_an_index_that_is_taken_away_is_missed_and_any_number_of_hits_may_be_asked_for(fresh):
    fresh.add(DOCUMENTS)
    for mode in ("vector", "hybrid", "words"):
        assert len(fresh.search("Water is", top_k=2**40, mode=mode)[0]) in (2, 6)  # two have a word of it
    fresh.folder.rename(fresh.folder.with_name("elsewhere"))
    with pytest.raises(UsageError, match="i: the index is gone"):
        fresh.search("water")


def test_a_question_that_is_cut_is_counted(shared):
    from lusifer.serving.encode import EmbedReport

    report = EmbedReport()
    shared.search(["water " * 100, "water"], report=report)
    assert (report.cut, report.limit, report.first_cut) == (1, 64, "question 1")


def test_on_long_cut_counts_and_error_refuses(fresh):
    long = {"id": "long", "text": "water and fire " * 100}
    with pytest.raises(DataError, match="^document 1: .* tokens, but a passage has at most 64: shorten or split it"):
        fresh.add([long], on_long="error")
    report = fresh.add([long], on_long="cut")
    assert (len(fresh), report.embedded.cut, report.embedded.first_cut) == (1, 1, "document 1")
