"""What a release is made of: one version in all its places, and metadata without a gap."""

import re
import tomllib
from pathlib import Path

from ruamel.yaml import YAML

import lusifer

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_one_version_everywhere() -> None:
    assert PROJECT["version"] == lusifer.__version__
    heading = re.search(r"^## .*?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading and heading[1] == lusifer.__version__
    assert YAML(typ="safe").load(ROOT / "CITATION.cff")["version"] == lusifer.__version__


def test_the_citation_names_software_and_paper() -> None:
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    assert citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    assert {"title", "authors", "type"} <= paper.keys() and "2501.00874" in paper["url"]
