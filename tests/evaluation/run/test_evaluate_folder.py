"""An evaluation folder: whose it is, what a kill may leave in it, several devices."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import lusifer
from lusifer.embedder.assemble import lusifer_model
from lusifer.embedder.identity import identity_in_memory
from lusifer.errors import LusiferError, UsageError
from lusifer.evaluation.run.encoder import load_model
from lusifer.evaluation.run.evaluate import Options, evaluate
from lusifer.evaluation.run.runner import run
from lusifer.evaluation.scores import results
from lusifer.evaluation.scores.folder import EvaluationFolder
from lusifer.io.seen import SEEN, BloomFilter
from support.offline_files import write_split
from support.words import Words

CODES = ("en", "es", "ru", "fr")


def test_two_models_never_share_a_score(data, tmp_path):
    options = Options(data=data, languages=["es"])
    first = evaluate(Words(seed=1), options, tmp_path / "scores")
    with pytest.raises(UsageError, match=r"holds another evaluation \(model '.*' there, '.*' now\).*--output"):
        evaluate(Words(seed=2), options, tmp_path / "scores")
    whose = (tmp_path / "scores" / "run.json").read_text()
    for damage in ("{", "null", "[]", whose[:40]):
        (tmp_path / "scores" / "run.json").write_text(damage)
        with pytest.raises(UsageError, match=r"run\.json: damaged.*choose another --output"):
            evaluate(Words(seed=2), options, tmp_path / "scores")
    (tmp_path / "scores" / "run.json").write_text(whose)
    again = evaluate(Words(seed=1), options, tmp_path / "scores")
    assert again["scores"] == first["scores"]
    with pytest.raises(UsageError, match=r"languages \['es'\] there"):
        evaluate(Words(seed=1), Options(data=data, languages=["es", "en"]), tmp_path / "scores")


def test_two_calls_at_once_do_not_share_a_folder(data, tmp_path):
    from lusifer.io.files import locked

    (tmp_path / "scores").mkdir()
    with (
        locked(tmp_path / "scores" / ".lock", "held"),
        pytest.raises(UsageError, match="another process writes its evaluation"),
    ):
        evaluate(Words(), Options(data=data, languages=["es"]), tmp_path / "scores")


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("scores/SIB200Topics.json", "{"),
        ("scores/SIB200Topics.json", "null"),
        ("scores/SIB200Topics.json", '{"es": {"score": "abc"}}'),
        ("scores/SIB200Topics.json", None),
        ("examples/SIB200Topics.json", "{"),
        ("examples/SIB200Topics.json", "[]"),
        ("examples/SIB200Topics.json", '{"es": {"kind": "mean", "ids": ["1"], "values": [0.5]}}'),
        ("examples/SIB200Topics.json", None),
        ("results/*/*/SIB200Topics.json", "{}"),
        ("results/*/*/SIB200Topics.json", "["),
        ("gap.json", "{"),
        ("summary.json", "{"),
    ],
)
def test_whatever_a_kill_leaves_the_next_call_ends_with_the_same_scores(data, tmp_path, place, content):
    options = Options(data=data, languages=["es", "fr"], tasks=["SIB200Topics", "STSFile"])
    first = evaluate(Words(), options, tmp_path / "scores")
    evaluation = tmp_path / "scores"
    file = next(evaluation.glob(place))
    file.unlink() if content is None else file.write_text(content)
    if place.startswith("results"):
        (evaluation / "scores" / "SIB200Topics.json").unlink()
    again = evaluate(Words(), options, evaluation)
    assert [entry | {"seconds": 0} for entry in again["scores"]] == [
        entry | {"seconds": 0} for entry in first["scores"]
    ]
    assert results.read(evaluation).examples.keys() == {("es", "SIB200Topics"), ("es", "STSFile")}


def test_examples_without_a_score_do_not_block_the_folder(data, tmp_path):
    options = {"data": data, "languages": ["es"], "tasks": ["SIB200Topics", "STSFile"]}
    evaluate(Words(), Options(**options), tmp_path / "scores")
    (tmp_path / "scores" / "scores" / "SIB200Topics.json").unlink()
    evaluate(Words(), Options(**options, minutes=0), tmp_path / "scores")
    assert results.read(tmp_path / "scores").examples.keys() == {("es", "STSFile")}


def test_texts_met_in_training_are_counted_again_where_a_task_is_measured_again(data, model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "run" / "model")
    (tmp_path / "run" / "checkpoints" / "01-align").mkdir(parents=True)
    BloomFilter(3).save(tmp_path / "run" / "checkpoints" / "01-align" / SEEN)
    options = Options(data=data, languages=["es"], tasks=["SIB200Topics"], devices=["cpu"])
    first = evaluate(tmp_path / "run" / "model", options, tmp_path / "scores")["scores"][0]
    (tmp_path / "scores" / "scores" / "SIB200Topics.json").write_text("{")
    again = evaluate(tmp_path / "run" / "model", options, tmp_path / "scores")["scores"][0]
    assert again["seen"] == first["seen"] == {"seen": 0, "of": 12}


def test_the_folder_of_an_older_version_is_taken_up_and_its_vectors_go(data, tmp_path):
    options = Options(data=data, languages=["es"], tasks=["SIB200Topics"])
    first = evaluate(Words(), options, tmp_path / "scores")
    for name in ("predictions", "vectors", "vectors-1"):
        (tmp_path / "scores" / name).mkdir()
        (tmp_path / "scores" / name / "keys.bin").write_text("")
    assert evaluate(Words(), options, tmp_path / "scores")["scores"] == first["scores"]
    assert not list((tmp_path / "scores").glob("vectors*")) and (tmp_path / "scores" / "predictions").is_dir()


def test_without_a_finished_row_nothing_is_left(data, tmp_path):
    late = Options(data=data, languages=["en", "es", "fr"], minutes=0)
    with pytest.raises(LusiferError, match="nothing could be measured"):
        evaluate(Words(), late, tmp_path / "late")
    assert not (tmp_path / "late").exists()
    (tmp_path / "late").mkdir()
    kept = EvaluationFolder(tmp_path / "late", print)
    kept.claim({"suite": "offline"})
    (tmp_path / "late" / "thesis.txt").write_text("mine")
    kept.discard()
    assert [file.name for file in (tmp_path / "late").iterdir()] == ["thesis.txt"]


def test_too_few_parallel_sentences_cost_the_gap_and_no_score(tmp_path):
    for code in ("en", "es"):
        write_split(tmp_path, code, "train", list(range(9)))
        write_split(tmp_path, code, "dev", list(range(9)))
    notes = []
    found = evaluate(Words(), Options(data=tmp_path, languages=["es"]), tmp_path / "scores", note=notes.append)
    assert EvaluationFolder(tmp_path / "scores").read_gap() is None and found["scores"]
    assert "9 sentences in each language" in notes[0]


def test_after_the_time_budget_the_gap_is_left_for_the_next_call(data, tmp_path):
    options, notes = Options(data=data, languages=["en", "es"], tasks=["SIB200Topics"]), []
    evaluate(Words(), options, tmp_path / "scores")
    (tmp_path / "scores" / "gap.json").unlink()
    evaluate(Words(), replace(options, minutes=0), tmp_path / "scores", note=notes.append)
    assert EvaluationFolder(tmp_path / "scores").read_gap() is None and "time budget" in notes[-1]
    evaluate(Words(), replace(options, minutes=5), tmp_path / "scores")
    assert EvaluationFolder(tmp_path / "scores").read_gap() is not None


def test_the_time_left_has_the_gap_in_it_which_can_be_left_out(data, tmp_path):
    options, told = Options(data=data, languages=["en", "es"], tasks=["SIB200Topics"]), []
    evaluate(Words(), options, tmp_path / "scores", progress=lambda *words: told.append(words))
    (_, _, first), (rows, of, after_rows), *_ = told
    assert [words[:2] for words in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]  # two rows, two languages of the gap
    assert (rows, of) == (2, 4) and first > 0 and after_rows > 0 and told[-1][2] == 0
    told.clear()
    without = replace(options, language_gap=False)
    evaluate(Words(), without, tmp_path / "other", progress=lambda *words: told.append(words))
    assert [words[:2] for words in told] == [(1, 2), (2, 2)] and told[-1][2] == 0
    assert EvaluationFolder(tmp_path / "other").read_gap() is None


def test_two_folders_of_one_name_with_other_weights_have_other_identities(model_folder, data, tmp_path):
    other = shutil.copytree(model_folder, tmp_path / "other" / model_folder.name)
    weights = other / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(bytes(raw))
    options = Options(data=data, languages=["es"], tasks=["SIB200Topics"], devices=["cpu"])
    found = [evaluate(path, options, tmp_path / f"scores-{i}") for i, path in enumerate((model_folder, other))]
    names = {entry["model"]["name"] for entry in found}
    assert len(names) == 1 and found[0]["model"]["identity"] != found[1]["model"]["identity"]
    kept = [next((tmp_path / f"scores-{i}" / "results").glob("*/*")).name for i in range(2)]
    assert kept == [entry["model"]["identity"] for entry in found]


def test_in_memory_a_model_is_known_by_weights_settings_prompts_and_limit(model_folder):
    names = {identity_in_memory(model) for model in (Words(), Words(seed=1), Words({"query": "q: "}))}
    assert len(names) == 3 and identity_in_memory(Words()) in names
    ours = lusifer.load(model_folder, device="cpu")
    before = identity_in_memory(ours)
    lusifer_model(ours).config.pooling = "cls"  # the same weights, and another vector
    assert identity_in_memory(ours) != before
    half = Words()
    half.weight = torch.nn.Parameter(half.weight.to(torch.bfloat16))
    assert len(identity_in_memory(half)) == 12


def test_a_folder_with_other_files_is_left_alone(data, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and holds no evaluation"):
        evaluate(Words(), Options(data=data, languages=["es"]), tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_another_number_format_is_another_evaluation_with_nearly_the_same_scores(data, model_folder, tmp_path):
    tasks = ["SIB200Topics", "SIB200ZeroShotTopics"]
    options = {"data": data, "languages": ["en", "es"], "tasks": tasks, "devices": ["cpu"]}
    saved = evaluate(model_folder, Options(**options), tmp_path / "saved")
    half = evaluate(model_folder, Options(**options, dtype="bfloat16"), tmp_path / "half")
    assert half["settings"]["dtype"] == "bfloat16" and saved["settings"]["dtype"] == "float32"
    likeness = [abs(one["score"] - other["score"]) for one, other in zip(saved["scores"], half["scores"], strict=True)]
    assert max(likeness) < 10
    again = evaluate(model_folder, Options(**options, dtype="float32"), tmp_path / "saved")  # the same model: goes on
    assert again["model"]["identity"] == saved["model"]["identity"]
    assert half["model"]["identity"] == saved["model"]["identity"] + "-bfloat16"
    assert lusifer_model(load_model(model_folder, None, dtype="bfloat16").embedder).llm.dtype == torch.bfloat16
    with pytest.raises(UsageError, match=r"holds another evaluation \(model '.*-bfloat16' there"):
        evaluate(model_folder, Options(**options), tmp_path / "half")
    with pytest.raises(UsageError, match="dtype bfloat16: this model is already loaded"):
        evaluate(Words(), Options(**options, dtype="bfloat16"))


@pytest.mark.slow
@pytest.mark.usefixtures("forked_pools")
def test_two_devices_give_the_vectors_of_one_and_the_death_of_one_is_said(data, model_folder, tmp_path):
    texts = [f"sentence number {number} of the test" for number in range(40)]
    options = Options(data=data, languages=["en", "es"], tasks=["SIB200Topics", "STSFile"])
    model = load_model(lusifer.load(model_folder, device="cpu"), None)
    alone = model.vectors(texts, "")
    model = load_model(model.embedder, None)
    folder = EvaluationFolder(tmp_path / "scores")
    selection = options.select()

    def dies(rows):
        if rows[0].task == "STSFile":
            worker = next(iter(model._workers))
            worker.kill()
            worker.join()
        return selection.make(rows)

    with model.spread(["cpu", "cpu"]):
        workers = list(model._workers)
        assert np.allclose(model.vectors(texts, ""), alone, atol=1e-6)
        with pytest.raises(
            LusiferError, match=r"worker process on cpu \(status -9\) has died.*run the same command again"
        ):
            run(replace(selection, make=dies), model, folder)
    assert len(workers) == 2 and model._pool is None
    assert [file.stem for file in (tmp_path / "scores" / "scores").glob("*.json")] == ["SIB200Topics"]
    assert np.array_equal(model.embedder.encode(texts), alone)
