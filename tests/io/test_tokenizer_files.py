"""Files of a tokenizer of odd shapes: one line names file, key and number of the token, whoever reads them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

import lusifer
from lusifer.embedder import folder
from lusifer.embedder.doctor import examine
from lusifer.errors import LusiferError, ModelFolderError
from lusifer.io import hub, tokenizer_files
from lusifer.model.bases import tokenizer as reading
from lusifer.model.bases.tokenizer import read_tokenizer
from lusifer.model.published import published_tokenizer

WHOLE, CONFIG = "tokenizer.json", "tokenizer_config.json"
NAMED, NUMBERS = "special_tokens_map.json", "added_tokens.json"
TOKEN = {"__type": "AddedToken", "content": "<s>"}
LEFT_OUT = object()
Keys = tuple[Any, ...]
ODD: list[tuple[str, Keys, Any, str]] = [
    (WHOLE, ("added_tokens",), {}, r"added_tokens=\{\}: expected a list of tokens"),
    (WHOLE, ("added_tokens",), None, "added_tokens=None: expected a list"),
    (WHOLE, ("added_tokens", 1), 3, r"added_tokens\[1\]=3: expected an object with its content"),
    (WHOLE, ("added_tokens", 2), [], r"added_tokens\[2\]=\[\]: expected an object"),
    (WHOLE, ("added_tokens", 2, "content"), LEFT_OUT, r"added_tokens\[2\] has no content"),
    (WHOLE, ("added_tokens", 0, "content"), 3, r"added_tokens\[0\].content=3: expected a string"),
    (WHOLE, ("added_tokens", 0, "special"), "yes", r"added_tokens\[0\].special='yes': expected true or false"),
    (WHOLE, ("added_tokens", 0, "lstrip"), LEFT_OUT, r"added_tokens\[0\] has no lstrip"),
    (WHOLE, ("added_tokens", 0, "id"), LEFT_OUT, r"added_tokens\[0\] has no id"),
    (WHOLE, ("added_tokens", 0, "id"), -1, r"added_tokens\[0\].id=-1: expected the number of a token"),
    (WHOLE, ("normalizer",), {}, r"no tokenizer \(data did not match"),
    (WHOLE, ("model", "vocab"), {"a": 1}, r"no tokenizer \("),
    (CONFIG, ("added_tokens_decoder",), ["<s>"], "added_tokens_decoder=.*: expected an object with an object for"),
    (CONFIG, ("added_tokens_decoder",), {"7": 3}, "added_tokens_decoder.7=3: expected an object with its content"),
    (CONFIG, ("added_tokens_decoder",), {"7": {"content": 3}}, "added_tokens_decoder.7.content=3: expected a string"),
    (CONFIG, ("added_tokens_decoder",), {"x": {"content": "a"}}, "added_tokens_decoder has the key 'x': expected the"),
    (CONFIG, ("bos_token",), 3, "bos_token=3: expected a string, or an object"),
    (CONFIG, ("bos_token",), ["<s>"], r"bos_token=\['<s>'\]: expected a string, or an object"),
    (CONFIG, ("bos_token",), {"content": "<s>"}, "bos_token=.*: expected a string, or .* with its .* and __type"),
    (CONFIG, ("bos_token",), TOKEN | {"rstrip": 1}, "bos_token.rstrip=1: expected true or false"),
    (CONFIG, ("extra_special_tokens",), 3, "extra_special_tokens=3: expected a list of tokens"),
    (CONFIG, ("extra_special_tokens",), ["a", None], r"extra_special_tokens\[1\]=None: expected a string"),
    (CONFIG, ("additional_special_tokens",), {"a": []}, r"additional_special_tokens\['a'\]=\[\]: expected a string"),
    (CONFIG, ("model_specific_special_tokens",), ["a"], "model_specific_special_tokens=.*: expected an object"),
    (CONFIG, ("truncation_side",), "up", "truncation_side='up': expected \"left\" or \"right\""),
    (CONFIG, ("model_max_length",), "64", "model_max_length='64': expected a number, 1 or more"),
    (CONFIG, ("tokenizer_class",), 3, "tokenizer_class=3: expected a string"),
    (CONFIG, ("auto_map",), 3, r"no tokenizer \(AttributeError: "),
    (CONFIG, (), [], "not a JSON object"),
    (NAMED, (), {"bos_token": 3}, "bos_token=3: expected a string"),
    (NAMED, (), {"bos_token": {"content": 3}}, "bos_token.content=3: expected a string"),
    (NAMED, (), {"additional_special_tokens": "<s>"}, "additional_special_tokens='<s>': expected a list"),
    (NAMED, (), ["<s>"], "not a JSON object"),
    (NUMBERS, (), {"<a>": [7]}, r"'<a>'=\[7\]: expected the number of a token"),
    (NUMBERS, (), 3, "not a JSON object"),
]  # fmt: skip


def change(file: Path, keys: Keys, value: Any) -> None:
    if not keys:
        file.write_text(json.dumps(value))
        return
    said = place = json.loads(file.read_text())
    for key in keys[:-1]:
        place = place[key]
    if value is LEFT_OUT:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    file.write_text(json.dumps(said))


def refused(work: Callable[[], object], kind: type[LusiferError]) -> str:
    with pytest.raises(kind) as error:
        work()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("name", "keys", "value", "words"), ODD)
def test_what_is_odd_is_named_by_whoever_reads_it(
    name: str, keys: Keys, value: object, words: str, encoder_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    base, model = (shutil.copytree(source, tmp_path / source.name) for source in (encoder_folder, model_folder))
    for place in (base, model):
        change(place / name, keys, value)
    said = refused(lambda: read_tokenizer(str(base)), LusiferError)
    assert re.fullmatch(rf"{base / name}: damaged, {words}.*; correct it, or fetch the folder again", said)
    for quick in (False, True):
        said = refused(lambda quick=quick: folder.load(model, "cpu", vectors_only=quick), ModelFolderError)
        assert re.fullmatch(rf"{model / name}: damaged, {words}.*; copy or save the folder again", said)
    probe = examine(model, "cpu")[-1]
    assert not probe.ok and re.fullmatch(rf"{model / name}: damaged, {words}.*", probe.detail)


def test_a_token_without_content_beside_a_whole_tokenizer_is_refused_in_a_model(
    model_folder: Path, tmp_path: Path
) -> None:
    """transformers takes it for an empty text."""
    model = shutil.copytree(model_folder, tmp_path / "model")
    for key in ("added_tokens_decoder", "bos_token"):
        change(model / CONFIG, (key,), {"7": {}} if key == "added_tokens_decoder" else {"__type": "AddedToken"})
        said = refused(lambda: lusifer.load(model), ModelFolderError)
        assert re.search(rf"{CONFIG}: damaged, {key}[.7]* has no content; copy", said)
        change(model / CONFIG, (key,), LEFT_OUT)


def test_an_embedder_of_another_kind_and_the_published_reading(minilm_like_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    SentenceTransformer(str(minilm_like_folder), device="cpu").save(str(other))
    change(other / WHOLE, ("added_tokens", 0, "content"), LEFT_OUT)
    words = re.escape(f"{other / WHOLE}: damaged, added_tokens[0] has no content; ")
    assert re.match(words + "copy", refused(lambda: lusifer.load(other), ModelFolderError))
    assert re.match(words + "correct", refused(lambda: published_tokenizer(str(other)), LusiferError))


def test_of_a_name_on_the_hub_the_file_in_the_cache_is_named(
    encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = shutil.copytree(encoder_folder, tmp_path / "snapshots" / "abc")
    change(cached / WHOLE, ("added_tokens", 1, "content"), LEFT_OUT)
    monkeypatch.setattr(hub, "commit", lambda name, revision=None: "abc")
    read = AutoTokenizer.from_pretrained
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name, revision, **more: read(cached, **more))
    monkeypatch.setattr(reading, "cached_file", lambda name, file, **more: str(cached / file))
    said = refused(lambda: read_tokenizer("somebody/base"), LusiferError)
    assert said.startswith(f"{cached / WHOLE}: damaged, added_tokens[1] has no content; ")


def test_what_is_sound_has_no_fault(encoder_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    for place in (encoder_folder, model_folder):
        assert tokenizer_files.fault(place, "") is None and tokenizer_files.missing(place) is None
    base = shutil.copytree(encoder_folder, tmp_path / "base")
    for key, value in (("extra_special_tokens", ["<a>", TOKEN]), ("model_max_length", 1e30), ("bos_token", TOKEN)):
        change(base / CONFIG, (key,), value)
    change(base / NAMED, (), {"bos_token": {"content": "<s>"}, "additional_special_tokens": ["<a>"]})
    assert tokenizer_files.fault(base, "") is None
    assert read_tokenizer(str(base)).bos_token == "<s>"
