"""The data settings of a recipe: sources of rows, `evaluate` and `watch`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lusifer import language_gap
from lusifer.data.sources import SAMPLE, SourceSpec, published, short_name
from lusifer.errors import DataError
from lusifer.io import parallel_text
from lusifer.training.objectives.objective import PAIRED_ROLES, Role


class Settings(BaseModel):
    """Base class of all parts of a recipe: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Source(Settings):
    """Where rows come from: a local file (or a pattern of files), or a dataset on the Hub."""

    path: str | None = Field(default=None, min_length=1)
    """A .jsonl, .jsonl.gz, .parquet, .csv or .csv.gz file, a pattern such as parts/*.jsonl.gz, or `sample:NAME` (the
    English sample in the package: passages, pairs, labelled). Relative to `data_root`. Give either this or hub."""
    hub: str | None = Field(default=None, min_length=1)
    """A dataset id on the Hub. Give either this or path."""
    config: str | None = None
    """Configuration of the dataset on the Hub."""
    split: str = "train"
    """Split of the dataset on the Hub."""
    revision: str | None = None
    """Commit, tag or branch of the dataset on the Hub. `null` takes the newest. Set a commit to get the same rows
    later."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of rows to use, drawn with the recipe's seed from all rows. `null` takes all."""
    skip_bad: int = Field(default=0, ge=0)
    """Maximum number of bad rows to leave out; data.json lists them. With more, the run stops before training."""
    streaming: bool = False
    """Read a dataset over the network without storing its files. With `limit`, only that many rows are read."""
    fields: dict[str, str] = {}
    """Column of Lusifer -> column in the file, if the names differ, as in `{query: question}`."""
    language: str | None = None
    """Language code. `null` takes the code in the table of published datasets, else English with `english_only`, else
    unknown."""

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give either path (a local file) or hub (a dataset id), not both")
        if self.streaming and self.hub is None:
            raise ValueError("streaming works only with hub, and this source is a local file: remove it")
        return self

    @property
    def row_kind(self) -> str:
        """The kind of the rows, which decides their columns: "pairs" or "passages"."""
        return "pairs"

    @property
    def name(self) -> str:
        """The id on the Hub, or the file name without folder and suffixes."""
        return short_name(self.path, self.hub)

    @property
    def language_code(self) -> str | None:
        """`language`, else the code in the table of published datasets, "en" for samples, or None if unknown."""
        if self.hub in published() or (self.path or "").startswith(SAMPLE):
            return self.language or published().get(self.hub or "", {}).get("language", "en")
        return self.language

    def spec(self, seed: int, rename: str | None = None) -> SourceSpec:
        """Make the specification for `lusifer.data.sources.load`.

        Args:
            seed: The seed to draw rows if there are more than `limit`.
            rename: The start of the option that renames a column, for error messages.
        """
        common = set(SourceSpec.__dataclass_fields__) & set(type(self).model_fields)
        return SourceSpec(**{key: getattr(self, key) for key in common}, seed=seed, rename=rename)


class AlignmentSource(Source):
    """Rows of an alignment stage."""

    role: Role = "reconstruct"
    """`reconstruct`: rows of `text`. `passage_and_query`: pairs in both directions. `query_to_passage`: pairs in one
    direction. A published dataset has its role."""

    @property
    def row_kind(self) -> str:
        """Return "pairs" if the role needs them, else "passages"."""
        return "pairs" if self.role in PAIRED_ROLES else "passages"

    @model_validator(mode="before")
    @classmethod
    def _published(cls, value: Any) -> Any:
        """Add the role of a published dataset; its rows have the text of reconstruction in `query`."""
        if not isinstance(value, dict) or value.get("hub") not in published():
            return value
        roles = published()[value["hub"]].get("roles", [])
        if value.get("role") is None:
            if len(roles) != 1:
                known = " or ".join(roles) or "it has none in an alignment stage, remove it"
                raise ValueError(f"role is needed for {value['hub']}: {known}")
            value = {**value, "role": roles[0]}
        if value["role"] == "reconstruct" and not value.get("fields"):
            value = {**value, "fields": {"text": "query"}}
        return value


