"""Stage 1's examples and batches: pure functions of seed and number, and special tokens only where they belong."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lusifer.errors import UsageError
from lusifer.model.build import read_safely
from lusifer.training.objectives import OBJECTIVES
from lusifer.training.objectives.examples import IGNORED, AlignmentCollator, AlignmentExamples

PASSAGES = Dataset.from_dict({"text": [f"passage {n}" for n in range(7)]})
PAIRS = Dataset.from_dict({"query": [f"q{n}" for n in range(5)], "positive": [[f"p{n}", f"r{n}"] for n in range(5)]})


def examples(
    objectives: dict[str, float], steps: int = 20, batch_size: int = 4, seed: int = 0, **kw
) -> AlignmentExamples:  # noqa: ANN003
    sources = kw.get("sources", [(PASSAGES, "reconstruct"), (PAIRS, "passage_and_query")])
    return AlignmentExamples(sources, objectives, batch_size=batch_size, steps=steps, seed=seed)


def test_an_example_depends_on_seed_and_number_only() -> None:
    weights = {"reconstruction": 1, "completion": 2}
    once = examples(weights)
    whole = [once[index] for index in range(len(once))]
    again = examples(weights)
    backwards = [again[index] for index in reversed(range(len(again)))][::-1]
    assert whole == backwards
    longer = examples(weights, steps=50)
    assert [longer[index] for index in range(len(once))] == whole
    other = examples(weights, seed=1)
    assert [other[index] for index in range(len(other))] != whole
    with pytest.raises(IndexError):
        once[len(once)]


def test_a_step_has_one_objective_and_steps_follow_the_weights() -> None:
    rows = examples({"reconstruction": 1, "completion": 3}, steps=2000, batch_size=2)
    steps = [{rows[2 * step]["objective"], rows[2 * step + 1]["objective"]} for step in range(2000)]
    assert all(len(step) == 1 for step in steps)
    share = sum(step == {"completion"} for step in steps) / 2000
    assert 0.7 < share < 0.8


def test_every_row_comes_once_an_epoch_in_a_new_order() -> None:
    rows = examples({"reconstruction": 1}, steps=7, batch_size=3)
    read = [rows[index]["source_text"] for index in range(21)]
    epochs = [read[0:7], read[7:14], read[14:21]]
    assert all(sorted(epoch) == sorted(PASSAGES["text"][:]) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [rows[index]["epoch"] for index in (0, 6, 7, 20)] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("passage_and_query", {("q", "p"): 0.3, ("p", "p"): 0.28, ("p", "q"): 0.42}),
        ("query_to_passage", {("q", "q"): 0.1, ("q", "p"): 0.9}),
    ],
)
def test_completion_mixes_directions_as_published(role: str, expected: dict) -> None:
    rows = examples({"completion": 1}, steps=4000, batch_size=1, sources=[(PAIRS, role)])
    seen: Counter = Counter()
    for index in range(len(rows)):
        example = rows[index]
        source, target = example["source_text"], example["target_text"]
        assert source[1:] == target[1:]  # of one row
        seen["q" if source[0] == "q" else "p", "q" if target[0] == "q" else "p"] += 1
    assert set(seen) == set(expected)
    for key, share in expected.items():
        assert abs(seen[key] / len(rows) - share) < 0.03


def test_objectives_choose_their_rows() -> None:
    both = examples({"reconstruction": 1, "completion": 1, "distill": 1})
    sources = {name: {row["source_text"][0] for row in both if row["objective"] == name} for name in OBJECTIVES}
    assert sources == {"reconstruction": set("p"), "completion": set("qpr"), "distill": set("qpr")}
    epochs = {name: max(row["epoch"] for row in both if row["objective"] == name) for name in OBJECTIVES}
    read = {name: sum(row["objective"] == name for row in both) for name in OBJECTIVES}
    assert epochs == {name: (read[name] - 1) // rows for name, rows in zip(OBJECTIVES, (7, 5, 12), strict=True)}
    only = examples({"reconstruction": 1}, sources=[(PAIRS, "query_to_passage")])
    assert {row["source_text"][0] for row in only} == set("pr")
    distill = examples({"distill": 1})
    assert all(distill[index]["target_text"] is None for index in range(20))
    with pytest.raises(UsageError, match="objective completion has no rows"):
        examples({"completion": 1}, sources=[(PASSAGES, "reconstruct")])


@pytest.fixture(scope="module")
def tokenizers(
    xlmr_tokenizer: PreTrainedTokenizerFast, llm_tokenizer: PreTrainedTokenizerFast
) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    return read_safely(xlmr_tokenizer), read_safely(llm_tokenizer)


def example(text: str, index: int = 0, objective: str = "reconstruction") -> dict:
    return {"index": index, "epoch": 0, "objective": objective, "source_text": text, "target_text": text}


def test_batch_has_bos_text_eos_and_labels_of_the_unmasked_text(tokenizers) -> None:  # noqa: ANN001
    encoder, llm = tokenizers
    collate = AlignmentCollator(encoder, llm, 64, mask_probability=0.0)
    batch = collate([example("The river rises in spring."), example("Yes.", 1)])
    assert batch["objective"] == "reconstruction"
    ids, mask, labels = batch["target_ids"], batch["target_attention_mask"], batch["labels"]
    assert ids.shape == mask.shape == labels.shape and ids.dtype == torch.long
    lengths = mask.sum(1)
    assert lengths[1] < lengths[0] == ids.shape[1]
    for row in range(2):
        real = ids[row, : lengths[row]].tolist()
        assert real[0] == llm.bos_token_id and real[-1] == llm.eos_token_id
        assert labels[row, 0] == IGNORED and labels[row, 1 : lengths[row]].tolist() == real[1:]
        assert (labels[row, lengths[row] :] == IGNORED).all() and not mask[row, lengths[row] :].any()
    assert llm.decode(ids[0, 1:-1]).strip() == "The river rises in spring."
    inputs = batch["input_ids"][0]
    assert inputs[0] == encoder.bos_token_id and inputs[-1] == encoder.eos_token_id
    assert (batch["input_ids"][1][batch["attention_mask"][1] == 0] == encoder.pad_token_id).all()


def test_masks_depend_on_the_example_alone_and_spare_bos_and_labels(tokenizers) -> None:  # noqa: ANN001
    encoder, llm = tokenizers
    text = "A loaf keeps cooking after it leaves the oven. " * 3
    collate = AlignmentCollator(encoder, llm, 128, mask_probability=0.5, seed=3)
    alone, others = collate([example(text, 7)]), collate([example("Short.", 1), example(text, 7)])
    for key in ("target_ids", "target_attention_mask", "labels"):
        assert torch.equal(alone[key][0], others[key][1])
    plain = AlignmentCollator(encoder, llm, 128, mask_probability=0.0)([example(text, 7)])
    assert torch.equal(alone["labels"], plain["labels"])
    hidden = alone["target_ids"] != plain["target_ids"]
    assert (alone["target_ids"][hidden] == (llm.mask_token_id or llm.unk_token_id)).all()
    unseen = alone["target_attention_mask"] == 0
    assert not hidden[0, 0] and not unseen[0, 0]
    assert 0.3 < hidden.float().mean() < 0.7 and 0.3 < unseen.float().mean() < 0.7
    assert not torch.equal(hidden, unseen)  # drawn apart
    assert not torch.equal(collate([example(text, 8)])["target_ids"], alone["target_ids"])
    keys_only = AlignmentCollator(encoder, llm, 128, mask_probability=0.0, attention_mask_probability=1.0)
    batch = keys_only([example(text)])
    assert torch.equal(batch["target_ids"], plain["target_ids"])
    assert batch["target_attention_mask"].tolist()[0] == [1] + [0] * (batch["target_ids"].shape[1] - 1)


def test_long_texts_are_cut_and_keep_their_final_tokens(tokenizers) -> None:  # noqa: ANN001
    encoder, llm = tokenizers
    batch = AlignmentCollator(encoder, llm, 10, mask_probability=0.0)([example("word " * 100)])
    assert batch["input_ids"].shape == batch["target_ids"].shape == (1, 10)
    assert batch["input_ids"][0, -1] == encoder.eos_token_id
    assert batch["target_ids"][0, -1] == llm.eos_token_id and batch["labels"][0, -1] == llm.eos_token_id


def test_distill_reads_the_text_as_the_llm_itself_does(tokenizers) -> None:  # noqa: ANN001
    encoder, llm = tokenizers
    batch = AlignmentCollator(encoder, llm, 64)([example("One.", 0, "distill"), example("Two, three.", 1, "distill")])
    assert set(batch) == {"objective", "input_ids", "attention_mask", "teacher_ids", "teacher_attention_mask"}
    own = llm("Two, three.")["input_ids"]
    assert batch["teacher_ids"][1].tolist() == own and batch["teacher_attention_mask"][0].sum() < len(own)
    with pytest.raises(ValueError, match="one objective"):
        AlignmentCollator(encoder, llm, 64)([example("a", 0, "distill"), example("b", 1)])


def test_the_teacher_reads_as_much_of_a_text_as_the_encoder(tokenizers) -> None:  # noqa: ANN001
    encoder, llm = tokenizers
    text = "A loaf keeps cooking after it leaves the oven. " * 9
    collate = AlignmentCollator(encoder, llm, 16, teacher_length=256)
    batch = collate([example(text, 0, "distill"), example("Two, three.", 1, "distill")])
    read = encoder.decode(batch["input_ids"][0], skip_special_tokens=True)
    assert text.startswith(read) and len(read) < len(text) and batch["input_ids"].shape[1] == 16
    assert batch["teacher_ids"][0].tolist() == llm(read)["input_ids"]
    assert batch["teacher_ids"][1][batch["teacher_attention_mask"][1] == 1].tolist() == llm("Two, three.")["input_ids"]


def test_a_teacher_that_reads_less_keeps_its_limit(tokenizers) -> None:  # noqa: ANN001
    encoder, llm = tokenizers
    batch = AlignmentCollator(encoder, llm, 64, teacher_length=8)([example("word " * 100, 0, "distill")])
    assert batch["teacher_ids"].shape == (1, 8)


SPECIALS = ["<s>", "</s>", "<mask>", "<pad>", "\uff1c/s\uff1e"]


@given(st.lists(st.one_of(st.sampled_from(SPECIALS), st.text("ab c.", min_size=1, max_size=4)), min_size=1, max_size=6))
def test_special_tokens_inside_a_text_are_text(tokenizers, parts: list[str]) -> None:  # noqa: ANN001
    encoder, llm = tokenizers
    batch = AlignmentCollator(encoder, llm, 64, mask_probability=0.0)([example("".join(parts))])
    for tokenizer, key in ((encoder, "input_ids"), (llm, "target_ids")):
        inner = set(batch[key][0, 1:-1].tolist())
        assert not inner & (set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})


def test_masking_needs_some_token_to_mask_with(tokenizers) -> None:  # noqa: ANN001
    encoder, llm = tokenizers
    bare = PreTrainedTokenizerFast(tokenizer_object=llm.backend_tokenizer)
    with pytest.raises(UsageError, match="mask_probability: 0"):
        AlignmentCollator(encoder, bare, 64, mask_probability=0.5)
    AlignmentCollator(encoder, bare, 64, mask_probability=0.0)


def test_token_dropout_leaves_gaps_in_what_the_encoder_reads_and_none_in_the_target(tokenizers) -> None:  # noqa: ANN001
    encoder, llm = tokenizers
    text = "A loaf keeps cooking after it leaves the oven. " * 3
    whole = AlignmentCollator(encoder, llm, 128, mask_probability=0.0)([example(text, 7)])
    collate = AlignmentCollator(encoder, llm, 128, mask_probability=0.0, token_dropout=0.6, seed=3)
    kept = []
    for index in range(200):
        batch = collate([example(text, index)])
        ids, full = batch["input_ids"][0].tolist(), iter(whole["input_ids"][0].tolist())
        assert all(number in full for number in ids)  # what is left stands in the old order
        assert (ids[0], ids[-1]) == (encoder.bos_token_id, encoder.eos_token_id)
        assert torch.equal(batch["target_ids"], whole["target_ids"])
        kept.append(len(ids) / whole["input_ids"].shape[1])
    assert max(kept) > 0.95 and min(kept) < 0.5 and 0.6 < sum(kept) / len(kept) < 0.8  # 0.7 is the mean of the shares
    alone, others = collate([example(text, 7)]), collate([example("Short.", 1), example(text, 7)])
    width = alone["input_ids"].shape[1]
    assert torch.equal(alone["input_ids"][0], others["input_ids"][1, :width])


def test_token_dropout_leaves_something_of_every_text(tokenizers) -> None:  # noqa: ANN001
    encoder, llm = tokenizers
    collate = AlignmentCollator(encoder, llm, 16, mask_probability=0.0, token_dropout=0.99)
    assert all(collate([example("a", index)])["input_ids"].shape[1] >= 3 for index in range(100))
