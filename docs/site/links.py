"""Hook of MkDocs: the pages are written to be read in the repository, and work in the site as they are.

A link to a Markdown file outside docs/ leads to a copy of that file in the site, under repository/. Any other file or
folder outside docs/ becomes its path, as text. A list that follows a line of text gets the empty line that
Python-Markdown needs and GitHub does not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COPIES = "repository"
LINK = re.compile(r"(!?)\[((?:[^][]|\[[^][]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^\s*(```|~~~)")
ITEM = re.compile(r"^([-*+]|\d+\.) ")


def repository_path(uri: str) -> Path:
    """The file of the repository that is shown as a page of this address."""
    return ROOT / uri.removeprefix(f"{COPIES}/") if uri.startswith(f"{COPIES}/") else DOCS / uri


def address(file: Path) -> str | None:
    """The address of a file in the site; None where the site does not have it."""
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix() if file.is_file() else None
    shown = file.is_relative_to(ROOT) and file.suffix == ".md" and file.is_file()
    return f"{COPIES}/{file.relative_to(ROOT).as_posix()}" if shown else None


def outside_code(markdown: str) -> Iterator[tuple[str, bool]]:
    """The lines of a page, each with whether it is text (True) or in a fenced block (False)."""
    fenced = False
    for line in markdown.split("\n"):
        fence = bool(FENCE.match(line))
        yield line, not fenced and not fence
        fenced ^= fence


def joined(markdown: str) -> list[tuple[str, bool]]:
    """Stretches of text and of code in turn, each with whether it is text: a link may go over the end of a line."""
    stretches: list[tuple[str, bool]] = []
    for line, text in outside_code(markdown):
        if stretches and stretches[-1][1] == text:
            stretches[-1] = f"{stretches[-1][0]}\n{line}", text
        else:
            stretches.append((line, text))
    return stretches


def rewritten(markdown: str, page: str) -> str:
    """The page with its links as they work in the site; `page` is its address there."""
    folder = repository_path(page).parent

    def link(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        place, hash_mark, anchor = target.partition("#")
        if not place or re.match(r"[a-z]+:", place):
            return found[0]
        file = Path(os.path.normpath(folder / place))
        there = address(file)
        if there is None:
            if not file.exists() or not file.is_relative_to(ROOT):
                return found[0]  # MkDocs says that it leads nowhere
            path = file.relative_to(ROOT).as_posix()
            return words if path in words else f"{words} (`{path}` in the repository)"
        relative = os.path.relpath(there, os.path.dirname(page) or ".")
        return f"{picture}[{words}]({relative}{hash_mark}{anchor})"

    return "\n".join(LINK.sub(link, part) if text else part for part, text in joined(markdown))


def spaced(markdown: str) -> str:
    """Put an empty line before a list that follows a line of text."""
    lines: list[str] = []
    for line, text in outside_code(markdown):
        before = lines[-1] if lines else ""
        follows_text = bool(before.strip()) and not ITEM.match(before) and not before.startswith((" ", "|", "#", "<"))
        in_list = any(ITEM.match(each) for each in lines[last_gap(lines) :])
        if text and ITEM.match(line) and follows_text and not in_list:
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def last_gap(lines: list[str]) -> int:
    """Where the paragraph begins that the last line belongs to."""
    return next((number for number in range(len(lines), 0, -1) if not lines[number - 1].strip()), 0)


def linked_pages() -> list[str]:
    """Addresses of the Markdown files outside docs/ that pages lead to, from page to page."""
    found: list[str] = []
    waiting = [page.relative_to(DOCS).as_posix() for page in sorted(DOCS.rglob("*.md"))]
    while waiting:
        page = waiting.pop()
        file = repository_path(page)
        text = "\n".join(part for part, is_text in joined(file.read_text(encoding="utf-8")) if is_text)
        for _, _, target in LINK.findall(text):
            there = address(Path(os.path.normpath(file.parent / target.partition("#")[0])))
            if there and there.startswith(f"{COPIES}/") and there not in found:
                found.append(there)
                waiting.append(there)
    return sorted(found)


def on_files(files: Any, config: Any) -> Any:
    """Add the copies of pages outside docs/, which need no place in the navigation."""
    from mkdocs.structure.files import File, InclusionLevel

    for page in linked_pages():
        copy = File.generated(config, page, abs_src_path=str(repository_path(page)))
        copy.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(copy)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite links and lists of a page before it is rendered."""
    return spaced(rewritten(markdown, page.file.src_uri))
