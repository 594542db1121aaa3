"""Which rows are used when a source has more than its limit."""

from __future__ import annotations

import json
from collections import Counter

from lusifer.data.sources import SourceSpec, load
from lusifer.data.tables import draw


def test_rows_are_drawn_alike_from_all_whatever_their_cluster(tmp_path) -> None:
    rows = [{"query": f"q{n}", "positive": ["p"], "cluster": n % 3} for n in range(300)]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load(SourceSpec(path=str(file), limit=150, seed=3), "pairs")
    assert loaded["query"][:] == [f"q{number}" for number in draw(300, 150, 3)]
    assert all(35 <= count <= 65 for count in Counter(loaded["cluster"][:]).values())


def test_a_draw_is_ascending_without_repeats_and_depends_on_the_seed() -> None:
    one, other = draw(1000, 100, 0), draw(1000, 100, 1)
    assert one == sorted(set(one)) and len(one) == 100 and one != other
    assert draw(100, 100, 0) is None and draw(100, None, 0) is None
