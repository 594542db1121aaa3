"""The house keeps its rules, and each check of a rule notices when it is broken."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import support.house_rules as rules
from lusifer.cli import app

ROOT = Path(__file__).parents[1]
SOURCES = rules.modules(ROOT / "src" / "lusifer")
PYTHON = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for folder in ("src", "tests", "examples")
    for file in sorted((ROOT / folder).rglob("*.py"))
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands():
    """The command line as a tree of commands."""
    return typer.main.get_command(app)


def test_rooms_import_only_leftwards():
    assert len(SOURCES) > 20
    assert rules.wrong_imports(SOURCES) == []


def test_no_circle_of_imports():
    assert rules.circle(SOURCES) == []


def test_folders_are_not_crowded():
    assert rules.crowded(SOURCES) == []


def test_short_files_have_several_importers():
    assert rules.slices(SOURCES) == []


def test_a_class_name_occurs_once():
    assert rules.doubled_classes(SOURCES) == []


def test_files_and_functions_are_short():
    assert [problem for name, source in PYTHON.items() for problem in rules.too_long(name, source)] == []


def test_nothing_forbidden():
    wrong = []
    for name, source in PYTHON.items():
        may_print = name.startswith(("src/lusifer/cli/", "examples/"))
        wrong += rules.forbidden(name, source, may_print=may_print)
    assert wrong == []


def test_public_things_are_documented_and_annotated():
    package = {name: source for name, source in PYTHON.items() if name.startswith("src/")}
    assert [problem for name, source in package.items() for problem in rules.undocumented(name, source)] == []


def test_pages_name_only_commands_that_exist():
    targets = rules.targets((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert {"help", "demo", "test", "check"} <= targets
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        wrong += rules.unknown_commands(str(page.relative_to(ROOT)), text, commands(), targets)
    assert wrong == []


def test_pages_name_only_files_that_exist():
    files = [str(file.relative_to(ROOT)) for file in ROOT.rglob("*.py") if "site-packages" not in file.parts]
    wrong = []
    for page in PAGES:
        wrong += rules.unknown_files(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8"), files)
    assert wrong == []


def test_readme_shows_the_first_two_commands():
    lines = [line for _, line in rules.shell_lines((ROOT / "README.md").read_text(encoding="utf-8"))]
    assert any(line.startswith("make demo") for line in lines)
    assert any(re.match(r"(\.venv/bin/)?lusifer train ", line) for line in lines)


@pytest.mark.slow
def test_the_linter_has_nothing_to_say():
    found = subprocess.run([sys.executable, "-m", "ruff", "check", "-q", "."], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_installation_names_no_package_host():
    for name in ("Makefile", "pyproject.toml", "constraints.txt", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        found = re.findall(r"https?://\S+|index-url|find-links|trusted-host", text)
        assert found == [], name


# What follows breaks each rule on purpose.

GOOD = {
    "lusifer": '"""Front."""\n',
    "lusifer.errors": '"""Errors."""\n',
    "lusifer.io": '"""Room."""\n',
    "lusifer.io.rows": '"""Rows."""\n',
    "lusifer.model": '"""Room."""\n',
    "lusifer.model.parts": '"""Parts."""\nimport torch\nfrom lusifer.errors import A\n',
    "lusifer.data": '"""Room."""\n',
    "lusifer.data.schema": '"""Rows."""\n',
    "lusifer.training": '"""Room."""\n',
    "lusifer.training.run": '"""Room."""\n',
    "lusifer.training.run.run": (
        '"""Run."""\nfrom lusifer.model import parts\nfrom lusifer import data\nfrom lusifer.io import rows\n'
    ),
    "lusifer.serving": '"""Room."""\n',
    "lusifer.serving.api": '"""Api."""\n',
}


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [
        ("lusifer.errors", "from lusifer.model import parts", "leaves may not import model"),
        ("lusifer.errors", "def f():\n    from lusifer.model.parts import x", "leaves may not import model"),
        ("lusifer.errors", "import torch.nn", "torch at module level"),
        ("lusifer.model.parts", "import lusifer.training.run.run", "model may not import training.run"),
        ("lusifer.model.parts", "import lusifer.training", "model may not import training"),
        ("lusifer.model.parts", "from ..training import run", "model may not import training"),
        ("lusifer.model", "from ..training import run", "model may not import training"),
        ("lusifer.training.run.run", "from lusifer import serving", "training.run may not import serving"),
        ("lusifer.attic.box", "", "room attic is not in the table"),
    ],
)
def test_notices_a_wrong_import(module, line, message):
    assert rules.wrong_imports(GOOD) == []
    found = rules.wrong_imports(GOOD | {module: GOOD.get(module, "") + line})
    assert len(found) == 1
    assert message in found[0]


def test_type_checking_blocks_and_late_imports_are_free():
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import torch\n"
    assert rules.wrong_imports(GOOD | {"lusifer.errors": typed}) == []


def test_notices_a_circle():
    assert rules.circle(GOOD) == []
    late = {"lusifer.errors": "def f():\n    import lusifer.model.parts\n"}
    assert rules.circle(GOOD | late) == []
    found = rules.circle(GOOD | {"lusifer.errors": "import lusifer.model.parts\n"})
    assert set(found) == {"lusifer.errors", "lusifer.model.parts"}
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lusifer.model.parts\n"
    assert set(rules.circle(GOOD | {"lusifer.errors": typed})) == {"lusifer.errors", "lusifer.model.parts"}


def test_notices_a_crowded_folder():
    more = {f"lusifer.model.a{number}": "" for number in range(rules.MAX_FOLDER - 2)}
    assert rules.crowded(GOOD | more) == []
    assert rules.crowded(GOOD | more | {"lusifer.model.b": ""}) == ["model: 13 files"]


def test_notices_a_slice():
    alone = GOOD | {"lusifer.model.slice": "x = 1\n" * 59, "lusifer.model.whole": "from lusifer.model import slice\n"}
    found = [line for line in rules.slices(alone) if "slice" in line]
    assert found == ["lusifer.model.slice: 59 lines, imported by lusifer.model.whole alone"]
    long = {"lusifer.model.slice": "x = 1\n" * 60}
    shared = {"lusifer.model.other": "from lusifer.model.slice import x\n"}
    for mended in (long, shared):
        assert not any("model.slice" in line for line in rules.slices(alone | mended))


def test_notices_two_classes_of_one_name():
    one = {"lusifer.model.parts": "class A:\n    pass\n"}
    assert rules.doubled_classes(GOOD | one) == []
    both = GOOD | one | {"lusifer.data.schema": "def f():\n    class A:\n        pass\n"}
    assert rules.doubled_classes(both) == ["class A: lusifer.model.parts, lusifer.data.schema"]


def test_notices_length():
    assert rules.too_long("a.py", "x = 1\n" * 400) == []
    assert rules.too_long("a.py", "x = 1\n" * 401) == ["a.py: 401 lines"]
    assert rules.too_long("a.py", "def f():\n" + "    x = 1\n" * 58) == []
    assert rules.too_long("a.py", "@g\ndef f():\n" + "    x = 1\n" * 58) == ["a.py:1: f has 60 lines"]


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "try:\n    f()\nexcept:\n    pass",
        "def f():\n    global x\n    x = 1",
        "import pytest\n@pytest.mark.skip\ndef test(): ...",
        "import pytest\n@pytest.mark.xfail(strict=True)\ndef test(): ...",
        "import gzip\ngzip.compress(b'a')",
        "import pytest\npytest.importorskip('torch')",
        "x = 1  # TO" + "DO: more",
    ],
)
def test_notices_what_is_forbidden(source):
    assert len(rules.forbidden("a.py", source)) == 1
    assert rules.forbidden("a.py", "try:\n    f.print(1)\nexcept ValueError:\n    rows.skip(3)") == []


def test_print_is_for_terminals():
    assert rules.forbidden("a.py", "print(1)", may_print=True) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f() -> int:\n    return 1", "a.py:2: f: no docstring"),
        ("class A:\n    x = 1", "a.py:2: A: no docstring"),
        ('class A:\n    """A."""\n    def f(self) -> int: ...', "a.py:4: f: no docstring"),
        ('def f(x) -> int:\n    """F."""', "a.py:2: f: x has no annotation"),
        ('def f(*x, y: int) -> int:\n    """F."""', "a.py:2: f: x has no annotation"),
        ('def f(x: int):\n    """F."""', "a.py:2: f: the result has no annotation"),
    ],
)
def test_notices_what_is_undocumented(source, message):
    assert rules.undocumented("a.py", '"""A."""\n' + source) == [message]
    assert rules.undocumented("a.py", '"""A."""\ndef _f(x):\n    return x') == []
    assert rules.undocumented("a.py", "x = 1") == ["a.py: no docstring"]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("lusifer trian x.yaml", True),
        ("$ lusifer train x.yaml --ouput d", True),
        (".venv/bin/lusifer train x.yaml \\\n    --ouput d", True),
        ("make dmeo", True),
        ("cd a && make dmeo", True),
        ("lusifer train x.yaml --output d --set seed=1  # as you like", False),
        ("HF_HUB_OFFLINE=1 lusifer train x.yaml \\\n    --output d", False),
        ("make demo", False),
        ("pip install lusifer", False),
    ],
)
def test_notices_a_command_that_does_not_exist(line, wrong):
    found = rules.unknown_commands("a.md", f"Say:\n```sh\n{line}\n```\nlusifer nothing", commands(), {"demo"})
    assert len(found) == wrong, found


def test_python_blocks_are_no_shell():
    assert list(rules.shell_lines("```python\nlusifer = 1\n```\n```\nmake\n```")) == [(5, "make")]


def test_notices_a_file_that_does_not_exist():
    files = ["src/lusifer/model/lusifer.py"]
    assert rules.unknown_files("a.md", "in `lusifer.py` and `model/lusifer.py`", files) == []
    assert rules.unknown_files("a.md", "`usifer.py`, `my.py`", files) == ["a.md: usifer.py", "a.md: my.py"]
