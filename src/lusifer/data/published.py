"""The published training sets as a page to read; the facts themselves stand in `sources.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lusifer.data.sources import published
from lusifer.io import markdown as io_markdown

_ROLES = {
    "reconstruct": "reconstruct",
    "passage_and_query": "passage <-> query",
    "query_to_passage": "query -> passage",
}


def markdown(english_only: bool = False) -> str:
    """Give the table: hub id, language, use in both stages, negatives, most rows, instruction.

    Args:
        english_only: Leave the sets in other languages out, and say which they are.
    """
    sets = dict(published())
    other = {name: facts for name, facts in sets.items() if facts.get("language", "en") != "en"}
    if english_only:
        sets = {name: facts for name, facts in sets.items() if name not in other}
    header = (
        "set", "language", "stage 1", "stage 2: negatives", "both sides alike", "most rows", "instruction of stage 2",
    )  # fmt: skip
    table = io_markdown.table(header, [_row(name, facts) for name, facts in sets.items()], left=len(header))
    lines = [table, "", _sums(sets)]
    if english_only:
        lines.append(f"Left out by english_only: {', '.join(other)} (Chinese).")
    return "\n".join(lines) + "\n"


def _row(name: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    roles = ", ".join(_ROLES[role] for role in facts["roles"]) or "-"
    negatives = "-"
    if "group" in facts:
        negatives = "own and in-batch" if facts["in_batch_negatives"] else "own only"
    alike = "yes" if facts.get("symmetric") else "-"
    return (
        name, facts.get("language", "en"), roles, negatives, alike, f"{facts['cap']:,}", facts.get("instruction", "-"),
    )  # fmt: skip


def _sums(sets: Mapping[str, Mapping[str, Any]]) -> str:
    roles = {role: sum(role in facts["roles"] for facts in sets.values()) for role in _ROLES}
    first = ", ".join(f"{count} {_ROLES[role]}" for role, count in roles.items())
    own = sum(facts.get("in_batch_negatives") is False for facts in sets.values())
    batch = sum(facts.get("in_batch_negatives") is True for facts in sets.values())
    return f"{len(sets)} sets. Stage 1: {first}. Stage 2: {batch} with in-batch negatives, {own} with own ones only."
