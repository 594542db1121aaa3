"""Messages that the page of troubleshooting quotes are messages of the package."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"


def strings(source: str) -> list[str]:
    """The texts of a module; what is put into an f-string is left open."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def fragments(page: str) -> list[str]:
    """What the page quotes as messages of this package, not of another library."""
    lines = re.findall(r"^Message(?: in [^:]*)?: `(.+)`$", page, flags=re.MULTILINE)
    assert len(lines) == len(re.findall(r"^Message(?! of )", page, flags=re.MULTILINE))
    return lines


def pattern(fragment: str) -> re.Pattern[str]:
    """The fragment, with anything for `...`."""
    return re.compile(".*".join(re.escape(part) for part in re.split(r"\s?\.\.\.\s?", fragment)), re.DOTALL)


def test_every_quoted_message_is_in_the_package() -> None:
    texts = [text for file in (ROOT / "src").rglob("*.py") for text in strings(file.read_text(encoding="utf-8"))]
    quoted = fragments(PAGE.read_text(encoding="utf-8"))
    assert len(quoted) > 20
    lost = [line for line in quoted if not any(pattern(line).search(text) for text in texts)]
    assert lost == []  # correct the page, where a message has changed


def test_a_message_that_does_not_exist_is_found() -> None:
    texts = strings('raise E(f"{file}: no index {there} at all: make one")')
    assert pattern("no index ... at all").search(texts[0])
    assert not pattern("no index ... at last").search(texts[0])
    assert fragments("Message: `a ... b`\n\nMessage of torch: `c`\n\nMessage in the log: `d`\n") == ["a ... b", "d"]
