"""The site of the documentation has every page, and its links lead somewhere; MkDocs itself is not needed here."""

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

import support.house_rules as rules
from lusifer.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = YAML(typ="safe").load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def script(name: str) -> Any:
    """A module of docs/site, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


links = script("links")


def listed(entries: list[Any]) -> Iterator[str]:
    """The pages that a navigation names."""
    for entry in entries:
        for value in [entry] if isinstance(entry, str) else entry.values():
            yield from [value] if isinstance(value, str) else listed(value)


def test_the_navigation_has_every_page_once() -> None:
    assert sorted(listed(SITE["nav"])) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_nothing_is_fetched_when_the_site_is_read() -> None:
    assert SITE["theme"]["font"] is False
    files = [*SITE["extra_css"], *SITE["extra"]["polyfills"], *SITE["hooks"]]
    assert not [name for name in files if name.startswith("http")]
    assert all((DOCS / name).exists() or (ROOT / name).exists() for name in files)
    # Without one of this name, the plugin `offline` adds a script from the network.
    assert "offline" in SITE["plugins"]
    assert any("iframe-worker" in name for name in SITE["extra"]["polyfills"])


PAGES = [page.relative_to(DOCS).as_posix() for page in sorted(DOCS.rglob("*.md"))] + links.linked_pages()


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in plain}


def test_links_into_a_page_name_one_of_its_headings() -> None:
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("models/*/README.md"), *ROOT.glob("examples/**/*.md")]
    checked = 0
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+\.md#[^)\s]+|#[^)\s]+)\)", page.read_text(encoding="utf-8")):
            place, _, anchor = target.partition("#")
            if "://" not in place:
                checked += 1
                assert anchor in anchors(page.parent / place if place else page), f"{page}: {target}"
    assert checked > 50


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_site_lead_to_its_pages(page: str) -> None:
    markdown = links.repository_path(page).read_text(encoding="utf-8")
    in_site = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*") if file.is_file()} | set(PAGES)
    text = "\n".join(part for part, is_text in links.joined(links.rewritten(markdown, page)) if is_text)
    for _, _, target in links.LINK.findall(text):
        place = target.partition("#")[0]
        if place and not place.startswith(("http:", "https:", "mailto:")):
            assert os.path.normpath(os.path.join(os.path.dirname(page), place)) in in_site, f"{page}: {target}"


@pytest.mark.parametrize(
    ("page", "written", "shown"),
    [
        ("how-to/serve.md", "[a](../../README.md#results)", "[a](../repository/README.md#results)"),
        ("repository/README.md", "![a](docs/islands.png)", "![a](../islands.png)"),
        ("repository/README.md", "[a](docs/how-to/train.md)", "[a](../how-to/train.md)"),
        ("repository/README.md", "[a](LICENSE)", "a (`LICENSE` in the repository)"),
        ("reliability.md", "[`benchmarks/results`](../benchmarks/results)", "`benchmarks/results`"),
        ("extend.md", "[a](https://example.org) [b](#c)", "[a](https://example.org) [b](#c)"),
        ("extend.md", "[two\nlines](../SECURITY.md)", "[two\nlines](repository/SECURITY.md)"),
        ("extend.md", "```\n[a](../LICENSE)\n```", "```\n[a](../LICENSE)\n```"),
    ],
)
def test_links_out_of_docs_are_rewritten(page: str, written: str, shown: str) -> None:
    assert links.rewritten(written, page) == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Text:\n- a\n- b", "Text:\n\n- a\n- b"),
        ("Text:\n\n- a\n  more\n- b", "Text:\n\n- a\n  more\n- b"),
        ("- a\nmore\n- b", "- a\nmore\n- b"),
        ("```\nText\n- a\n```", "```\nText\n- a\n```"),
    ],
)
def test_lists_get_the_line_before_them(written: str, shown: str) -> None:
    assert links.spaced(written) == shown


def test_the_page_of_recipe_keys_is_what_the_schema_gives() -> None:
    """After a change of the schema: make recipe-keys."""
    keys = script("recipe_keys")
    assert keys.PAGE.read_text(encoding="utf-8") == keys.page()


def test_the_page_of_commands_is_what_their_help_says() -> None:
    """So every option of `--help` is on the site. After a change of an option: make commands."""
    made = script("commands")
    assert made.PAGE.read_text(encoding="utf-8") == made.page()


def test_a_recipe_key_without_a_description_is_an_error() -> None:
    keys = script("recipe_keys")
    with pytest.raises(KeyError, match="description"):
        keys.row("key", {"type": "integer", "default": 1}, False, None)


OTHERS = {"--cases", "--dynamo_backend", "--max-worker-restart", "--mixed_precision"}
"""Options in the text of pages that are those of a benchmark, a launcher or pytest."""


def options(command: Any) -> set[str]:
    """The options of a command and of those below it."""
    own = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    return own.union(*map(options, getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("page", [page for page in PAGES if "/benchmarks/" not in page])
def test_commands_and_options_in_the_text_of_a_page_exist(page: str) -> None:
    """Those in blocks are read by `tests/test_house.py`."""
    group = typer.main.get_command(app)
    known = options(group) | {"--help"} | OTHERS
    targets = rules.targets((ROOT / "Makefile").read_text(encoding="utf-8"))
    markdown = links.repository_path(page).read_text(encoding="utf-8")
    text = "\n".join(part for part, is_text in links.joined(markdown) if is_text)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    wrong = [span for span in spans if (option := re.match(r"--[a-z_-]+", span)) and option[0] not in known]
    for span in spans:
        if span.startswith(("lusifer ", "make ")) and "COMMAND" not in span:
            wrong += rules.unknown_commands(span, f"```sh\n{span}\n```", group, targets)
    assert wrong == []


FOLDERS = ("src", "tests", "docs", "recipes", "examples", "benchmarks", "models")


def names_that_are_gone(markdown: str) -> list[str]:
    """Files of the repository, Python names of the package and recipes that a page names and that do not exist."""
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`\n]+)`", markdown)]
    files = [span for span in spans if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./-]+", span)]
    wrong = [file for file in files if "NAME" not in file and not (ROOT / file).exists()]
    dotted = [found[0] for span in spans if (found := re.match(r"lusifer(?:\.\w+)+", span))]
    wrong += [name for name in re.findall(r"^(?:from|import) (lusifer[\w.]*)", markdown, re.MULTILINE) + dotted
              if not exists(name)]  # fmt: skip
    called = re.findall(r"lusifer (?:train|check|ablate|data fetch) ([a-z][\w-]*)(?=[\s`])", markdown)
    return wrong + [name for name in called if not (ROOT / "recipes" / f"{name}.yaml").exists()]


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module of the package, or a name at the top of one; nothing is imported."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath("src", *parts[:count])
        module = next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.exists()), None)
        if module is not None:
            wanted = parts[count : count + 1]
            source = module.read_text(encoding="utf-8")
            return (
                not wanted or re.search(rf"^(?:(?:class|def) )?{wanted[0]}\b|\"{wanted[0]}\"", source, re.M) is not None
            )
    return False


@pytest.mark.parametrize("page", PAGES)
def test_files_modules_and_recipes_that_a_page_names_exist(page: str) -> None:
    assert names_that_are_gone(links.repository_path(page).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("markdown", "gone"),
    [
        ("See `src/lusifer/lost.py` and `docs/terms.md`.", ["src/lusifer/lost.py"]),
        ("Call `lusifer.load(...)`, not `lusifer.lost.load`.", ["lusifer.lost.load"]),
        ("`lusifer.errors.Lost`, `lusifer.errors.UsageError`", ["lusifer.errors.Lost"]),
        ("```python\nfrom lusifer.lost import a\n```", ["lusifer.lost"]),
        ("`lusifer train lost` and `lusifer train tiny --output runs/a`", ["lost"]),
    ],
)
def test_names_that_are_gone_are_found(markdown: str, gone: list[str]) -> None:
    assert names_that_are_gone(markdown) == gone
