"""JSON files: what is wrong with one is said with its name and what to do."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lusifer.errors import DataError, ModelFolderError
from lusifer.io.files import read_json, sha256, write_file, write_folder, write_json


def test_a_value_comes_back_and_a_byte_order_mark_is_no_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b.json"
    write_json(file, {"घर": [1, None]})
    assert read_json(file, "copy it again") == {"घर": [1, None]}
    assert "घर" in file.read_text(encoding="utf-8")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_json(file, "copy it again", kind=dict) == {"घर": [1, None]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "missing; copy it again"),
        (b"{", r"damaged \(.*\); copy it again"),
        (b"\xff{}", r"damaged \(.*\); copy it again"),
        (b"[" * 100_000 + b"]" * 100_000, r"damaged \(.*\); copy it again"),
        (b"[]", "damaged, not a JSON object; copy it again"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "a.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelFolderError, match=rf"a\.json: {words}"):
        read_json(file, "copy it again", ModelFolderError, dict)
    if content != b"[]":
        with pytest.raises(DataError):
            read_json(file, "copy it again")


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc" * 100_000)
    assert sha256(file) == hashlib.sha256(b"abc" * 100_000).hexdigest()


KILLED = """
import os, signal, sys
from pathlib import Path
from lusifer.io import files
files._exchange = lambda one, other: False
rename = os.rename
def killed(one, other):
    if Path(other) == Path(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(one, other)
os.rename = killed
with files.write_folder(sys.argv[1]) as folder:
    (folder / "new").write_text("new")
"""


@pytest.mark.slow
def test_a_folder_whose_writer_was_killed_between_two_renames_is_put_back(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2 and not target.exists()
    with pytest.raises(KeyError), write_folder(target):
        assert [file.name for file in target.iterdir()] == ["old"]
        raise KeyError("the next writer fails as well")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_what_is_written_may_be_read_by_whom_the_umask_allows(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with write_folder(tmp_path / "folder") as folder, write_file(tmp_path / "a.safetensors") as file:
            (folder / "part").mkdir()
            for each in (folder / "part" / "b.safetensors", file):
                save_file({"w": torch.zeros(2)}, each)  # of the library: its owner alone may read it
                each.chmod(0o600)
    finally:
        os.umask(before)
    for each in (tmp_path / "folder" / "part" / "b.safetensors", tmp_path / "a.safetensors"):
        assert each.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("name", ["a" * 250 + ".txt", "é" * 124 + ".txt", "a" + "é" * 124 + ".txt"])
def test_a_name_may_be_as_long_as_a_disk_allows(tmp_path: Path, name: str) -> None:
    with write_file(tmp_path / name) as file:
        file.write_text("one")
        assert file.name.encode()  # whole characters, which some libraries ask for
    assert [each.name for each in tmp_path.iterdir()] == [name]
    with write_folder(tmp_path / name[:-4]) as folder:
        (folder / "a").touch()
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([name, name[:-4]])


def test_what_a_link_in_a_folder_points_to_keeps_its_rights(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "secret").chmod(0o600)
    with write_folder(tmp_path / "folder") as folder:
        (folder / "link").symlink_to(tmp_path / "secret")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