class QuerySource(Source):
    """Pairs with an instruction."""

    instruction: str | None = None
    """Instruction that precedes a query. `null` takes the row's `instruction` or `task`, else none."""
    symmetric: bool | None = None
    """Whether both sides are texts of one kind and both get the instruction. `null` takes it from the row's `task`,
    else `false`."""

    @model_validator(mode="before")
    @classmethod
    def _published(cls, value: Any) -> Any:
        """Add the facts of a published dataset, such as its instruction, where the recipe has none."""
        if not isinstance(value, dict) or value.get("hub") not in published():
            return value
        facts = published()[value["hub"]]
        asked = [key for key in ("instruction", "in_batch_negatives", "symmetric") if key in cls.model_fields]
        known = {key: facts[key] for key in asked if key in facts}
        return known | {key: item for key, item in value.items() if item is not None}


class PairSource(QuerySource):
    """Rows of a contrastive stage."""

    in_batch_negatives: bool = True
    """Whether texts of other rows are negatives. Set `false` if rows share labels (classes, clusters)."""
    weight: float = Field(default=1.0, gt=0, le=10_000)
    """How often batches come from this source, relative to its number of rows."""
    split_by_source: bool = True
    """Whether rows with different `source` values get separate batches."""


class Evaluate(Settings):
    """Score the model on pairs that it does not train on, while it trains."""

    data: list[QuerySource] = []
    """Pairs to score on, in place of held. Rows whose query or positive is trained on are left out and counted."""
    held: float | None = Field(default=None, gt=0, lt=1)
    """Share of a contrastive stage's own rows to score on and not to train on, drawn with the recipe's seed. Rows that
    share a query or a positive stay together."""
    every: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = 100
    """Steps between scores, or the share of the stage's steps (0.1: ten times). The model is also scored before the
    first step and after the last one."""
    keep_best: bool = True
    """Whether the stage ends with the weights that scored best instead of the last ones."""

    @model_validator(mode="after")
    def _one_place_of_pairs(self) -> Evaluate:
        if bool(self.data) == (self.held is not None):
            raise ValueError("give either data (sources of pairs) or held (a share of the stage's own pairs), not both")
        return self

    def steps_between(self, steps: int) -> int:
        """The number of steps between two scores in a stage of `steps` steps."""
        return self.every if isinstance(self.every, int) else max(1, round(self.every * steps))


class Watch(Settings):
    """Embed parallel text at intervals with the current model, which does not train on that text."""

    every: int = Field(default=100, ge=1)
    """Steps between two computations; the last step of the stage is included."""
    parallel: str = Field(default=parallel_text.SAMPLE, min_length=1)
    """A .jsonl, .jsonl.gz, .csv, .csv.gz or .parquet file with a sentence by language code in each row (en among them),
    relative to `data_root`. `sample` is the file in the package: 28 sentences in 14 languages."""

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, value: Any) -> Any:
        """Drop the keys of older recipes by which a watch ended a stage; refuse them if they were in use."""
        if not isinstance(value, dict) or "patience" not in value:
            return value
        if value["patience"] is not None:
            raise ValueError(
                "patience: watch no longer ends a stage, because a model that is chosen by text in many languages is "
                "not zero-shot: remove patience and metric"
            )
        return {key: item for key, item in value.items() if key not in ("patience", "metric")}

    def read(self) -> parallel_text.Parallel:
        """Read the parallel text.

        Raises:
            DataError: The file cannot be read or has too few sentences.
        """
        found = parallel_text.read(self.parallel)
        if found.sentences <= language_gap.K:
            raise DataError(
                f"{self.parallel}: {found.sentences} sentences a language, and {language_gap.K + 1} or more are "
                "needed: add some"
            )
        return found
