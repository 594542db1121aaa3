"""Small repositories of every kind for the hub of the tests."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import datasets
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from lusifer.embedder import folder
from lusifer.evaluation.tasks import sib200
from lusifer.model.build import make_tiny_bases
from support.fake_hub import Hub
from support.tiny_bases import make_tiny_base, sentences
from support.tiny_folder import tiny_embedder

NUMBERS = Path(__file__).parents[1] / "parity" / "numbers"


def data_sets(root: Path) -> dict[str, Path]:
    """A published set as it lies on the hub (Parquet), and one of our own in two configurations and two states."""
    pairs = [
        {
            "query": f"Which is number {number}?",
            "positive": [text],
            "negative": [f"Nothing about {other} here." for other in range(7)],
            "cluster": number % 3,
        }
        for number, text in enumerate(sentences()[:30])
    ]
    (root / "msmarco" / "data").mkdir(parents=True)
    datasets.Dataset.from_list(pairs).to_parquet(root / "msmarco" / "data" / "train-00000-of-00001.parquet")
    for state in ("v1", "main"):
        target = root / f"prose-{state}"
        (target / "letters").mkdir(parents=True)
        (target / "README.md").write_text(
            "---\nconfigs:\n"
            "- config_name: letters\n  data_files:\n  - {split: validation, path: letters/*.jsonl}\n"
            "- config_name: diaries\n  data_files: diaries.jsonl\n---\n"
        )
        lines = [json.dumps({"body": f"{text} ({state})", "page": 1}) for text in sentences()[:24]]
        (target / "letters" / "some.jsonl").write_text("\n".join(lines[:20]) + "\n")
        (target / "letters" / "more.jsonl").write_text("\n".join(lines[20:]) + "\n")
        (target / "diaries.jsonl").write_text(json.dumps({"body": "Dear diary", "page": 2}) + "\n")
    return {name: root / name for name in ("msmarco", "prose-v1", "prose-main")}


def sentences_with_topics(folder_: Path) -> None:
    """English files of the offline suite, small ones."""
    folder_.mkdir()
    for split, count in (("train", 12), ("dev", 6)):
        rows = [{"text": sentences()[i], "label": "ab"[i % 2], "index_id": i} for i in range(count)]
        with gzip.open(sib200.file_of(folder_, "en", split), "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def fill(hub: Hub, root: Path) -> None:
    """Make small repositories of every kind."""
    encoder, llm = make_tiny_bases(root / "bases")
    second = make_tiny_base(root / "second", "encoder", "xlm-roberta", seed=9)
    hub.add("tiny/encoder", encoder)
    hub.add("tiny/encoder", second, revision="second")
    hub.add("tiny/llm", llm)
    hub.add("tiny/gated", llm, gated=True)
    hub.add("tiny/private", llm, private=True)
    bert = Transformer(str(make_tiny_base(root / "bert", "llm", "bert")))
    minilm = SentenceTransformer(modules=[bert, Pooling(bert.get_embedding_dimension()), Normalize()], device="cpu")
    minilm.save_pretrained(str(root / "minilm"))
    hub.add("tiny/minilm", root / "minilm")
    folder.save(tiny_embedder((encoder, llm)), root / "model")
    (root / "model" / "pytorch_model.bin").write_bytes(b"the same weights in another format")
    hub.add("tiny/model", root / "model")
    broken = shutil.copytree(root / "model", root / "broken")
    tensors = load_file(broken / "model.safetensors")
    save_file({key: tensor for key, tensor in tensors.items() if "connector" not in key}, broken / "model.safetensors")
    hub.add("tiny/broken", broken)
    for name in ("tiny-xlm-roberta", "tiny-mistral"):
        hub.add(f"backbones/{name}", NUMBERS / "backbones" / name)
    hub.add("authors/checkpoint", NUMBERS / "lusifer-lora")
    hub.add("tiny/public-encoder", NUMBERS / "backbones" / "tiny-xlm-roberta")
    private = shutil.copytree(NUMBERS / "lusifer-lora", root / "private-bases")
    settings = json.loads((private / "config.json").read_text())
    settings["universal_learner_name_or_path"] = "tiny/private"
    (private / "config.json").write_text(json.dumps(settings))
    hub.add("authors/private-bases", private)
    with safe_open(private / "model.safetensors", "pt") as file:
        words = next(key for key in file.keys() if key.endswith("word_embeddings.weight"))  # noqa: SIM118
        (root / "shape.json").write_text(json.dumps(file.get_slice(words).get_shape()))
    sentences_with_topics(root / "topics")
    sets = data_sets(root)
    hub.add("Hieuman/MSMarco", sets["msmarco"], kind="datasets")
    hub.add("own/prose", sets["prose-main"], kind="datasets")
    hub.add("own/prose", sets["prose-v1"], kind="datasets", revision="v1")
    hub.add("own/gated", sets["prose-main"], kind="datasets", gated=True)
    hub.add("own/private", sets["prose-main"], kind="datasets", private=True)
