"""What a recipe takes from the hub, and taking it before the day of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lusifer.data import sources as data_sources
from lusifer.data.alignment import PAIRED_ROLES
from lusifer.data.readers import BadRows
from lusifer.training import recipe as recipes
from lusifer.training.recipe import Recipe
from lusifer.training.recipe_data import AlignmentSource, Source


@dataclass(frozen=True)
class Wanted:
    """A source of a stage: `kind` of its rows, what they are for in words, whether `english_only` leaves it out."""

    stage: str
    source: Source
    kind: str
    use: str
    left_out: bool

    @property
    def name(self) -> str:
        """Hub id or file."""
        return data_sources.short_name(self.source.path, self.source.hub)

    def line(self) -> str:
        """Say what would be read."""
        source = self.source
        if self.left_out:
            return f"{self.stage}: {self.name}: left out: its language is {recipes.language(source)} (english_only)"
        rows = "all rows" if source.limit is None else f"{source.limit:,} rows at most"
        if source.hub is None:
            return f"{self.stage}: {source.path}: local, nothing to fetch: {rows}, {self.use}"
        where = f"hf://datasets/{source.hub}@{source.revision or 'newest revision'}"
        config = f", configuration {source.config}" if source.config else ""
        way = "streamed, not kept" if source.streaming else "fetched whole"
        return f"{self.stage}: {where}{config}, split {source.split}: {way}, {rows}, {self.use}"


def wanted(recipe: Recipe) -> Iterator[Wanted]:
    """Yield every source of every stage in order, those that are left out too. Asks nobody."""
    for stage in recipe.stages:
        kept, dropped = recipes.sources(recipe, stage)
        for source in stage.data:
            yield Wanted(stage.name, source, *_use(source), left_out=source in dropped and source not in kept)


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
            rows = data_sources.load(recipes.spec(each.source, recipe.seed), each.kind, bad)
            listen(each, len(rows), bad.messages)


def _use(source: Source) -> tuple[str, str]:
    """Kind of rows, and their use in words."""
    if isinstance(source, AlignmentSource):
        return "pairs" if source.role in PAIRED_ROLES else "passages", source.role.replace("_", " ")
    negatives = "in-batch negatives" if source.in_batch_negatives else "own negatives only"
    return "pairs", negatives + (f", instruction {source.instruction!r}" if source.instruction else "")
