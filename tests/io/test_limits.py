"""No file costs more time than its length, or more memory than a row: neither a packed line without an end."""

from __future__ import annotations

import gzip
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lusifer.errors import DataError
from lusifer.index.documents import DocumentFile, DocumentFolder
from lusifer.io import rows
from lusifer.io.files import parse_json
from lusifer.serving.files import TextSource

TEXTS: dict[str, Callable[[int], bytes]] = {
    "a.txt": lambda size: b"one\n" + b"x" * size + b"\n",
    "a.jsonl": lambda size: b'{"text": "one"}\n{"text": "' + b"x" * size + b'"}\n',
    "a.csv": lambda size: b"text\n" + b"x" * size + b"\n",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", TEXTS)
def test_a_line_without_an_end_is_refused_and_not_held(
    name: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MOST_IN_A_LINE", 1000)
    file = tmp_path / (f"{name}.gz" if packed else name)
    for size, taken in ((900, True), (5000, False)):
        content = TEXTS[name](size)
        file.write_bytes(gzip.compress(content, mtime=0) if packed else content)
        for work in (TextSource(str(file)).check, lambda: list(DocumentFile(str(file)).documents())):
            if taken:
                work()
                continue
            with pytest.raises(DataError, match=rf"{file.name} line 2: longer than 1,000 bytes: end each row"):
                work()


def test_packed_standard_input_is_unpacked_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_IN_A_LINE", 1000)
    content = gzip.compress(b"one\n" + b"x" * 10**7, mtime=0)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    source = TextSource("-")
    assert len(source._data) < 10**5
    with pytest.raises(DataError, match="standard input line 2: longer than 1,000 bytes"):
        source.check()


def test_a_document_that_is_no_text_is_named_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as stream:
        stream.truncate(10**12)  # of nothing: it needs no room on the disk
    with pytest.raises(DataError, match=r"a\.txt: more than 67,108,864 bytes"):
        list(DocumentFolder(str(tmp_path)).documents())


def test_a_name_that_is_there_twice_among_many_is_found_in_one_pass(tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(50_000)]
    begun = time.process_time()
    with pytest.raises(ValueError, match="duplicate key 'n49999'"):
        parse_json(json.dumps(dict.fromkeys(names, 0)).encode()[:-1] + b', "n49999": 1}')
    (tmp_path / "a.csv").write_text(",".join([*names, "n49999"]) + "\n")
    with pytest.raises(DataError, match="line 1: duplicate column 'n49999'"):
        list(rows.rows(tmp_path / "a.csv"))
    assert time.process_time() - begun < 5  # a pass for each name took 40 s
