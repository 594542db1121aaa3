"""What a command did to a set of rows: how many rows for each reason, and examples to read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lusifer.io import markdown
from lusifer.io.atomic import write_file

EXAMPLES = 20  # of each reason
_LONGEST = 300  # characters of a text in the report


@dataclass
class RowCounts:
    """Counts by reason, in the order in which reasons were first met, and the first examples of each."""

    title: str
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def count(self, reason: str, *example: str, by: int = 1) -> None:
        """Add `by` rows to a reason; `example` are texts that show it, of which the first 20 are kept."""
        self.counts[reason] = self.counts.get(reason, 0) + by
        shown = self.examples.setdefault(reason, [])
        if example and len(shown) < EXAMPLES:
            shown.append(" | ".join(map(_one_line, example)))

    def merge(self, counts: dict[str, int], examples: dict[str, list[str]]) -> None:
        """Add the counts and examples of another report."""
        for reason, number in counts.items():
            self.count(reason, by=number)
            self.examples[reason] = [*self.examples[reason], *examples.get(reason, ())][:EXAMPLES]

    def lines(self) -> list[str]:
        """Give the counts as lines for a terminal."""
        width = max(map(len, self.counts), default=0)
        return [f"{reason:<{width}}  {number:>12,}" for reason, number in self.counts.items()]

    def write(self, file: Path) -> None:
        """Write counts and examples as a Markdown page."""
        rows = [(reason, f"{number:,}") for reason, number in self.counts.items()]
        lines = [f"# {self.title}", "", markdown.table(("what", "how many"), rows)]
        for reason, shown in self.examples.items():
            if shown:
                lines += ["", f"## {reason}", "", markdown.bullets(shown)]
        with write_file(file) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"
