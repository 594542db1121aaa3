"""What the README and the how-to pages tell people to type works, in the order of the pages.

The rule that the README states: blocks marked `console` (lines that begin with `$`) and `python` are run here; blocks
marked `sh` need the network, other data or a bare machine, and their commands and options must exist.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from typer.main import get_command

from lusifer.cli import app, main
from lusifer.io import names
from lusifer.server import run as server
from support import http_server

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
HOW_TO = sorted((ROOT / "docs" / "how-to").glob("*.md"), reverse=True)
PAGES = [README, *HOW_TO]
QUICK_START = ROOT / "docs" / "quick-start.md"
"""Its commands are those of the README, which runs them: it would train `tiny` a second time."""
RUN = ("console", "python")
SERVED = "127.0.0.1:8000"
"""Where the pages say that their server listens."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language and content."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def typed(block: str) -> list[str]:
    """The command lines of a console block; a backslash at the end takes the next line along."""
    return re.findall(r"^\$ (.*)$", block.replace("\\\n", " "), flags=re.MULTILINE)


def type_in(line: str, folder: Path) -> None:
    """Run a line as a shell would: `lusifer` in this process, which has torch loaded, anything else in bash."""
    before, _, command = line.rpartition(" | ")
    if shlex.split(command)[0] != "lusifer":
        subprocess.run(["bash", "-c", line], cwd=folder, check=True)
        return
    fed = subprocess.run(["bash", "-c", before], cwd=folder, check=True, capture_output=True).stdout
    with pytest.MonkeyPatch.context() as patch:
        file = folder / "standard-input"
        file.write_bytes(fed)
        with file.open(encoding="utf-8") as stdin:
            patch.setattr("sys.stdin", stdin)
            assert main(shlex.split(command)[1:]) == 0, line


def run(page: Path, folder: Path) -> None:
    """Do what a page says from top to bottom, in this order; a server runs to the end of its page, on a free port."""
    with ExitStack() as stack:
        address = SERVED
        for language, content in blocks(page):
            content = content.replace(SERVED, address)
            if language == "python":
                exec(compile(content, str(page), "exec"), {})
            for line in typed(content) if language == "console" else []:
                if line.startswith("lusifer serve "):
                    address = stack.enter_context(serving(line.removesuffix("&")))
                else:
                    type_in(line, folder)


@contextmanager
def serving(line: str) -> Iterator[str]:
    """What `lusifer serve` makes, served from this process; gives its address."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "serve", lambda app, *_: found.append(app))
        assert main([*shlex.split(line)[1:], "--port", "0"]) == 0, line
    with http_server.running(*found) as client:
        yield f"{client.base_url.host}:{client.base_url.port}"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of someone who did what the README says, and has `tests/` of the checkout."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "tests").symlink_to(ROOT / "tests")
    (folder / "models").mkdir()
    (folder / "models" / "lusifer-mini").symlink_to(ROOT / "models" / "lusifer-mini")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(README, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_a_page_runs_from_top_to_bottom(begun: Path, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one folder: the how-to pages use the model that the README trains, by its own name and by that of `mini`.

    The README runs the real `mini`, and so does the page that trains on from it.
    """
    monkeypatch.chdir(begun)
    mini = begun / "mini"
    if page.stem != "train":
        mini.symlink_to(begun / "runs" / "tiny" / "model")
        shutil.rmtree(begun / "scores", ignore_errors=True)  # of the real one
    try:
        run(page, begun)
    finally:
        mini.unlink(missing_ok=True)


def test_most_is_run() -> None:
    found = [(language, text) for page in PAGES for language, text in blocks(page)]
    assert sum(len(typed(text)) if language == "console" else language == "python" for language, text in found) > 15


def test_every_block_says_whether_it_is_run():
    found = {language for page in PAGES for language, _ in blocks(page)}
    assert found <= {*RUN, "sh", "yaml"}
    # A `sh` block is an exception with a reason: a hub name, data that do not ship, several GPUs, or make.
    local = (".venv/bin/", "pip ", "-m venv", "models/converted", "scores/")
    # `lusifer ablate` trains five models.
    reasons = (*local, "make ", "paper-", "torchrun", "DATA", "PUBLISHED", "lusifer ablate")
    for page in PAGES:
        for language, content in blocks(page):
            for line in content.strip().splitlines() if language == "sh" else []:
                assert any(reason in line for reason in reasons), line


def test_the_quick_start_has_commands_that_the_readme_runs() -> None:
    """But those with a placeholder, which `test_sh_blocks_parse` reads."""
    shown = [line for _, text in blocks(QUICK_START) for line in text.splitlines() if line.startswith("lusifer ")]
    run_there = [line for language, text in blocks(README) if language == "console" for line in typed(text)]
    assert len(shown) > 5
    assert [line for line in shown if line not in run_there and "FOLDER" not in line and "my.index" not in line] == []
    installs = [text for language, text in blocks(README) if language == "sh" and "-m venv" in text]
    assert installs[0] in QUICK_START.read_text(encoding="utf-8")


def test_sh_blocks_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of `lusifer` in blocks that are not run: command, options and arguments are accepted by name."""
    monkeypatch.setattr(names, "model", str)  # a command asks early whether its model exists; here it need not
    group = get_command(app)
    pages = [*PAGES, QUICK_START]
    lines = [
        line for page in pages for language, text in blocks(page) if language == "sh" for line in text.splitlines()
    ]
    parsed = 0
    for line in lines:
        words = shlex.split(line)
        if words[:1] == ["lusifer"]:
            command = group.commands[words[1]]
            command.make_context(words[1], words[2:])
            parsed += 1
    assert parsed >= 6


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs").rglob("*.md")) + [ROOT / "README.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_place_for_results_is_marked_once():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("<!-- results:begin -->") == text.count("<!-- results:end -->") == 1
    assert text.index("<!-- results:begin -->") < text.index("<!-- results:end -->")
