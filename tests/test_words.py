"""Pages, messages and comments use the terms of `docs/terms.md`, and none of the words that its last column refuses."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TERMS = ROOT / "docs" / "terms.md"
STORED = ["texts in disguise"]
"""Keys of result files; they do not change, so that old results can be read."""
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = [file for file in sorted((ROOT / "src").rglob("*")) if file.suffix in (".py", ".md", ".html", ".toml")]
FILES = {str(file.relative_to(ROOT)): file for file in [*PAGES, *SOURCES] if file != TERMS}


def refused(terms: str) -> list[str]:
    """The words in code type in the last column of the tables."""
    rows = [line.strip("| ").split(" | ") for line in terms.splitlines() if line.startswith("| ")]
    return [word for row in rows if len(row) == 3 for word in re.findall(r"`([^`]+)`", row[2])]


def pattern(words: list[str]) -> re.Pattern[str]:
    """Any of the words, also over the end of a line and in capitals."""
    each = sorted((r"[\s#]+".join(map(re.escape, word.split())) for word in words), key=len, reverse=True)
    return re.compile(rf"(?<![\w`.-])(?:{'|'.join(each)})(?![\w`-])", re.IGNORECASE)


def prose(name: str, text: str) -> str:
    """What people read of a file: of Python its strings and comments, of a page all but code and addresses."""
    if name.endswith(".py"):
        kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)}
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        known = [token.string for token in tokens if token.type in kinds and token.string.strip("\"'") not in STORED]
        return "\n".join(re.sub(r"\{[^{}]*\}", " ", each) for each in known)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`|\]\([^)]*\)|https?://\S+", " ", text)


WORDS = pattern(refused(TERMS.read_text(encoding="utf-8")))


def test_no_file_has_a_refused_word() -> None:
    """See `docs/terms.md` for the term to use instead."""
    texts = {name: prose(name, file.read_text(encoding="utf-8")) for name, file in FILES.items()}
    assert {name: found for name, text in texts.items() if (found := sorted(set(WORDS.findall(text))))} == {}


@pytest.mark.parametrize("text", ["Near\n# repeats are dropped.", "A mended file.", "both towers"])
def test_refused_words_are_found(text: str) -> None:
    assert WORDS.search(text)


@pytest.mark.parametrize("text", ["Amend the recipe.", "the key `towers`", "near-duplicates", "tower.towers_path"])
def test_other_words_pass(text: str) -> None:
    assert not WORDS.search(prose("page.md", text))


def test_code_is_not_read() -> None:
    assert prose("a.py", "mend = 'fix'  # note\n") == "'fix'\n# note"
    assert "mend" not in prose("page.md", "```sh\nmend\n```\n")
