"""Hard negatives: what is chosen, what never is, and that stopped work ends in the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lusifer.cli import main
from lusifer.data.answers import KnownAnswers
from lusifer.data.mining import negatives, vectors
from lusifer.data.mining.corpus import CorpusFiles
from lusifer.data.mining.negatives import MineSettings
from lusifer.data.schema import text_hash
from lusifer.errors import DataError, LusiferError, UsageError
from lusifer.io.rows import BadRows
from support.small_mine import FEW, mine, pairs, read, write
from support.words_model import encode, retriever


def test_every_row_gets_its_negatives_from_the_ranks_behind_the_skipped_ones(tmp_path: Path) -> None:
    rows = pairs()
    report = mine(write(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl", FEW)
    made = read(tmp_path / "b.jsonl")
    assert [row["query"] for row in made] == [row["query"] for row in rows]
    texts = [row["positive"][0] for row in rows]
    unit = lambda some: (lambda v: v / np.linalg.norm(v, axis=1, keepdims=True))(encode(some))  # noqa: E731
    scores = (unit([row["query"] for row in rows]).astype(np.float16) @ unit(texts).astype(np.float16).T).astype(float)
    for number, row in enumerate(made):
        order = [place for place in np.argsort(-scores[number], kind="stable") if place != number]
        allowed = {texts[place] for place in order if scores[number, place] >= scores[number, order[7]] - 1e-3}
        assert len(set(row["negative"])) == 3 and set(row["negative"]) <= allowed
    assert report.counts[negatives.FULL] == 120 and report.counts[negatives.MINED] == 360
    assert report.counts[negatives.TOP] == 240
    assert not (tmp_path / "b.jsonl.work").exists() and not (tmp_path / "b.jsonl.work.lock").exists()


def test_no_answer_and_no_paraphrase_of_one_is_a_negative(tmp_path: Path) -> None:
    rows = pairs()
    rows += [
        {
            "query": rows[0]["query"].upper(),
            "positive": ["theme0word0 theme0word1 another answer"],
        },  # the same question
        {"query": rows[0]["positive"][0], "positive": ["theme0word0 theme0word1 paraphrase of the answer"]},
    ]
    settings = MineSettings(negatives=8, skip=0, keep=16)
    mine(write(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl", settings)
    taken = read(tmp_path / "b.jsonl")[0]["negative"]
    forbidden = {rows[0]["positive"][0], rows[-2]["positive"][0], rows[-1]["positive"][0]}
    assert len(taken) == 8 and not forbidden & set(taken)


def test_given_negatives_stay_and_count_unless_they_are_replaced(tmp_path: Path) -> None:
    rows = pairs()
    rows[0]["negative"] = ["a given one", "another given one"]
    file = write(tmp_path / "a.jsonl", rows)
    mine(file, tmp_path / "b.jsonl", FEW)
    first = read(tmp_path / "b.jsonl")[0]["negative"]
    assert first[:2] == rows[0]["negative"] and len(first) == 3
    mine(file, tmp_path / "c.jsonl", MineSettings(negatives=3, skip=2, keep=6, replace=True))
    replaced = read(tmp_path / "c.jsonl")[0]["negative"]
    assert len(replaced) == 3 and not set(rows[0]["negative"]) <= set(replaced)


def test_margin_and_percentage_drop_what_is_as_near_as_the_positive(tmp_path: Path) -> None:
    rows = pairs()
    far = "nothing in common at all with it"
    rows.append({"query": "theme0word0 theme0word1 theme0word2 theme0word3", "positive": [far]})
    file = write(tmp_path / "a.jsonl", rows)
    for settings, reason in (
        (MineSettings(negatives=3, skip=0, keep=20, margin=0.05), negatives.MARGIN),
        (MineSettings(negatives=3, skip=0, keep=20, percentage=0.95), negatives.SHARE),
    ):
        report = mine(file, tmp_path / "b.jsonl", settings)
        assert report.counts[reason] > 20 and report.counts.keys() & {negatives.SHORT, negatives.NONE}
        last = read(tmp_path / "b.jsonl")[-1]["negative"]
        assert not any("theme0" in text for text in last)
        assert all(" | " in example for example in report.examples[reason])


def test_the_cross_encoder_has_the_last_word(tmp_path: Path) -> None:
    asked = []

    def rescore(some):
        asked.extend(some)
        # The one that ends in an even number is an answer, it says.
        return np.array([1.0 if text[-1] in "02468" else 0.0 for _, text in some], dtype=np.float32)

    rows = [row for row in pairs() if row["positive"][0][-1] in "02468"] + [
        row for row in pairs() if row["positive"][0][-1] not in "02468"
    ]
    settings = MineSettings(negatives=3, skip=0, keep=120, cross_margin=0.5, by_source=False)
    report = mine(write(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl", settings, retriever(rescore))
    for row in read(tmp_path / "b.jsonl")[:60]:
        assert len(row["negative"]) == 3 and all(text[-1] not in "02468" for text in row["negative"])
    assert report.counts[negatives.CROSS] > 0
    # It reads no more than it must: half of the rows, whose positive it puts at 0, ask for all of their texts.
    assert len(asked) < 120 + 60 * 120 + 60 * 40


LABELLED = [
    {"text": f"theme{n % 3}word0 theme{n % 3}word1 text{n}", "label": f"l{n % 3}", "source": f"s{n % 2}"}
    for n in range(240)
]


def test_labels_decide_which_texts_are_negatives(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [*LABELLED, {"text": "alone", "label": "single", "source": "s0"}])
    settings = MineSettings(negatives=4, label_ranks=(5, 25), labels=True)
    report = mine(file, tmp_path / "b.jsonl", settings, kind="labelled")
    label = {row["text"]: (row["source"], row["label"]) for row in LABELLED} | {"alone": ("s0", "single")}
    made = read(tmp_path / "b.jsonl")
    assert len(made) == 240 and report.counts[negatives.ALONE] == 1
    for row in made:
        source, own = label[row["query"]]
        assert label[row["positive"][0]] == (source, own) and row["positive"][0] != row["query"]
        assert len(row["negative"]) == 4
        assert all(label[text][0] == source and label[text][1] != own for text in row["negative"])


def test_a_text_of_two_labels_is_nobodys_negative(tmp_path: Path) -> None:
    both = [{"text": "theme0word0 theme1word0 theme2word0 both", "label": f"l{n}", "source": "s0"} for n in range(2)]
    file = write(tmp_path / "a.jsonl", [*LABELLED, *both])
    mine(file, tmp_path / "b.jsonl", MineSettings(negatives=4, label_ranks=(0, 9), labels=True), kind="labelled")
    assert not any(both[0]["text"] in row["negative"] for row in read(tmp_path / "b.jsonl"))


def test_none_of_many_answers_to_one_question_is_a_negative(tmp_path: Path) -> None:
    rows = [{"query": "a fruit of the world", "positive": [f"fruit of the world {n}"]} for n in range(300)]
    mine(
        write(tmp_path / "a.jsonl", [*rows, *pairs(40)]),
        tmp_path / "b.jsonl",
        MineSettings(negatives=3, skip=0, keep=9),
    )
    assert not any("fruit" in text for row in read(tmp_path / "b.jsonl")[:300] for text in row["negative"])


def test_pairs_with_labels_are_given_positives_of_another_label(tmp_path: Path) -> None:
    rows = [{**row, "label": f"l{number % 4}", "source": "s"} for number, row in enumerate(pairs(80))]
    settings = MineSettings(negatives=3, label_ranks=(2, 20), labels=True)
    mine(write(tmp_path / "a.jsonl", rows), tmp_path / "b.jsonl", settings)
    label = {row["positive"][0]: row["label"] for row in rows}
    for row in read(tmp_path / "b.jsonl"):
        assert len(row["negative"]) == 3 and row["label"] not in {label[text] for text in row["negative"]}
    del rows[5]["label"]
    with pytest.raises(DataError, match="1 rows have no label: fill the column, or mine without --labels"):
        mine(write(tmp_path / "a.jsonl", rows), tmp_path / "c.jsonl", settings)


def test_a_set_without_any_negative_is_not_written(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"text": f"text {number}", "label": "only"} for number in range(60)])
    with pytest.raises(DataError, match="no row got a negative"):
        mine(file, tmp_path / "b.jsonl", MineSettings(labels=True), kind="labelled")
    assert not (tmp_path / "b.jsonl").exists()


def test_one_source_at_a_time(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", pairs())
    theme = lambda text: int(text[5])  # noqa: E731
    mine(file, tmp_path / "b.jsonl", MineSettings(negatives=3, skip=20, keep=20))
    for row in read(tmp_path / "b.jsonl"):
        assert {theme(text) % 2 for text in row["negative"]} == {theme(row["query"]) % 2}
    for settings in (
        MineSettings(negatives=3, skip=20, keep=20, by_source=False),
        MineSettings(negatives=3, skip=20, keep=50),  # a source has 60 texts, fewer than both together
    ):
        report = mine(file, tmp_path / "c.jsonl", settings)
        few = ["s0: 60 rows, 60 texts", "s1: 60 rows, 60 texts"] if settings.by_source else []
        assert report.examples.get(negatives.EVERY_SOURCE, []) == few
        assert report.counts.get(negatives.EVERY_SOURCE, 0) == 60 * len(few)
        found = {
            theme(text) % 2
            for row in read(tmp_path / "c.jsonl")
            for text in row["negative"]
            if theme(row["query"]) == 0
        }
        assert found == {0, 1}


def test_negatives_from_a_column_of_another_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", pairs(16))
    passages = [{"body": f"theme{n % 8}word0 theme{n % 8}word1 sentence{n}"} for n in range(80)]
    corpus = CorpusFiles([write(tmp_path / "passages.jsonl", passages)], "body")
    mine(file, tmp_path / "b.jsonl", MineSettings(negatives=2, skip=1, keep=5), corpus=corpus)
    texts = {row["body"] for row in passages}
    for row in read(tmp_path / "b.jsonl"):
        assert set(row["negative"]) <= texts
        assert [text[5] for text in row["negative"]] == [row["query"][5]] * 2
    with pytest.raises(
        DataError, match=r"passages.jsonl line 1: no column .text. \(found body\): name it with --corpus"
    ):
        mine(file, tmp_path / "c.jsonl", FEW, corpus=CorpusFiles(corpus.files))


def test_bad_rows_of_a_corpus_are_left_out_once_and_listed(tmp_path: Path) -> None:
    passages = [{"text": f"{word} {number}"} for number in range(12) for word in ("river", "stone")]
    file = write(tmp_path / "corpus.jsonl", [*passages, {"text": ""}, {"other": 1}])
    texts = CorpusFiles([file], bad=BadRows(2))
    mine(write(tmp_path / "a.jsonl", pairs(16)), tmp_path / "b.jsonl", FEW, corpus=texts)
    assert [message.split(": ")[0] for message in texts.bad.messages] == [f"{file} line 25", f"{file} line 26"]
    with pytest.raises(DataError, match="bad row 2; at most 1"):
        mine(tmp_path / "a.jsonl", tmp_path / "c.jsonl", FEW, corpus=CorpusFiles([file], bad=BadRows(1)))


def test_a_corpus_too_small_to_skip_from_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", pairs(20))
    with pytest.raises(UsageError, match="the corpus has 20 texts, and --skip 30 leaves fewer than 7"):
        mine(file, tmp_path / "b.jsonl", MineSettings())
    mine(file, tmp_path / "b.jsonl", FEW)  # the mended call is not held up by what the first one left


def test_ranks_that_leave_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="--label-ranks 140 20: no ranks between them"):
        MineSettings(label_ranks=(140, 20))


def test_nearest_is_exact_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "CORPUS_BLOCK", 7)
    generator = np.random.default_rng(0)
    corpus = vectors.Vectors(generator.normal(size=(50, 8)).astype(np.float16))
    queries = generator.normal(size=(5, 8)).astype(np.float32)
    exact = queries @ corpus.take(slice(None)).T
    scores, numbers = vectors.nearest(queries, corpus, 9)
    assert numbers.tolist() == np.argsort(-exact, axis=1, kind="stable")[:, :9].tolist()
    assert np.allclose(scores, np.take_along_axis(exact, numbers, 1), atol=1e-4)
    some = np.array([3, 4, 20, 33, 49])
    _, numbers = vectors.nearest(queries, corpus, 9, some)
    assert [sorted(row)[-5:] for row in numbers.tolist()] == [some.tolist()] * 5 and (numbers == -1).sum() == 20


def test_answers_of_a_query_are_its_partners_and_their_partners() -> None:
    pairs_of_texts = [("q1", "p"), ("q2", "p"), ("q2", "other"), ("x", "y")]
    answers = KnownAnswers([(text_hash(query), text_hash(positive)) for query, positive in pairs_of_texts])
    assert answers.of(text_hash(" Q1")) == {text_hash(text) for text in ("q1", "p", "q2")}
    assert answers.of(text_hash("unknown")) == {text_hash("unknown")}


def test_command_mines_with_a_model_and_says_what_is_wrong(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output, model = tmp_path / "b.jsonl", str(model_folder)
    call = ["data", "mine", "sample:pairs", "--model", model, "--output", str(output)]
    assert main([*call, "--skip", "5", "--keep", "20"]) == 0
    assert all(len(row["negative"]) == 7 for row in read(output))
    assert "rows with all negatives" in capsys.readouterr().out
    assert main(["data", "mine", "sample:passages", "--model", model, "--output", str(output)]) == 2
    assert "rows with only a text have no positive" in capsys.readouterr().err


def test_a_cross_encoder_is_loaded_from_a_folder(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    from lusifer.embedder.folder import load_cross_encoder
    from support.tiny_bases import make_tiny_base

    folder = make_tiny_base(tmp_path / "base", "llm", "bert")
    config = BertConfig.from_pretrained(folder, num_labels=1)
    BertForSequenceClassification(config).save_pretrained(folder)
    scores = load_cross_encoder(str(folder), device="cpu")([("a question", "an answer"), ("a question", "a text")])
    assert scores.shape == (2,) and np.isfinite(scores).all()
    with pytest.raises(LusiferError, match="cannot be loaded as a cross-encoder"):
        load_cross_encoder(str(tmp_path / "nothing"), device="cpu")


def test_what_is_drawn_depends_on_the_seed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", pairs())
    made = []
    for seed in (0, 0, 1):
        mine(file, tmp_path / "b.jsonl", MineSettings(negatives=3, skip=2, keep=10, seed=seed))
        made.append((tmp_path / "b.jsonl").read_text())
    assert made[0] == made[1] != made[2]
    mine(file, tmp_path / "c.jsonl", MineSettings(negatives=3, skip=2, keep=3, choose="top"))
    mine(file, tmp_path / "d.jsonl", MineSettings(negatives=3, skip=2, keep=3, seed=1))
    for nearest, drawn in zip(read(tmp_path / "c.jsonl"), read(tmp_path / "d.jsonl"), strict=True):
        assert sorted(nearest["negative"]) == sorted(drawn["negative"])
