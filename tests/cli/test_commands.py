"""The other commands as typed: doctor, info, check, train, convert, evaluate."""

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from lusifer.cli import main, train
from lusifer.errors import LusiferError
from lusifer.training.recipe.load import load_recipe


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("lusifer: error: ")
    return lines[0]


def test_doctor_is_green_and_status_0_or_red_and_status_1(model_folder, folder, capsys):
    assert main(["doctor", str(model_folder)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines()[-1].endswith("all 14 checks passed")
    broken = shutil.copytree(model_folder, folder / "broken")
    config = json.loads((broken / "config.json").read_text(encoding="utf-8"))
    config["bidirectional"] = config["llm"]["is_causal"] = False
    config["llm"]["is_causal"] = True
    (broken / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert main(["doctor", "broken"]) == 1
    said = capsys.readouterr()
    assert [line.split(":")[0].split(maxsplit=1)[1] for line in said.out.splitlines() if line.startswith("red")] == [
        "LLM attends in both directions"
    ]
    assert said.err == "lusifer: error: broken: 1 of 14 checks failed\n"


def test_info_names_the_parts(model_folder, capsys):
    assert main(["info", str(model_folder)]) == 0
    said = capsys.readouterr().out
    for words in ("xlm-roberta", "mistral", "attends in both directions", "1 soft token", "at most 64 a text", "48"):
        assert words in said


def test_info_of_no_folder(folder, capsys):
    assert main(["info", "nowhere"]) == 2
    assert "nowhere: no such folder" in one_line(capsys)


@pytest.mark.slow
def test_check_says_what_trains(capsys):
    assert main(["check", "tiny"]) == 0
    said = capsys.readouterr().out
    assert "tiny: the recipe is valid" in said and "connector" not in said
    assert main(["check", "tiny", "--details"]) == 0
    assert "connector" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["check", "r.yaml"], ["train", "r.yaml", "--output", "run"]])
def test_a_misspelt_key_is_named_with_its_line_and_nothing_is_made(folder, capsys, command):
    from lusifer.training.recipe.load import find_recipe

    text = find_recipe("tiny").read_text(encoding="utf-8").replace("learning_rate", "lerning_rate", 1)
    Path("r.yaml").write_text(text, encoding="utf-8")
    assert main(command) == 2
    line = one_line(capsys)
    assert "r.yaml line " in line
    assert "lerning_rate" in line
    assert not Path("run").exists()


def test_a_recipe_that_is_not_there_and_a_wrong_set(folder, capsys):
    assert main(["train", "nothing.yaml", "--output", "run"]) == 2
    assert "nothing.yaml: no such recipe" in one_line(capsys)
    assert main(["train", "tiny", "--output", "run", "--set", "seeed=1"]) == 2
    assert "seeed" in one_line(capsys)


def test_convert_of_something_else(folder, model_folder, capsys):
    assert main(["convert", str(model_folder), "out"]) in (1, 2)
    one_line(capsys)
    assert not Path("out").exists()


def test_evaluate_writes_a_summary_and_shows_the_table(model_folder, folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["lusifer", "evaluate", "m"])
    data = folder / "data"
    data.mkdir()
    for code, split, count in (("en", "train", 12), ("en", "dev", 6), ("es", "dev", 6)):
        with gzip.open(data / f"sib200-{code}-{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            for number in range(count):
                row = {"text": f"{code} {number} water", "label": "ab"[number % 2], "index_id": number}
                file.write(json.dumps(row) + "\n")
    command = ["evaluate", str(model_folder), "--suite", "offline", "--data", "data", "--languages", "en,spa,sw"]
    assert main([*command, "--output", "scores"]) == 0
    said = capsys.readouterr()
    assert "| Spanish (es) |" in said.out and "0.0 |" not in said.out.split("## Language gap")[0].replace("00.0 |", "")
    assert "SIB200ZeroShotTopics (sw)" in said.out and "sib200-sw-dev.jsonl.gz: no such file" in said.out
    assert re.search(r"lusifer: missing: \d of \d+: sib200-sw-dev.jsonl.gz: no such file", said.err)
    assert Path("scores/table.md").read_text(encoding="utf-8") == said.out
    summary = json.loads(Path("scores/summary.json").read_text(encoding="utf-8"))
    found = {(f"{row['title']} ({row['metric']}, %)", row["language"]): row["score"] for row in summary["scores"]}
    dev = "SIB-200, the English translation among 99 (accuracy, %)"
    assert 0 <= found[dev, "es"] <= 100 and found[dev, "sw"] is None
    assert len(summary["model"]["identity"]) == 12 and summary["command"] == "lusifer evaluate m"
    assert main([*command, "--output", "again", "--compare", "scores"]) == 0
    assert f"| {model_folder} (again) | {model_folder} (scores) |" in capsys.readouterr().out
    assert main(command) == 0  # only shown
    assert "| Swahili (sw) |" in capsys.readouterr().out
    assert main([*command[:5], "nowhere", "--output", "again"]) == 2
    assert "nowhere: no such folder" in one_line(capsys)
    assert main([*command[:6], "--languages", "en,xx", "--output", "again"]) == 2
    assert "language 'xx' is unknown" in one_line(capsys)
    assert main(["evaluate", str(model_folder), "--suite", "all"]) == 2
    assert "--suite 'all' is unknown: use one of offline, sample, robust, long, mine, paper" in one_line(capsys)


def test_evaluate_takes_devices_in_capitals(model_folder, folder, capsys, monkeypatch):
    given = []

    def stop(model, options, *args, **kwargs):
        given.append(options.devices)
        raise LusiferError("stop")

    monkeypatch.setattr("lusifer.evaluation.run.evaluate.evaluate", stop)
    words = ["evaluate", str(model_folder), "--suite", "sample", "--languages", "en,es", "--device", "CPU, Cpu"]
    assert main(words) == 1 and "stop" in capsys.readouterr().err
    assert given == [("cpu", "cpu")]


@pytest.mark.parametrize("words", [["export", "MODEL", "--output"], ["convert", "nobody/published"]])
def test_a_trained_model_is_replaced_only_with_overwrite(folder, model_folder, capsys, monkeypatch, words):
    words = [str(model_folder) if word == "MODEL" else word for word in words]
    made = []
    monkeypatch.setattr("lusifer.embedder.folder.export", lambda model, output: made.append(output))
    monkeypatch.setattr("lusifer.sharing.convert.convert", lambda published, out, **_: made.append(out))
    Path("empty").mkdir()
    shutil.copytree(model_folder, "trained")
    Path("link").symlink_to("trained")
    assert main([*words, "empty"]) == 0 and made.pop() == Path("empty")
    capsys.readouterr()
    for output in ("trained", "link"):
        assert main([*words, output]) == 2 and not made
        refused = f"{output}: already has a model: name another folder, or give --overwrite to replace it"
        assert one_line(capsys).endswith(refused)
        assert main([*words, output, "--overwrite"]) == 0 and made.pop() == Path(output)
        assert f"lusifer: {output} exists and will be replaced" in capsys.readouterr().err


def test_convert_replaces_a_model_and_nothing_else(folder, capsys):
    # A Hub id: the output is refused before the Hub is asked. A name that can be no model comes first (test_early.py).
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("mine")
    assert main(["convert", "nobody/published", "mine"]) == 2
    assert "OUT mine: has files that would be lost (no modules.json): name a new folder" in one_line(capsys)
    assert Path("mine/thesis.txt").is_file()


@pytest.mark.parametrize(
    "words",
    [["convert", "nobody/published", "file/out"], ["evaluate", "nobody/model", "--data", ".", "--output", "file/out"]],
)
def test_a_place_that_cannot_be_written_is_said_before_the_work(folder, capsys, words):
    Path("file").write_text("mine")
    assert main(words) == 2
    assert "file/out: cannot write to" in one_line(capsys)
    words[words.index("file/out")] = "file"
    assert main(words) == 2
    assert "file: is a file: name a folder" in one_line(capsys)


@pytest.mark.parametrize(("has", "slow"), [({"avx2": True}, True), ({"avx512_bf16": True}, False)])
def test_train_says_which_stages_ask_for_a_format_that_the_processor_is_slow_in(monkeypatch, has, slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", **has})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = train.slow_stages(load_recipe("tiny", ["stages.1.bf16=true"]))
    assert (said is not None) == slow
    assert said is None or said.startswith("contrastive: this processor has no instructions for bfloat16")
    assert said is None or said.endswith("--set stages.contrastive.bf16=false --set model.dtype.frozen=float32")
    assert train.slow_stages(load_recipe("tiny")) is None
