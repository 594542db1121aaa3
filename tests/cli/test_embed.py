"""`lusifer embed` as typed: results, and what is said of wrong input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lusifer import load
from lusifer.cli import main
from lusifer.embedder import place

MIXED = "The word вода means water, पानी in Hindi, 水 in Chinese and ماء in Arabic. 🙂 </s>"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def embed(model: Path, *words: str) -> int:
    return main(["embed", str(model), *words])


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("lusifer: error: ")
    return lines[0]


def test_text_lines_to_numpy(model_folder, folder, capsys):
    texts = ["first", MIXED, "x" * 3, "water and fire " * 10]
    Path("in.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    assert embed(model_folder, "--input", "in.txt", "--output", "o.npy") == 0
    found = np.load("o.npy")
    assert found.dtype == np.float32
    assert np.abs(found - load(model_folder, device="cpu").encode(texts)).max() < 1e-6
    assert capsys.readouterr() == ("", "lusifer: 4 texts -> o.npy (48 numbers each)\n")


def test_a_file_that_will_be_replaced_is_named_before_the_work(model_folder, folder, capsys):
    Path("in.txt").write_text("first\n", encoding="utf-8")
    Path("o.npy").write_bytes(b"old")
    assert embed(model_folder, "--input", "in.txt", "--output", "o.npy") == 0
    replaced, done = capsys.readouterr().err.splitlines()
    assert replaced == "lusifer: o.npy exists and will be replaced"
    assert done == "lusifer: 1 text -> o.npy (48 numbers each)" and np.load("o.npy").shape == (1, 48)
    assert main(["data", "dedup", "sample:pairs", "--output", "d.jsonl"]) == 0
    assert "replaced" not in capsys.readouterr().err
    assert main(["data", "dedup", "sample:pairs", "--output", "d.jsonl"]) == 0
    assert capsys.readouterr().err.startswith("lusifer: d.jsonl exists and will be replaced\n")


def test_one_text_is_no_texts(model_folder, folder, capsys):
    Path("in.txt").write_text("water " * 200 + "\n", encoding="utf-8")
    assert embed(model_folder, "--input", "in.txt", "--output", "new/folder/o.npy") == 0
    cut, done = capsys.readouterr().err.splitlines()
    assert "1 of 1 text is longer than the 64 tokens that the model reads and was truncated; the first is" in cut
    assert done == "lusifer: 1 text -> new/folder/o.npy (48 numbers each)"


def test_task_role_and_instruction_reach_the_model(model_folder, folder):
    Path("in.jsonl").write_text(json.dumps({"body": "water"}) + "\n", encoding="utf-8")
    embedder = load(model_folder, device="cpu")
    for words, prefix in (
        (["--task", "sts"], "Find a sentence with the same meaning.\n"),
        (["--task", "retrieval", "--role", "document"], ""),
        (["--prompt", "Find it."], "Find it.\n"),
        (["--role", "query"], ""),
    ):
        assert embed(model_folder, "--input", "in.jsonl", "--field", "body", "--output", "o.npy", *words) == 0
        assert np.abs(np.load("o.npy")[0] - embedder.encode(prefix + "water")).max() < 1e-6


def test_layers_are_compiled_where_that_is_asked_for(model_folder, folder, monkeypatch):
    compiled = []
    monkeypatch.setattr("lusifer.model.bases.backbones.compile_layers", compiled.append)
    Path("in.txt").write_text("water\n", encoding="utf-8")
    assert embed(model_folder, "--input", "in.txt", "--output", "o.npy") == 0 and not compiled
    assert embed(model_folder, "--input", "in.txt", "--output", "p.npy", "--compile") == 0
    assert [type(one).__name__ for one in compiled] == ["SentenceTransformer"]


def test_a_very_long_text_is_cut_and_reported_or_refused(model_folder, folder, capsys):
    Path("in.txt").write_text("short\n" + ("слово water " * 9000)[:100_000] + "\n", encoding="utf-8")
    assert embed(model_folder, "--input", "in.txt", "--output", "o.npy") == 0
    said = capsys.readouterr().err
    assert "1 of 2 texts are longer than the 64 tokens" in said
    assert "the first is in.txt line 2 with " in said
    assert embed(model_folder, "--input", "in.txt", "--output", "p.npy", "--on-long", "error") == 1
    assert "in.txt line 2: " in one_line(capsys)
    assert not Path("p.npy").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\n\n", "in.txt line 2: the text is empty"),
        (b"fine\na\x00b\n", "in.txt line 2: NUL character at position 1"),
        (b"fine\na\xed\xa0\x80\n", "in.txt line 2: lone surrogate U+D800 at position 1"),
        (b"fine\n\xe4\n", "in.txt line 2: not UTF-8 (byte 0): save the file as UTF-8"),
        (b"", "in.txt: no texts: give"),
    ],
)
def test_wrong_texts_are_status_1_and_leave_no_file(folder, capsys, content, message):
    Path("in.txt").write_bytes(content)
    # The texts are read before the model: it need not even be on this machine, if it can be on the Hub.
    assert embed(Path("nobody/model"), "--input", "in.txt", "--output", "o.npy") == 1
    assert message in one_line(capsys)
    assert not Path("o.npy").exists()


def test_a_gpu_that_is_not_there_is_not_advised(model_folder, folder, capsys, monkeypatch):
    monkeypatch.setattr(place.torch.cuda, "is_available", lambda: False)

    def none(*_, device):
        raise RuntimeError("No CUDA GPUs are available")

    monkeypatch.setattr(place.torch, "ones", none)
    Path("in.txt").write_text("fine\n", encoding="utf-8")
    for device in ("cuda", "cuda:1"):
        assert embed(model_folder, "--input", "in.txt", "--output", "o.npy", "--device", device) == 2
        wanted = f"--device {device}: not usable here (No CUDA GPUs are available); use cpu or mps, or leave it out"
        assert wanted in one_line(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "no.txt", "--output", "o.npy"], "no.txt: no such file"),
        (["--input", "in.tsv", "--output", "o.npy"], "in.tsv: no such file or folder"),
        (["--input", "in.txt", "--output", "o.csv"], "--output o.csv: unknown ending '.csv'"),
        (["--input", "in.txt", "--output", "/proc/a/o.npy"], "/proc/a/o.npy: cannot write to /proc ("),
        (["--input", "in.txt", "--output", "in.txt/o.npy"], "in.txt ("),
        (["--input", "in.txt", "--output", "o.npy", "--task", "stss"], "task 'stss' is unknown"),
        (["--input", "in.txt", "--output", "o.npy", "--task", "sts", "--prompt", "x"], "exclude each other"),
        (["--input", "in.txt", "--output", "o.npy", "--device", "tpu"], "--device tpu: unknown device"),
        (["--input", "in.txt", "--output", "o.npy", "--device", "meta:x"], "--device meta:x: unknown device"),
        (
            ["--input", "in.txt", "--output", "o.npy", "--device", "hpu"],
            "--device hpu: not usable here (torch has no hpu on this machine); use cpu",
        ),
        (["--input", "in.txt", "--output", "o.npy", "--device", "META"], "--device meta: not usable here ("),
    ],
)
def test_wrong_calls_are_status_2(model_folder, folder, capsys, words, message):
    Path("in.txt").write_text("fine\n", encoding="utf-8")
    Path("in.csv").write_text("fine\n", encoding="utf-8")
    assert embed(model_folder, *words) == 2
    assert message in one_line(capsys)


def test_a_field_that_is_not_there(model_folder, folder, capsys):
    Path("in.jsonl").write_text('{"body": "x"}\n', encoding="utf-8")
    assert embed(model_folder, "--input", "in.jsonl", "--output", "o.npy") == 1
    assert "in.jsonl line 1: no field 'text' (found body): name it with --field" in one_line(capsys)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "modules.json"])
def test_a_model_folder_with_a_missing_or_cut_file(model_folder, folder, capsys, name):
    Path("in.txt").write_text("fine\n", encoding="utf-8")
    broken = shutil.copytree(model_folder, folder / "broken")
    content = (broken / name).read_bytes()
    (broken / name).write_bytes(content[: len(content) // 2])
    assert embed(broken, "--input", "in.txt", "--output", "o.npy") == 1
    assert name in one_line(capsys)
    (broken / name).unlink()
    assert embed(broken, "--input", "in.txt", "--output", "o.npy") == 1
    assert f"{name}: missing" in one_line(capsys)


def test_a_model_that_is_nowhere(folder, capsys):
    Path("in.txt").write_text("fine\n", encoding="utf-8")
    assert embed(Path("nowhere"), "--input", "in.txt", "--output", "o.npy") == 2
    assert "nowhere: no such folder" in one_line(capsys)


@pytest.mark.slow
def test_standard_input_in_a_process_of_its_own_says_nothing_but_its_line(model_folder, folder):
    done = subprocess.run(
        [sys.executable, "-m", "lusifer.cli", "embed", str(model_folder), "--input", "-", "--output", "o.parquet"],
        input="eins\nदो\n".encode(),
        capture_output=True,
        check=True,
    )
    assert done.stdout == b""
    assert done.stderr == b"lusifer: 2 texts -> o.parquet (48 numbers each)\n"


@pytest.mark.parametrize("output", ["texts.jsonl", "sub/../texts.jsonl", "link.jsonl"])
def test_the_input_is_not_written_over(folder, capsys, output):
    text = '{"text": "Water."}\n'
    Path("texts.jsonl").write_text(text)
    Path("sub").mkdir()
    Path("link.jsonl").symlink_to("texts.jsonl")
    assert main(["embed", "nobody/model", "--input", "texts.jsonl", "--output", output]) == 2
    assert "is also an input, which would be lost: name another file" in one_line(capsys)
    assert Path("texts.jsonl").read_text() == text
