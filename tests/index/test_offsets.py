"""Language offsets of an index, and scores that can be compared between languages."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from lusifer import load
from lusifer.calibration import fit
from lusifer.calibration.statistics import LanguageStatistics, unit
from lusifer.embedder.contents import LANGUAGES
from lusifer.embedder.identity import identity
from lusifer.errors import DataError, UsageError
from lusifer.index.documents import TextDocument
from lusifer.index.index import Index
from lusifer.index.models import IndexModel, describe
from lusifer.index.reindex import reindex
from lusifer.io import parallel_text
from lusifer.serving import encode, guard

DOCUMENTS = [
    {"id": "en", "text": "Water is life.", "lang": "en"},
    {"id": "sw", "text": "Maji ni uhai.", "lang": "swh"},
    {"id": "th", "text": "น้ำคือชีวิต", "lang": "th"},
]


def statistics_of(name, embedder, documents: str | None = None) -> LanguageStatistics:
    """Of a model that is loaded, from some of the sample; of one that asks the index of another with its identity."""
    few = parallel_text.sample().texts
    text = parallel_text.Parallel({code: few[code][:8] for code in ("en", "sw", "hi", "ru")})
    made, _, _ = describe(name, embedder)

    def embed(texts: list[str]) -> np.ndarray:
        report = encode.EmbedReport(limit=embedder.max_seq_length)
        return encode.embed_rows(embedder, [("", each) for each in texts], report, prompt=made.query)

    asked = fit.Parties(made.name, made.identity, documents or made.identity, made.query or "", made.document or "")
    return fit.measure(text, embed, None, asked, "the sample")[0]


@pytest.fixture(scope="module")
def statistics(model_folder, embedder) -> LanguageStatistics:
    return statistics_of(model_folder, embedder)


@pytest.fixture
def index(model_folder, embedder, statistics, tmp_path) -> Index:
    made = Index.create(tmp_path / "i", model_folder, embedder=embedder, offsets=statistics, language_field="lang")
    made.add(DOCUMENTS)
    return made


def rows(index: Index) -> dict[str, np.ndarray]:
    """The vectors in the table, by document."""
    assert len(index)  # which sees what was committed
    table = index._table._table.search().select(["id", "vector"]).to_arrow()
    return dict(zip(table["id"].to_pylist(), np.array(table["vector"].to_pylist()), strict=True))


def test_the_offset_of_its_language_is_taken_out_of_a_document_and_of_a_question(index, embedder, statistics):
    own = rows(index)
    plain = unit(embedder.encode([each["text"] for each in DOCUMENTS]))
    for place, code in ((0, "en"), (1, "sw")):
        moved = statistics.without_offset(plain[place : place + 1], [code], "document")[0]
        assert np.allclose(own[code], moved, atol=1e-5)
        assert np.allclose(own[code], plain[place], atol=1e-3) == (code == "en")  # which has no offset
    assert np.allclose(own["th"], statistics.without_offset(plain[2:], [None], "document")[0], atol=1e-5)
    (hits,) = index.search("Maji ni uhai.", languages="sw")
    assert hits[0].id == "sw" and hits[0].score == pytest.approx(1, abs=1e-5)
    raw = embedder.encode(["Maji ni uhai."])
    (again,) = index.search("Maji ni uhai.", languages=["sw"], vectors=raw)
    assert [(hit.id, hit.score) for hit in again] == [(hit.id, pytest.approx(hit.score, abs=1e-5)) for hit in hits]
    (other,) = index.search("Maji ni uhai.", languages=["hi"])
    assert other[0].score < 1 - 1e-3


def test_documents_of_a_language_without_an_offset_are_counted(index):
    report = index.update([*DOCUMENTS, {"id": "new", "text": "Ψωμί και νερό", "lang": "el"}])
    assert (report.added, report.unchanged, report.offsets.unknown) == (1, 3, 1)
    report = index.update([{"id": "none", "text": "12 34"}, DOCUMENTS[0] | {"lang": "sw"}])
    assert (report.replaced, report.offsets.unknown, report.offsets.first_unknown) == (1, 1, "document 1")
    with pytest.raises(DataError, match="document 1: field 'lang': language 'English!' is unknown"):
        index.add([{"id": "bad", "text": "a", "lang": "English!"}])


def test_without_a_field_the_text_tells_the_language(model_folder, embedder, statistics, tmp_path):
    made = Index.create(tmp_path / "told", model_folder, embedder=embedder, offsets=statistics)
    text = "Watoto wengi wanapenda kusoma vitabu shuleni kila siku."
    made.add([{"id": "a", "text": text}])
    moved = statistics.without_offset(embedder.encode([text]), ["sw"], "document")[0]
    assert np.allclose(rows(made)["a"], moved, atol=1e-5)
    assert made.search(text)[0][0].score == pytest.approx(1, abs=1e-5)


def test_a_blank_language_is_a_missing_one(index, embedder, statistics, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "told", lambda text, codes: "sw")
    index.add([{"id": name, "text": "Agua.", "lang": blank} for name, blank in (("empty", ""), ("space", " \t"))])
    moved = statistics.without_offset(embedder.encode(["Agua."]), ["sw"], "document")[0]
    own = rows(index)
    assert np.allclose(own["empty"], moved, atol=1e-5) and np.allclose(own["space"], moved, atol=1e-5)
    (hits,) = index.search("Agua.", calibrated=True, languages="", top_k=2)
    assert all(hit.score == pytest.approx(1, abs=1e-5) for hit in hits)


def test_vectors_that_were_kept_have_it_taken_out_too(index, embedder):
    raw = 3 * embedder.encode(["Maji ni uhai."])[0]
    index.add([TextDocument("kept", None, {"lang": "sw"}, "row 1", raw)])
    own = rows(index)
    assert np.allclose(own["kept"], own["sw"], atol=1e-5)


def test_an_index_from_before_there_were_offsets_is_what_it_was(model_folder, embedder, tmp_path):
    made = Index.create(tmp_path / "old", model_folder, embedder=embedder)
    said = made.model.to_dict()
    assert not {"offsets", "language_field"} & said.keys() and IndexModel.from_dict(said) == made.model
    made.add(DOCUMENTS)
    (hits,) = made.search("Maji ni uhai.")
    assert hits[0].calibrated is None and not list(made.folder.glob("*.safetensors"))


def test_offsets_are_remembered_and_other_ones_refused(index, model_folder, embedder, statistics, tmp_path):
    again = Index.open(index.folder, model_folder, embedder=embedder)
    assert (again.model.offsets, again.model.language_field) == (statistics.digest, "lang")
    assert again.statistics().digest == statistics.digest
    with pytest.raises(UsageError, match="the offsets of .* are from other statistics: leave --statistics out"):
        again.search("Maji", languages="sw", statistics=replace(statistics, source="other"))
    with pytest.raises(UsageError, match="its vectors have offsets subtracted: use `search`"):
        again.held()
    strange = replace(statistics, identity="f" * 12, documents="f" * 12, model="stranger")
    with pytest.raises(UsageError, match="has the statistics of stranger, with questions by ffffffffffff"):
        Index.create(tmp_path / "x", model_folder, embedder=embedder, offsets=strange)
    strange.write(tmp_path / "strange.safetensors")
    with pytest.raises(UsageError, match=r"/strange\.safetensors: has the statistics of stranger"):
        Index.create(tmp_path / "x", model_folder, embedder=embedder, offsets=tmp_path / "strange.safetensors")
    with pytest.raises(UsageError, match=r"/strange\.safetensors: has the statistics of stranger"):
        reindex(index.folder, model_folder, embedder=embedder, offsets=tmp_path / "strange.safetensors")
    with pytest.raises(UsageError, match="--language-field lang: has no effect without --offsets"):
        Index.create(tmp_path / "x", model_folder, embedder=embedder, language_field="lang")
    assert not (tmp_path / "x").exists()
    (index.folder / f"offsets-{statistics.digest}.safetensors").unlink()
    lost = Index.open(index.folder, model_folder, embedder=embedder)
    with pytest.raises(UsageError, match="missing, the index needs it for its offsets: restore it"):
        lost.search("Maji", languages="sw")
    with pytest.raises(UsageError, match="missing, the index needs it for its offsets: restore it"):
        lost.add([{"id": "new", "text": "a", "lang": "sw"}])


def test_reindex_keeps_changes_and_takes_away_offsets(index, model_folder, embedder, statistics):
    said: list[str] = []
    reindex(index.folder, model_folder, embedder=embedder, tokens=32, say=said.append)
    kept = Index.open(index.folder, model_folder, embedder=embedder)
    assert kept.model.offsets == statistics.digest and kept.model.language_field == "lang"
    assert kept.search("Maji ni uhai.", languages="sw")[0][0].score == pytest.approx(1, abs=1e-5)
    other = replace(statistics, source="other")
    reindex(index.folder, model_folder, embedder=embedder, offsets=other, say=said.append)
    names = [file.name for file in index.folder.glob("offsets-*")]
    assert names == [f"offsets-{other.digest}.safetensors"]
    reindex(index.folder, model_folder, embedder=embedder, offsets="none", say=said.append)
    plain = Index.open(index.folder, model_folder, embedder=embedder)
    assert plain.model.offsets is None and not list(index.folder.glob("offsets-*"))
    assert np.allclose(rows(plain)["sw"], unit(embedder.encode(["Maji ni uhai."]))[0], atol=1e-5)
    assert f"language offsets: '{statistics.digest}' -> '{other.digest}'" in said[1]
    assert f"language offsets: '{other.digest}' -> none" in said[2]


def test_what_a_kill_leaves_of_the_kept_offsets_is_in_nobodys_way(
    model_folder, embedder, statistics, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    def kill(part, target):  # what is written stays, by the name that another machine gives it
        shutil.copyfile(part, str(part).replace(f"-{os.getpid()}-", "-elsewhere-"))
        raise Killed

    folder = tmp_path / "i"
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("lusifer.io.files.os.replace", kill)
        Index.create(folder, model_folder, embedder=embedder, offsets=statistics, language_field="lang")
    (left,) = (each for each in folder.iterdir() if each.name != ".lock")
    assert left.name.startswith(f".offsets-{statistics.digest}.safetensors.")
    made = Index.create(folder, model_folder, embedder=embedder, offsets=statistics, language_field="lang")
    made.add(DOCUMENTS)
    assert made.search("Maji ni uhai.", languages="sw")[0][0].id == "sw"
    reindex(folder, model_folder, embedder=embedder, tokens=32)
    assert not left.exists() and (folder / f"offsets-{statistics.digest}.safetensors").exists()


def test_a_model_that_may_ask_needs_statistics_of_its_own(index, trained_into, embedder, statistics, model_folder):
    reader = load(trained_into, device="cpu")
    asked = Index.open(index.folder, trained_into, embedder=reader)
    with pytest.raises(UsageError, match=f"no language statistics \\({LANGUAGES}\\) in its folder: make them"):
        asked.search("Maji ni uhai.", languages="sw")
    with pytest.raises(UsageError, match="questions by .*, but here questions are by"):
        asked.search("Maji ni uhai.", languages="sw", statistics=statistics)
    own = statistics_of(trained_into, reader, identity(model_folder))
    (hits,) = asked.search("Maji ni uhai.", languages="sw", statistics=own, calibrated=True)
    assert hits[0].id == "sw" and hits[0].score == pytest.approx(1, abs=1e-4)  # its weights are those of the maker


@pytest.fixture
def plain(model_folder, embedder, tmp_path) -> Index:
    made = Index.create(tmp_path / "plain", model_folder, embedder=embedder)
    made.add(DOCUMENTS)
    return made


def test_calibrated_scores_and_the_least_of_them(plain, statistics, monkeypatch):
    told = {each["text"]: {"swh": "sw"}.get(each["lang"], each["lang"]) for each in DOCUMENTS}
    monkeypatch.setattr(guard, "told", lambda text, codes: told.get(text) if told.get(text) in codes else None)
    (before,) = plain.search("Maji ni uhai.")
    (hits,) = plain.search("Maji ni uhai.", calibrated=True, statistics=statistics)
    assert [(hit.id, hit.score) for hit in hits] == [(hit.id, hit.score) for hit in before]
    for hit in hits:
        place = 1  # of Swahili among en, sw, hi, ru
        column = {"en": 0, "sw": 1}.get(hit.id)
        assert hit.language == (hit.id if column is not None else None)
        if column is not None:
            mean, spread = statistics.pairs[0, place, column, :2]
            assert hit.calibrated == pytest.approx((hit.score - mean) / spread)
        else:
            assert hit.calibrated == pytest.approx(statistics.calibrated(hit.score, "sw", None))
    least = sorted(hit.calibrated for hit in hits)[1]
    (some,) = plain.search("Maji ni uhai.", calibrated=True, min_score=least, statistics=statistics)
    assert {hit.id for hit in some} == {hit.id for hit in hits if hit.calibrated >= least} and len(some) == 2
    (near,) = plain.search("Maji ni uhai.", min_score=0.999)
    assert [hit.id for hit in near] == ["sw"] and near[0].calibrated is None
    assert plain.search("Maji ni uhai.", min_score=1.5) == [[]]
    (hybrid,) = plain.search("Maji", mode="hybrid", calibrated=True, statistics=statistics, languages=[None])
    assert len(hybrid) == 3 and all(hit.calibrated is not None for hit in hybrid)


def test_what_gives_no_calibrated_score_is_refused(plain, statistics):
    with pytest.raises(UsageError, match=re.escape(f"no language statistics ({LANGUAGES}) in its folder")):
        plain.search("Maji", calibrated=True)
    for setting in ({"calibrated": True}, {"min_score": 0.5}):
        with pytest.raises(UsageError, match='mode "words" gives no scores'):
            plain.search("Maji", mode="words", **setting)
    with pytest.raises(UsageError, match="min_score: not a number"):
        plain.search("Maji", min_score=float("nan"))
    with pytest.raises(UsageError, match="languages: 2 codes for 1 questions"):
        plain.search("Maji", calibrated=True, statistics=statistics, languages=["sw", "en"])
    with pytest.raises(UsageError, match="is unknown"):
        plain.search("Maji", calibrated=True, statistics=statistics, languages="swahilii")


def test_statistics_in_the_folder_of_the_model_are_used_and_do_not_rename_it(
    model_folder, embedder, statistics, tmp_path
):
    own = shutil.copytree(model_folder, tmp_path / "own")
    before = identity(own)
    statistics.write(own / LANGUAGES)
    assert identity(own) == before
    made = Index.create(tmp_path / "i", own, embedder=embedder)
    made.add(DOCUMENTS)
    assert made.search("Maji ni uhai.", calibrated=True, languages="sw")[0][0].calibrated is not None
