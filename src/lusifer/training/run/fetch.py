"""What a recipe takes from the hub, and taking it before the day of training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from lusifer.data import sources as data_sources
from lusifer.data.stages.alignment import PAIRED_ROLES
from lusifer.io.rows import BadRows
from lusifer.training.recipe.data import AlignmentSource, Source
from lusifer.training.recipe.recipe import Recipe


@dataclass(frozen=True)
class Wanted:
    """A source of a stage: `kind` of its rows, whether `english_only` leaves it out."""

    stage: str
    source: Source
    kind: str
    left_out: bool

    @property
    def name(self) -> str:
        """Hub id or file."""
        return data_sources.short_name(self.source.path, self.source.hub)

    @property
    def place(self) -> str:
        """Where it is, and how it is read."""
        source = self.source
        if source.hub is None:
            return f"{source.path}: local"
        config = f", configuration {source.config}" if source.config else ""
        split = f", split {source.split}" if source.split != "train" else ""
        where = f"hf://datasets/{source.hub}@{source.revision or 'newest'}{config}{split}"
        return f"{where}: {'streamed' if source.streaming else 'fetched whole'}"


def lines(recipe: Recipe) -> Iterator[str]:
    """Say what would be read, a line a set or file and the sums at the end. Asks nobody."""
    places: dict[str, list[Wanted]] = {}
    left_out: dict[str, None] = {}
    for each in wanted(recipe):
        if each.left_out:
            left_out[f"{each.name} ({each.source.language_code})"] = None
        else:
            places.setdefault(each.place, []).append(each)
    for place, uses in places.items():
        limits = [each.source.limit for each in uses]
        rows = "all rows" if None in limits else f"{max(limits):,} rows at most"
        yield f"{place}, {rows}, for {', '.join(dict.fromkeys(each.stage for each in uses))}"
    if left_out:
        yield f"left out by english_only: {', '.join(left_out)}"
    yield _sums(places.values())


def _sums(places: Collection[Sequence[Wanted]]) -> str:
    """How much it is together."""
    limits = [each.source.limit for uses in places for each in uses]
    known, whole = [limit for limit in limits if limit is not None], limits.count(None)
    rows = [f"{sum(known):,} rows at most"] * bool(known) + [f"all rows of {whole:,}"] * bool(whole)
    sets = [uses[0].source for uses in places if uses[0].source.hub is not None]
    streamed = sum(source.streaming for source in sets)
    kinds = f"{len(sets) - streamed:,} sets to fetch, {streamed:,} to stream, {len(places) - len(sets):,} local"
    return f"in all: {kinds}; {len(limits):,} sources of stages read {' and '.join(rows) or 'nothing'}"


def wanted(recipe: Recipe) -> Iterator[Wanted]:
    """Yield every source of every stage in order, those that are left out too. Asks nobody."""
    for stage in recipe.stages:
        for source in stage.data:
            yield Wanted(stage.name, source, _kind(source), left_out=not recipe.reads(source))


def fetch(recipe: Recipe, listen: Callable[[Wanted, int, list[str]], None]) -> None:
    """Read every row of a recipe as training will, so that it lies in the cache and is known to be whole.

    Args:
        recipe: The whole run.
        listen: Is called with each source that is not left out, its rows, and the bad rows that were skipped.

    Raises:
        UsageError: The hub does not give a set.
        DataError: A row is not what it should be.
    """
    for each in wanted(recipe):
        if not each.left_out:
            bad = BadRows(each.source.skip_bad)
            rows = data_sources.load(each.source.spec(recipe.seed), each.kind, bad)
            listen(each, len(rows), bad.messages)


def _kind(source: Source) -> str:
    """Kind of rows."""
    paired = not isinstance(source, AlignmentSource) or source.role in PAIRED_ROLES
    return "pairs" if paired else "passages"
