"""Cheap mistakes are reported before torch is imported: arguments, files and ports first, then models."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lusifer.data import sources
from lusifer.training.recipe.load import load_recipe, resolved_yaml

PROGRAM = """
import contextlib, io, json, sys
from lusifer.cli import main
for words in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(words)
    heavy = [name for name in ("torch", "transformers", "sentence_transformers", "mteb") if name in sys.modules]
    print(json.dumps([status, said.getvalue(), heavy]), flush=True)
"""
SOURCE = "stages.contrastive.data.0.path"
PIPE = "is a pipe or a device, not a file: save its content as a file"
HAS_MODEL = ": already has a model: name another folder, or give --overwrite to replace it"
CASES = {
    "check nothing": "nothing: no such recipe",
    "check tiny --set stages.alignment.max_step=2": "max_step",
    "train tiny --output run": "run: contains a finished run, with its model in model: choose another --output",
    "train tiny --output taken": "taken: is not empty and contains no run",
    "train tiny --output new --resume": "new: no run to resume:",
    "train tiny --output file": "file: is a file",
    "train tiny --output file/run": "--output file/run: cannot write to",
    f"train tiny --output new --set {SOURCE}=absent.csv": "absent.csv: no such file",
    f"train tiny --output new --set {SOURCE}=words.csv": "words.csv line 2: ",
    f"train tiny --output new --set {SOURCE}=broken.csv": "broken.csv line 3: not UTF-8",
    "train finetune --output new --set model.start=taken": "model.start: {here}/taken/config.json: missing;",
    f"train finetune --output new --set {SOURCE}=words.csv": "words.csv line 2: column query is missing",
    f"train finetune --output new --set {SOURCE}=few.csv": "few.csv: has only 2 rows to train on, and a batch needs 32 "
    "(batch_size): add rows, or lower batch_size, which leaves few in-batch negatives",  # conflicts may ask for fewer
    "train tiny --output begun --resume --set seed=7": "begun/recipe.yaml: the recipe changed in seed: resume with",
    "train tiny --output begun --resume --set stages.alignment.max_steps=3": "changed in stages.alignment.max_steps: ",
    "ablate tiny --output new --suite paper --languages xx": "'xx'",
    "ablate tiny --output new --suite paper --tasks Nothing": "'Nothing'",
    "ablate tiny --output file": "--output file: is a file",
    "doctor nowhere": "nowhere: no such folder",
    "doctor taken": "taken: 1 of 1 checks failed",
    "doctor good.txt": "good.txt: is a file; give the folder of a model or of an index",
    "info nowhere": "nowhere: no such folder",
    "info ~nobody-of-this-name": "~nobody-of-this-name: no such folder",
    "doctor ~nobody-of-this-name": "~nobody-of-this-name: no such folder",
    "embed mini --input ~nobody-of-this-name --output v.npy": "~nobody-of-this-name: no such file",
    "embed nowhere --input good.txt --output v.npy": "nowhere: no such folder",
    "embed mini --input absent.txt --output v.npy": "absent.txt: no such file",
    "embed mini --input words.csv --output v.npy": "words.csv line 2: no field 'text'",
    "embed mini --input broken.csv --field question --output v.npy": "broken.csv line 3: not UTF-8",
    "embed mini --input good.txt --output file/v.npy": "--output file/v.npy: cannot write to",
    "embed mini --input good.txt --output file/shards": "--output file/shards: cannot write to",
    "embed mini --input good.txt --output v.npy --task Nothing": "task 'Nothing' is unknown",
    "embed mini --input taken --output v.npy": "taken: is a folder: name a file in it",
    "embed mini --input image.txt --output v.npy": "image.txt: is a PNG image, not text: give a text file",
    "embed gone --input good.txt --output v.npy": "gone/model.safetensors: missing;",
    "export nowhere --output new": "nowhere: no such folder",
    "export taken --output new": "taken/modules.json: missing;",
    "export good.txt --output new": "good.txt: is a file; give the model folder",
    "export mini --output taken": "--output taken: has files",
    "export mini --output new --field text": "--field and --input-format need --input",
    "export mini --output new --input words.csv": "words.csv line 2: no field 'text'",
    "export mini --output mine": f"mine{HAS_MODEL}",
    "export mini --output link": f"link{HAS_MODEL}",
    "export mini --input good.txt --output mine": f"mine{HAS_MODEL}",
    "export mini --output taken --overwrite": "--output taken: has files",
    "convert nobody/published mine": f"mine{HAS_MODEL}",
    "convert nobody/published taken --overwrite": "OUT taken: has files",
    "push nowhere me/model": "nowhere: no such folder",
    "convert nowhere new": "nowhere: no such folder",
    "convert taken file": "OUT file: is a file",
    "index nowhere --input good.txt --output i": "nowhere: no such folder",
    "embed mini --input pairs.txt --output done": "done: was made by another call (another input, rows",
    "embed mini --input pairs.txt --output done.npy": "done.npy.unfinished: was begun by another call (another",
    "index taken --input good.txt --output i": "taken/modules.json: missing;",
    "reindex i --model taken": "taken/modules.json: missing;",
    "index mini --input words.csv --output i": "words.csv line 2: ",
    "index gone --input good.txt --output i": "gone/model.safetensors: missing;",
    "index mini --input broken.csv --field question --output i": "broken.csv line 3: not UTF-8",
    "index mini --input good.txt --output taken": "taken: has other files and is no index",
    "index mini --input good.txt --output file/i": "file/i: cannot write to",
    "index mini --input good.txt --output i --task Nothing": "task 'Nothing' is unknown",
    "index mini --input good.txt --output i --offsets absent": "absent: no such file",
    "search i water": "i: no index there",
    "search i water --language xx": "'xx'",
    "search i water --statistics absent": "absent: no such file",
    "reindex i --model nowhere": "nowhere: no such folder",
    "calibrate taken --parallel sample": "taken/modules.json: missing;",
    "calibrate mini --documents taken --parallel sample --output s.safetensors": "taken/modules.json: missing;",
    "calibrate mini --parallel absent.csv --output s.safetensors": "absent.csv: no such file",
    "calibrate mini --parallel sample --output s.npy": "--output s.npy: unknown ending",
    "calibrate mini --parallel sample --output file/s.safetensors": "--output file/s.safetensors: cannot write to",
    "calibrate mini --parallel sample --output s.safetensors --task Nothing": "task 'Nothing' is unknown",
    "calibrate mini --parallel pipe.jsonl --output s.safetensors": f"pipe.jsonl: {PIPE}",
    "calibrate mini --parallel head.csv --output s.safetensors": "'Hello' is no language code; line 1 must",
    "search i water --statistics pipe.npy": f"pipe.npy: {PIPE}",
    "index mini --output i --vectors pipe.npy": f"--vectors pipe.npy: {PIPE}",
    "index mini --output i --vectors pipe.parquet": f"--vectors pipe.parquet: {PIPE}",
    "index mini --output i --vectors absent.lance": "--vectors absent.lance: no such table",
    "index mini --output i --input pipe.jsonl": "pipe.jsonl: is a pipe or a device, not a file: give - and send",
    "evaluate mini --suite mine --data pipe.jsonl": f"--data pipe.jsonl: {PIPE}",
    "evaluate mini --suite mine --data absent.csv": "--data absent.csv: no such file: correct the name; docs/how-to/",
    "evaluate mini --suite mine --data asked.jsonl --documents pipe.jsonl": f"--documents pipe.jsonl: {PIPE}",
    "evaluate mini --suite mine --data head.csv": "no `text` (found Hello, Habari; line 1 must be the header): a",
    "data dedup pairs.jsonl --output d.jsonl --against pipe.jsonl": f"pipe.jsonl: {PIPE}",
    "data dedup pairs.jsonl --output d.jsonl --against absent.jsonl": "absent.jsonl: no such file: correct the name",
    "data dedup pipe.jsonl --output d.jsonl": "pipe.jsonl: is a pipe or a device, not a file: save its rows as a file",
    "data mine pairs.jsonl --model mini --output m.jsonl --corpus head.csv": "Habari; line 1 must be the header)",
    "serve mini --port TAKEN": "127.0.0.1 port TAKEN: ",
    "serve gone --port 0": "gone/model.safetensors: missing;",
    "serve nowhere --port 0": "nowhere: no such folder",
    "serve mini --port 0 --index i": "i: no index there",
    "serve mini --port 0 --statistics absent": "absent: no such file",
    "evaluate nowhere --suite sample": "nowhere: no such folder",
    "evaluate mini --suite nothing": "--suite 'nothing' is unknown",
    "evaluate mini --suite sample --languages xx": "'xx'",
    "evaluate mini --suite paper --tasks Nothing": "'Nothing'",
    "evaluate mini --suite sample --tasks Nothing": "'Nothing'",
    "evaluate mini --suite robust --tasks Nothing": "'Nothing'",
    "evaluate gone --suite sample": "gone/model.safetensors: missing;",
    "evaluate mini --suite sample --output taken": "--output taken: has files",
    "evaluate mini --suite sample --output file/e": "--output file/e: cannot write to",
    "evaluate mini --suite sample --compare absent": "absent",
    "evaluate mini --suite sample --against nowhere": "nowhere: no such folder",
    "evaluate mini --suite mine --data words.csv": "words.csv",
    "report absent --output file/r.html": "--output file/r.html: cannot write to",
    "calibrate mini --parallel absent.csv --output old.safetensors": "absent.csv: no such file",
    "data dedup pairs.jsonl --output old.jsonl --against absent.jsonl": "absent.jsonl: no such file",
    "data dedup late.jsonl --output old.jsonl": "late.jsonl line 1501: ",
    "data mine late.jsonl --model mini --output old.jsonl": "late.jsonl line 1501: ",
    "data cluster late.jsonl --model mini --output old.jsonl": "late.jsonl line 1501: ",
    "embed gone --input good.txt --output old.npy": "gone/model.safetensors: missing;",
    "demo --output file": "--output file: is a file",
    "data dedup words.csv --output d.jsonl": "words.csv",
    "data mine pairs.jsonl --model mini --output file/m.jsonl": "--output file/m.jsonl: cannot write to",
    "data mine pairs.jsonl --model nowhere --output m.jsonl": "nowhere: no such folder",
    "data mine late.jsonl --model mini --output m.jsonl": "late.jsonl line 1501: ",
    "data mine pairs.jsonl --model mini --output m.jsonl --corpus texts.jsonl": "texts.jsonl line 1501: ",
    "data mine pairs.jsonl --model gone --output m.jsonl": "gone/model.safetensors: missing;",
    "data cluster late.jsonl --model mini --output m.jsonl": "late.jsonl line 1501: ",
    "data cluster pairs.jsonl --model mini --output file/m.jsonl": "--output file/m.jsonl: cannot write to",
}


@pytest.mark.slow
def test_what_is_wrong_in_a_call_is_reported_before_torch_is_imported(tmp_path: Path, model_folder: Path) -> None:
    (tmp_path / "good.txt").write_text("Water.\n")
    (tmp_path / "words.csv").write_text("question,answer\na,b\n")
    (tmp_path / "few.csv").write_text("query,positive\na,b\nc,d\n")
    (tmp_path / "head.csv").write_text("Hello,Habari\nWater,Maji\n")
    (tmp_path / "asked.jsonl").write_text('{"question": "Where?", "right": ["1"]}\n')
    (tmp_path / "pairs.txt").write_text("Water.\n" * 9000)
    for name in ("done/_manifest.json", "done.npy.unfinished/_job.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text('{"settings": {"input": "other"}}')
    for name in ("pipe.jsonl", "pipe.npy", "pipe.parquet"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "broken.csv").write_bytes(b"question,query,positive\na,a,b\nb,b,\xff\n")
    (tmp_path / "pairs.jsonl").write_bytes(sources.files("sample:pairs")[0].read_bytes())
    (tmp_path / "file").write_text("mine")
    for ending in ("jsonl", "npy", "safetensors"):  # these would be replaced, but not in a call that fails
        (tmp_path / f"old.{ending}").write_text("mine")
    (tmp_path / "image.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    for name, row in (("late", {"query": "a", "positive": "b"}), ("texts", {"text": "a"})):
        (tmp_path / f"{name}.jsonl").write_text(f"{json.dumps(row)}\n" * 1500 + "{\n")
    (shutil.copytree(model_folder, tmp_path / "gone") / "model.safetensors").unlink()
    shutil.copytree(model_folder, tmp_path / "mine")
    (tmp_path / "link").symlink_to("mine")
    for place in ("taken", "run/model", "begun/checkpoints/01-alignment/model"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "begun" / "recipe.yaml").write_text(resolved_yaml(load_recipe("tiny")))
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    (tmp_path / "run" / "recipe.yaml").write_text("name: tiny\n")
    (tmp_path / "run" / ".lock").write_text("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        calls = [case.replace("TAKEN", port).split() for case in CASES]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], input=json.dumps(calls), capture_output=True, text=True, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, timeout=300, check=False,
        )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    parts = {case: part.format(here=tmp_path).replace("TAKEN", port) for case, part in CASES.items()}
    wrong = {
        case: (status, said, heavy)
        for (case, part), (status, said, heavy) in zip(parts.items(), found, strict=False)
        if status not in (1, 2) or part not in said or said.count("\n") != 1 or heavy
    }
    assert not wrong and len(found) == len(CASES), (wrong, done.stderr)
    assert not (tmp_path / "i").exists() and not (tmp_path / "new").exists()
