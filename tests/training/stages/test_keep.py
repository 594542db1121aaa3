"""`distill` beside the loss of stage 2: the loss written out, what the teacher reads, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer, models
from torch.nn import functional

from lusifer.errors import UsageError
from lusifer.training.objectives.reading import TeacherInputs
from lusifer.training.stages.contrastive import PairCollator, loss
from lusifer.training.stages.losses import Keep
from support.small_run import train
from support.tiny_folder import tiny_embedder
from support.training import ROWS, features, stage


@pytest.fixture(scope="module")
def teacher(bases_folder: tuple[Path, Path]) -> SentenceTransformer:
    """The tiny LLM as an embedder."""
    word = models.Transformer(str(bases_folder[1]), max_seq_length=32)
    word.tokenizer.pad_token = word.tokenizer.eos_token
    pooling = models.Pooling(word.get_word_embedding_dimension())
    return SentenceTransformer(modules=[word, pooling], device="cpu").eval()


def batch(embedder: SentenceTransformer, teacher: SentenceTransformer, prompts: dict[str, str]) -> dict:
    collate = PairCollator(embedder.preprocess, prompts=prompts)
    collate.teacher = TeacherInputs(embedder.tokenizer, teacher.tokenizer, embedder.max_seq_length, 32)
    return collate([dict(zip(ROWS, row, strict=True)) for row in zip(*ROWS.values(), strict=True)])


def columns(made: dict) -> list[dict[str, torch.Tensor]]:
    return [{key[len(c) + 1 :]: v for key, v in made.items() if key.startswith(f"{c}_")} for c in ROWS]


@pytest.mark.parametrize("contrast", [0.0, 0.5])
@pytest.mark.parametrize(
    ("kind", "in_batch", "caches"),
    [("infonce", True, True), ("infonce", True, False), ("infonce", False, True), ("ntxent_l2", True, True)],
)
def test_what_it_adds_is_the_distance_from_the_teachers_vectors(
    bases_folder: tuple[Path, Path],
    teacher: SentenceTransformer,
    kind: str,
    in_batch: bool,
    caches: bool,
    contrast: float,
) -> None:
    embedder = tiny_embedder(bases_folder, 32).eval()

    def run(keep: Keep | None) -> tuple[float, dict[str, torch.Tensor]]:
        embedder.zero_grad()
        made = loss(stage(loss=kind, mini_batch_size=3, gradient_cache=caches), embedder, in_batch, keep)
        value = made(columns(batch(embedder, teacher, {})) if keep else features(embedder), None)
        value.backward()
        return value.item(), {name: p.grad.clone() for name, p in embedder.named_parameters() if p.grad is not None}

    alone, without = run(None)
    value, found = run(Keep(teacher, 2.0, contrast))
    embedder.zero_grad()
    ours, own = (
        torch.cat([functional.normalize(torch.as_tensor(each(f)["sentence_embedding"]), dim=-1) for f in given])
        for each, given in ((embedder, features(embedder)), (teacher, features(teacher)))
    )
    added = 1 - (ours * own).sum(-1).mean()
    if contrast:
        added = added + contrast * functional.cross_entropy(ours @ own.T / 0.05, torch.arange(len(own)))
    (2 * added).backward()
    assert value == pytest.approx(alone + 2 * added.item(), rel=1e-4)
    largest = max(gradient.abs().max() for gradient in found.values())
    for name, parameter in embedder.named_parameters():
        if parameter.grad is not None:
            assert (found[name] - without[name] - parameter.grad).abs().max() < 1e-4 * largest, name


def test_the_teacher_reads_the_text_alone_and_no_further_than_the_encoder(
    bases_folder: tuple[Path, Path], teacher: SentenceTransformer
) -> None:
    embedder = tiny_embedder(bases_folder, 20)
    collate = PairCollator(embedder.preprocess, prompts={"query": "Find: "})
    collate.teacher = TeacherInputs(embedder.tokenizer, teacher.tokenizer, embedder.max_seq_length, 32)
    long = "where does the river go in the end of the year and why does it go there"
    rows = [{"query": "short", "positive": "a text"}, {"query": long, "positive": long}]
    made = collate(rows)
    assert made["query_input_ids"].shape[1] == 20 and len(made["query_teacher_ids"]) == 2
    for column, prompt in (("query", "Find: "), ("positive", "")):
        offsets = embedder.tokenizer(prompt + long, truncation=True, max_length=20, return_offsets_mapping=True)
        end = max(end for _, end in offsets["offset_mapping"]) - len(prompt)
        shown = made[f"{column}_teacher_ids"][1][made[f"{column}_teacher_attention_mask"][1] == 1]
        assert shown.tolist() == teacher.tokenizer(long[:end], truncation=True, max_length=32)["input_ids"]
        first = made[f"{column}_teacher_ids"][0][made[f"{column}_teacher_attention_mask"][0] == 1]
        assert first.tolist() == teacher.tokenizer(rows[0][column])["input_ids"]
    assert 0 < end < len(long)


REFUSED = {
    "stages.contrast.distill=1": r"is no embedder .*: stages\.contrast\.distill needs one: set distill: 0",
    "stages.contrast.distill_contrast=1": r"distill_contrast needs distill",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_what_it_cannot_do_is_refused_at_once(recipe: Path, tmp_path: Path, setting: str) -> None:
    with pytest.raises(UsageError, match=REFUSED[setting]):
        train(recipe, tmp_path / "run", overrides=[setting])
    with pytest.raises(UsageError, match="matryoshka_dims and distill do not work together"):
        train(recipe, tmp_path / "run", overrides=["stages.contrast.distill=1", "stages.contrast.matryoshka_dims=[8]"])
