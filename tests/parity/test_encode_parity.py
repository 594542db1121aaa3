"""Vectors, pooled states, connector output and LLM states equal those of the published code."""

import numpy as np
import pytest
import torch

import lusifer
from lusifer.model import adapters
from lusifer.model.lusifer import LusiferModel, pool
from lusifer.model.published import published_prompt, read
from lusifer.sharing.convert import convert

TOLERANCE = 2e-5
KINDS = ("lora", "nolora")
CASES = ("q_instr", "c_instr", "q_none", "c_none", "q_instr_max24")


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module", params=(True, False), ids=("merged", "unmerged"))
def model(request, checkpoints, kind):
    model = read(checkpoints / f"lusifer-{kind}", compat=True).model
    if request.param:
        adapters.merge(model)
    return model


@pytest.mark.parametrize("case", CASES)
def test_vectors_from_ids(model, kind, case, numbers, ids):
    arrays = numbers("encode", kind)
    with torch.no_grad():
        out = model(ids(arrays[f"{case}/input_ids"]), ids(arrays[f"{case}/attention_mask"]))
    pooled = pool(out.last_hidden_state, out.attention_mask, "mean")
    assert np.abs(out.embedding.numpy() - arrays[f"{case}/embedding"]).max() < TOLERANCE
    assert np.abs(pooled.numpy() - arrays[f"{case}/pooled"]).max() < TOLERANCE


@pytest.mark.parametrize("case", ("q_instr", "c_none"))
def test_states_on_the_way(case, checkpoints, numbers, ids):
    arrays = numbers("encode", "lora")
    model = read(checkpoints / "lusifer-lora", compat=True).model
    rows = 6 if case == "q_instr" else 16
    input_ids, mask = (ids(arrays[f"{case}/{key}"])[:rows] for key in ("input_ids", "attention_mask"))
    with torch.no_grad():
        universal = model.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        prompt = model.soft_prompt(input_ids, mask)
        llm = model.run_llm(*prompt)
    real = prompt.attention_mask.bool()
    assert np.abs(universal[mask.bool()].numpy() - arrays[f"{case}/universal"]).max() < TOLERANCE
    assert np.abs(prompt.inputs_embeds[real].numpy() - arrays[f"{case}/connector"]).max() < TOLERANCE
    assert np.abs(llm[real].numpy() - arrays[f"{case}/llm"]).max() < TOLERANCE


@pytest.fixture(scope="module")
def embedder(checkpoints, kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compat") / kind
    convert(checkpoints / f"lusifer-{kind}", folder, compat=True)
    return lusifer.load(folder, device="cpu")


@pytest.mark.parametrize("case", CASES[:4])
def test_vectors_from_texts_through_a_converted_folder(embedder, kind, case, numbers, inputs):
    arrays, texts = numbers("encode", kind), inputs["texts"]
    instruction = inputs["instruction"] if case.endswith("_instr") else None
    prompt = published_prompt(instruction, "query" if case.startswith("q_") else "document")
    assert prompt + texts[0] + "</s>" == inputs["first_formatted"][case]

    features = embedder.preprocess(texts, prompt=prompt)
    stored = arrays[f"{case}/input_ids"]
    padded = np.ones_like(stored)
    padded[:, : features["input_ids"].shape[1]] = features["input_ids"].numpy()
    assert (padded == stored).all()

    vectors = embedder.encode(texts, prompt=prompt, batch_size=len(texts))
    assert np.abs(vectors - arrays[f"{case}/embedding"]).max() < TOLERANCE
    if f"{case}_single/embedding" in arrays:
        alone = embedder.encode(texts, prompt=prompt, batch_size=1)
        assert np.abs(alone - arrays[f"{case}_single/embedding"]).max() < TOLERANCE


def test_a_converted_folder_uses_the_forms_without_instruction_by_default(embedder, kind, numbers, inputs):
    arrays, texts = numbers("encode", kind), inputs["texts"]
    for encode, case in (
        (embedder.encode, "q_none"), (embedder.encode_query, "q_none"), (embedder.encode_document, "c_none"),
    ):  # fmt: skip
        assert np.abs(encode(texts, batch_size=16) - arrays[f"{case}/embedding"]).max() < TOLERANCE


def test_a_text_that_is_cut_keeps_its_final_token(checkpoints):
    tokenizer = read(checkpoints / "lusifer-nolora", compat=True).tokenizer
    cut = tokenizer("<s>.\n" + "water " * 99, truncation=True, max_length=24)["input_ids"]
    assert len(cut) == 24
    assert (cut[0], cut[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def worst(model: LusiferModel, arrays: dict, ids) -> float:
    """The largest difference from the published vectors of one case."""
    with torch.no_grad():
        found = model(ids(arrays["q_instr/input_ids"]), ids(arrays["q_instr/attention_mask"])).embedding
    return float(np.abs(found.numpy() - arrays["q_instr/embedding"]).max())


class TestMutations:
    """What is wrong must show: each change below moves a vector by far more than the tolerance."""

    @pytest.fixture
    def model(self, checkpoints):
        return read(checkpoints / "lusifer-lora", compat=True).model

    def test_causal_attention(self, model, numbers, ids):
        model.llm.config.is_causal = True
        assert worst(model, numbers("encode", "lora"), ids) > 50 * TOLERANCE

    def test_soft_token_left_out_of_the_mean(self, model, numbers, ids, monkeypatch):
        def without_soft_token(states, mask, *args):
            return pool(states[:, :-1], mask[:, :-1], *args)

        monkeypatch.setattr("lusifer.model.lusifer.pool", without_soft_token)
        assert worst(model, numbers("encode", "lora"), ids) > 50 * TOLERANCE

    def test_lora_scale_of_one(self, checkpoints, tmp_path, numbers, ids, change_json, copy_checkpoint):
        folder = copy_checkpoint("lusifer-lora")
        change_json(folder / "config.json", lora_alpha=16)
        model = read(folder, compat=True, **bases(checkpoints)).model
        assert worst(model, numbers("encode", "lora"), ids) > 50 * TOLERANCE

    def test_wrong_rope_theta(self, checkpoints, copy_checkpoint, change_json, numbers, ids):
        llm = copy_checkpoint("backbones/tiny-mistral")
        change_json(llm / "config.json", rope_theta=10000.0)
        model = read(checkpoints / "lusifer-lora", compat=True, **(bases(checkpoints) | {"llm": str(llm)})).model
        assert worst(model, numbers("encode", "lora"), ids) > 50 * TOLERANCE

    def test_padding_to_the_longest(self, model, numbers, ids):
        arrays = dict(numbers("encode", "lora"))
        longest = int(arrays["q_instr/attention_mask"].sum(1).max())
        assert longest % 8
        for key in ("input_ids", "attention_mask"):
            arrays[f"q_instr/{key}"] = arrays[f"q_instr/{key}"][:, :longest]
        assert worst(model, arrays, ids) < TOLERANCE
        model.config.pad_to_multiple_of = None
        assert worst(model, arrays, ids) > 50 * TOLERANCE


def bases(checkpoints):
    return {
        "encoder": str(checkpoints / "backbones" / "tiny-xlm-roberta"),
        "llm": str(checkpoints / "backbones" / "tiny-mistral"),
    }
