"""Names of files: folders with the signs of a pattern, endings in capitals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lusifer.cli import main
from lusifer.data import sources
from lusifer.data.sources import SourceSpec, load, short_name
from lusifer.data.tables import write_rows
from lusifer.errors import UsageError
from lusifer.training.estimate.cost import _count

ROW = '{"text": "The ferry leaves at noon."}\n'


@pytest.mark.parametrize("folder", ["[a]", "x[0-9]y", "[", "]", "[!a]", "data*", "what?", "a[[]b", "[a][b]"])
@pytest.mark.parametrize("pattern", ["x1.jsonl", "x?.jsonl", "*.jsonl", "x[12].jsonl", "**/x1.jsonl"])
def test_a_folder_may_have_the_signs_of_a_pattern(folder: str, pattern: str, tmp_path: Path) -> None:
    (tmp_path / folder / "[deep]").mkdir(parents=True)
    file = tmp_path / folder / "x1.jsonl"
    file.write_text(ROW)
    assert file in sources.files(f"{tmp_path}/{folder}/{pattern}")
    assert len(load(SourceSpec(path=f"{tmp_path}/{folder}/{pattern}"), "passages")) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(alphabet="ab[]!-", min_size=1, max_size=6))
def test_any_folder_with_brackets_is_found_before_a_pattern(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "all" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text(ROW)
    assert sources.files(f"{folder}/*.jsonl") == sources.files(f"{folder}/rows.jsonl") == [folder / "rows.jsonl"]


def test_brackets_that_are_no_name_stay_a_pattern(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(ROW)
    assert [file.parent.name for file in sources.files(f"{tmp_path}/[ab]/*.jsonl")] == ["a", "b"]
    with pytest.raises(UsageError, match="nothing matches the pattern"):
        sources.files(f"{tmp_path}/[xy]/*.jsonl")


@pytest.mark.parametrize("ending", [".JSONL", ".Jsonl.GZ", ".jsonl.Gz", ".PARQUET", ".Parquet"])
def test_endings_in_capitals_are_written_and_read(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small = tmp_path / f"small{ending.lower()}"
    write_rows(small, [{"text": "a", "source": None}], "passages")
    output = tmp_path / f"X{ending}"
    assert main(["data", "dedup", str(small), "--output", str(output)]) == 0
    assert output.read_bytes() == small.read_bytes()
    assert load(SourceSpec(path=str(output)), "passages")["text"][:] == ["a"]
    assert short_name(str(output), None) == "X" and _count(output) == 1
    assert main(["data", "dedup", str(small), "--against", str(output), "--output", str(tmp_path / "o.jsonl")]) == 0


@pytest.mark.parametrize("ending", [".CSV", ".csv.GZ"])
def test_csv_in_capitals_is_csv(ending: str, tmp_path: Path) -> None:

    content = b'query,positive\na,"[""b"", ""c""]"\n'
    file = tmp_path / f"X{ending}"
    file.write_bytes(gzip.compress(content, mtime=0) if ending.endswith("GZ") else content)
    assert load(SourceSpec(path=str(file)), "pairs")["positive"][:] == [["b", "c"]]
    assert _count(file) == 1


def test_a_list_of_python_in_capitals_is_refused_too(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "X.JSONL"
    file.write_text(json.dumps({"query": "a", "positive": "['b', 'c']"}) + "\n")
    assert main(["data", "inspect", str(file)]) == 1
    assert "a Python list" in capsys.readouterr().err
