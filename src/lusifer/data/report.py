"""What a command did to a set of rows: counts by reason, and examples to read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lusifer.io import markdown
from lusifer.io.atomic import write_file

EXAMPLES = 20  # of each reason
_CUT = 300  # characters of a text in a report


@dataclass
class Report:
    """Counts in the order in which they were first met, and the first examples of each."""

    title: str
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def count(self, reason: str, *example: str, by: int = 1) -> None:
        """Count `by` rows more; `example` are texts that show it, kept for the first rows."""
        self.counts[reason] = self.counts.get(reason, 0) + by
        shown = self.examples.setdefault(reason, [])
        if example and len(shown) < EXAMPLES:
            shown.append(" | ".join(one_line(text) for text in example))

    def merge(self, counts: dict[str, int], examples: dict[str, list[str]]) -> None:
        """Add what another report counted."""
        for reason, number in counts.items():
            self.count(reason, by=number)
            self.examples[reason] = [*self.examples[reason], *examples.get(reason, ())][:EXAMPLES]

    def markdown(self) -> str:
        """Give the report as a page."""
        rows = [(reason, f"{number:,}") for reason, number in self.counts.items()]
        lines = [f"# {self.title}", "", markdown.table(("what", "how many"), rows)]
        for reason, shown in self.examples.items():
            if shown:
                lines += ["", f"## {reason}", "", *(f"- {text}" for text in shown)]
        return "\n".join(lines) + "\n"

    def lines(self) -> list[str]:
        """Give the counts as lines for a terminal."""
        width = max(map(len, self.counts), default=0)
        return [f"{reason:<{width}}  {number:>12,}" for reason, number in self.counts.items()]

    def write(self, file: Path) -> None:
        """Write the page, whole or not at all."""
        with write_file(file) as temporary:
            temporary.write_text(self.markdown(), encoding="utf-8")


def one_line(text: str, length: int = _CUT) -> str:
    """Give a text on one line, cut to `length` characters with a mark that it is."""
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"
