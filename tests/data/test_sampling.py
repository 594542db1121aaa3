"""Which rows are used when a source has more than its cap."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lusifer.data.sources import SourceSpec, load
from lusifer.data.tables import by_share, draw


@given(st.lists(st.integers(-1, 8), min_size=1, max_size=300), st.integers(1, 300), st.integers(0, 9))
def test_each_cluster_gives_its_share(clusters: list[int], limit: int, seed: int) -> None:
    limit = min(limit, len(clusters))
    numbers = by_share(np.array(clusters), limit, seed)
    assert len(numbers) == limit == len(set(numbers.tolist())) and (np.diff(numbers) > 0).all()
    sizes, found = Counter(clusters), Counter(clusters[number] for number in numbers)
    for cluster, size in sizes.items():
        if len(sizes) <= limit:
            assert found[cluster] >= 1
        # One row that every cluster keeps may cost others theirs: a share is met to within the number of clusters.
        assert abs(found[cluster] - size * limit / len(clusters)) < 1 + len(sizes)
    assert by_share(np.array(clusters), limit, seed).tolist() == numbers.tolist()


def test_equal_clusters_give_equally_and_the_seed_decides_which_rows() -> None:
    clusters = np.repeat(np.arange(10), 50)
    one, other = by_share(clusters, 100, 0), by_share(clusters, 100, 1)
    assert np.bincount(clusters[one]).tolist() == [10] * 10 == np.bincount(clusters[other]).tolist()
    assert one.tolist() != other.tolist()


def test_a_small_cluster_is_kept_where_a_plain_draw_loses_it(tmp_path) -> None:
    rows = [{"query": f"q{n}", "positive": [f"p{n}"], "cluster": int(n >= 990)} for n in range(1000)]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = [load(SourceSpec(path=str(file), limit=100, seed=seed), "pairs")["cluster"][:].count(1) for seed in range(5)]
    assert kept == [1] * 5
    drawn = [sum(number >= 990 for number in draw(1000, 100, seed)) for seed in range(5)]
    assert len(set(drawn)) > 1


def test_without_clusters_rows_are_drawn_as_ever(tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"query": f"q{n}", "positive": ["p"]}) + "\n" for n in range(50)))
    rows = load(SourceSpec(path=str(file), limit=10, seed=3), "pairs")
    assert rows["query"][:] == [f"q{number}" for number in draw(50, 10, 3)]
