"""The parts of a table in Markdown: cells, and the table around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lusifer import languages
from lusifer.evaluation.scores.averages import LANGUAGE, TASK, Mean
from lusifer.evaluation.scores.results import Entry

MISSING, NO_SUCH = "missing", "-"
FEWER = "over fewer: "


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right; | and line breaks are escaped."""
    lines = [[_escaped(cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---", *["---:"] * (len(header) - 1)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def name_of(code: str) -> str:
    """A language for readers: name and code."""
    known = languages.table()
    return f"{known[code].name} ({code})" if code in known else code


def title_of(entry: Entry) -> str:
    """A task for readers: title, metric and split."""
    return f"{entry.title} ({entry.metric}, %, {entry.split})"


def mean_cell(mean: Mean) -> str:
    """A mean with its interval and the number of languages and tasks under it; over fewer is said so."""
    if mean.value is None:
        return MISSING
    return f"{with_interval(mean.value, mean.low, mean.high)}, {_size(mean)}"


def _size(mean: Mean) -> str:
    """What is under a mean: 14 languages, 5 tasks; "of" where it should be more."""
    every = (*mean.there, *mean.missing)
    words = [
        (word, len({key[place] for key in mean.there}), len({key[place] for key in every}))
        for place, word in ((LANGUAGE, "language"), (TASK, "task"))
    ]
    several = [word for word in words if word[2] > 1] or words[1:]
    if len(several) > 1 and not mean.complete:
        # All languages and all tasks may be there, and yet not each task in each language.
        several.append(("score", len(mean.there), len(every)))
    counts = [
        count_of(total, word) if there == total else f"{there} of {count_of(total, word)}"
        for word, there, total in several
    ]
    return ("" if mean.complete else FEWER) + ", ".join(counts)


def count_of(number: int, word: str) -> str:
    """A number with its noun: 1 language, 2 languages."""
    return f"{number} {word}{'s' * (number != 1)}"


def score_cell(value: float | None, sign: str = "-") -> str:
    """A score, or that it is missing. One decimal; what rounds to 0 has no sign."""
    if value is None:
        return MISSING
    return f"{value:.1f}".replace("-0.0", "0.0") if sign == "-" else f"{value:+.1f}".replace("-0.0", "+0.0")


def with_interval(value: float, low: float | None, high: float | None, sign: str = "-") -> str:
    """A number with its interval behind it, if it has one: 64.6 (55.2 to 73.1); `sign` "+" is for differences."""
    ends = "" if low is None else f" ({score_cell(low, sign)} to {score_cell(high, sign)})"
    return score_cell(value, sign) + ends


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")
