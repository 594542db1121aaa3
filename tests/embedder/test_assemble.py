import numpy as np
import pytest
import torch

from lusifer.embedder.assemble import assemble, lusifer_model
from lusifer.errors import UsageError
from lusifer.model import adapters
from support.tiny_folder import tiny_embedder

TEXTS = ["Water.", "The train was late, so we walked home through the park.", "Сколько воды нужно?", "水"]


@pytest.fixture(scope="module")
def embedder(bases_folder):
    return tiny_embedder(bases_folder)


def test_vectors_have_length_one_and_do_not_depend_on_the_batch(embedder):
    vectors = embedder.encode(TEXTS, batch_size=4)
    assert vectors.shape == (4, 48) == (4, embedder.get_embedding_dimension())
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for size in (1, 2, 3):
        assert np.abs(embedder.encode(TEXTS, batch_size=size) - vectors).max() < 1e-6
    assert np.abs(embedder.encode(TEXTS[::-1])[::-1] - vectors).max() < 1e-6


def test_without_normalisation_the_model_itself_answers(bases_folder):
    embedder = tiny_embedder(bases_folder)
    model, tokenizer = lusifer_model(embedder), embedder.tokenizer
    plain = assemble(model, tokenizer, normalize=False)
    with torch.no_grad():
        wanted = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).embedding.numpy()
    assert np.abs(plain.encode(TEXTS) - wanted).max() < 1e-6


def test_a_prompt_is_the_text_put_before(embedder):
    with_prompt = embedder.encode(TEXTS, prompt_name="passage")
    assert np.abs(with_prompt - embedder.encode([f"Find: {text}" for text in TEXTS])).max() < 1e-6
    assert np.abs(embedder.encode_query(TEXTS) - embedder.encode(TEXTS)).max() < 1e-6


def test_nothing_is_copied_and_training_reaches_the_model(bases_folder):
    embedder = tiny_embedder(bases_folder)
    model = lusifer_model(embedder)
    before = embedder.encode(TEXTS)
    adapters.attach(model, "llm", 2, 4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.fill_(0.1)
    assert np.abs(embedder.encode(TEXTS) - before).max() > 1e-3


def test_a_long_text_is_cut_to_the_limit_and_keeps_its_final_token(embedder):
    features = embedder.preprocess(["water " * 500])
    assert features["input_ids"].shape == (1, 64)
    assert features["input_ids"][0, -1] == embedder.tokenizer.eos_token_id
    assert np.isfinite(embedder.encode("water " * 100_000)).all()


def test_a_special_token_in_a_text_is_text(embedder):
    tokenizer = embedder.tokenizer
    for token in ("</s>", "<s>", "<mask>", "<pad>"):
        ids = embedder.preprocess([f"a {token} b"])["input_ids"][0].tolist()
        assert ids.count(tokenizer.eos_token_id) == 1
        assert tokenizer.mask_token_id not in ids
        assert tokenizer.pad_token_id not in ids


def test_a_limit_beyond_the_positions_is_refused(bases_folder):
    with pytest.raises(UsageError, match="max_length: 257 is too large: the backbones read at most 256 tokens"):
        tiny_embedder(bases_folder, limit=257)
    assert tiny_embedder(bases_folder, limit=256).max_seq_length == 256
    assert tiny_embedder(bases_folder, limit=None).max_seq_length == 256


def test_another_kind_of_embedder_is_refused(minilm_like_folder):
    from sentence_transformers import SentenceTransformer

    with pytest.raises(UsageError, match="expected a LUSIFER model, found BertModel"):
        lusifer_model(SentenceTransformer(str(minilm_like_folder), device="cpu"))
