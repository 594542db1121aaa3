"""The tiny bases: every checked architecture, the same bytes each time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from lusifer.model import build
from lusifer.model.bases import backbones
from support import tiny_bases

BACKBONES = [("encoder", name) for name in backbones.table("encoder")] + [
    ("llm", name) for name in backbones.table("llm")
]


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its bytes."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.slow
def test_two_processes_make_the_same_bases(bases_folder, tmp_path):
    program = "import sys, pathlib; from lusifer.model.build import make_tiny_bases as m; m(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True)
    assert fingerprint(tmp_path) == fingerprint(bases_folder[0].parent)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 2_000_000


@pytest.mark.parametrize(("backbone", "model_type"), [("encoder", "xlm-roberta"), ("llm", "mistral")])
def test_the_tokenizers_in_the_package_are_those_that_the_sentences_make(backbone, model_type, tmp_path):
    tiny_bases.tiny_tokenizer(model_type).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / file).read_bytes() == (build.TINY / backbone / file).read_bytes()


def test_the_seed_matters_and_torch_is_left_as_it_was():
    config = tiny_bases.tiny_encoder_config("xlm-roberta")
    before = torch.get_rng_state()
    one, other = (build.tiny_model(config, "encoder", seed).state_dict() for seed in (0, 1))
    assert torch.equal(before, torch.get_rng_state())
    name = "embeddings.word_embeddings.weight"
    assert not torch.equal(one[name], other[name])


@pytest.mark.parametrize(("backbone", "model_type"), BACKBONES)
def test_every_checked_architecture_has_a_tiny_one(backbone, model_type, tmp_path):
    folder = tiny_bases.make_tiny_base(tmp_path, backbone, model_type)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) <= tiny_bases.VOCABULARY
    batch = [tokenizer(text)["input_ids"] for text in tiny_bases.sentences()]
    assert max(max(ids) for ids in batch) < tiny_bases.VOCABULARY
    size = 32 if backbone == "encoder" else 48
    config = (
        tiny_bases.tiny_encoder_config(model_type) if backbone == "encoder" else tiny_bases.tiny_llm_config(model_type)
    )
    assert config.hidden_size == size
    model = build.tiny_model(config, backbone)
    model = model.model if backbone == "llm" and backbones.is_decoder(config) else model
    with torch.no_grad():
        states = [model(input_ids=torch.tensor([ids])).last_hidden_state.mean(1) for ids in batch[:2]]
    assert states[0].shape == (1, size)
    assert not torch.allclose(states[0], states[1], atol=1e-2)


def test_the_tokenizers_have_what_their_families_have(xlmr_tokenizer, llm_tokenizer):
    ids = xlmr_tokenizer("Rain fell.")["input_ids"]
    assert (ids[0], ids[-1]) == (xlmr_tokenizer.bos_token_id, xlmr_tokenizer.eos_token_id)
    assert (xlmr_tokenizer.pad_token_id, xlmr_tokenizer.mask_token) == (1, "<mask>")
    ids = llm_tokenizer("Rain fell.")["input_ids"]
    assert ids[0] == llm_tokenizer.bos_token_id
    assert ids[-1] != llm_tokenizer.eos_token_id
    assert llm_tokenizer.pad_token is None


@pytest.mark.parametrize("text", ["Rain fell, 猫 Поезд!", "ṩ𓀀 unseen signs ☃", "a" * 50])
def test_bytes_have_no_unknown_part(llm_tokenizer, text):
    ids = llm_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert llm_tokenizer.unk_token_id not in ids
    assert llm_tokenizer.decode(ids) == text
