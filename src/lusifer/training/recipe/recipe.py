"""The settings of a training run as typed objects: the two bases, what joins them, and the stages in order.

The docstrings of the fields are the descriptions in docs/recipe-keys.md. `lusifer.training.recipe.load.load_recipe`
reads a recipe, and refuses unknown keys, wrong types and impossible combinations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator

from lusifer.training.recipe.data import Settings, Source
from lusifer.training.recipe.stage import AlignmentStage, ContrastiveStage

if TYPE_CHECKING:
    from pydantic_core import core_schema

    from lusifer.data.sources import SourceSpec
    from lusifer.model.bases.reading import Base

FULL = "full"
"""The name of the variant that is the unchanged recipe."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class BaseSettings(Settings):
    """One of the two bases."""

    path: str = Field(min_length=1)
    """A folder, or a file that is a complete base (begins with ./, ../, / or ~, or exists), a Hub id, `package:NAME` (a
    base inside an installed package; `package:NAME/FILE` where it has several), or `tiny:encoder` / `tiny:llm` (random
    weights of a few kilobytes, for tests)."""
    revision: str | None = None
    """Commit, tag or branch of a Hub id. `null` takes the newest."""
    layers: int | None = Field(default=None, ge=1)
    """Use the first N layers only; a norm behind the last one stays. `null` uses all. Set it for a smaller, faster
    model."""

    def base(self, **held: Any) -> Base:
        """Make the `Base` that reads it; `held` may have `dtype` and `device`."""
        from lusifer.model.bases.reading import Base  # imports torch

        return Base(self.path, self.revision, layers=self.layers, **held)


class StartSettings(Settings):
    """The model that a run begins with, in place of two bases."""

    path: str = Field(min_length=1)
    """A model folder (complete or a delta), `mini`, `package:NAME`, or a Hub id."""
    revision: str | None = None
    """Commit, tag or branch of a Hub id. `null` takes the newest."""


class _Registered:
    """The settings of a connector. The registry is read when a recipe is, so that connectors can be added."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(lambda value: self._kinds().validate_python(value))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: Any) -> dict[str, Any]:
        return handler(self._kinds().core_schema)

    def _kinds(self) -> TypeAdapter[Any]:
        from lusifer.model.connector_settings import registered_settings

        return TypeAdapter(registered_settings())


class Dtypes(Settings):
    """Number formats of the weights. What trains is float32, and adapters stay so."""

    frozen: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of a base whose own weights do not train. `auto` is bfloat16 if the machine has it, else
    float32."""
    finished: Literal["auto", "float32"] = "auto"
    """Number format of both bases when the finished model is loaded. `auto` is the one in which they trained."""
    added: Literal["float32", "float16"] = "float32"
    """Number format of the tensors that training added, on disk. float16 halves the finished delta; its numbers are
    rounded."""


class ModelSettings(Settings):
    """The two bases and what joins them."""

    start: Annotated[StartSettings | None, BeforeValidator(lambda v: {"path": v} if isinstance(v, str) else v)] = None
    """A finished model to train further, as a path, `mini`, a Hub id, or path and revision. Bases, connector, pooling,
    output projection and `max_length` come from it, so leave these keys out. Its prompts stay. `null` begins with the
    two bases."""
    encoder: BaseSettings = BaseSettings(path="FacebookAI/xlm-roberta-large")
    """The multilingual encoder."""
    llm: BaseSettings = BaseSettings(path="mistralai/Mistral-7B-Instruct-v0.3")
    """The English-centric LLM, or an embedder in its place."""
    connector: Annotated[Any, _Registered()] = Field(default={}, validate_default=True)
    """The module that maps the encoder's hidden states to the LLM's input."""
    pooling: Literal["mean", "weightedmean", "cls", "lasttoken"] = "mean"
    """How the LLM's hidden states become one vector."""
    output_projection: bool = True
    """Whether two linear layers with a ReLU between them (d -> d -> d) follow the pooling. Left out, it is `true` if a
    stage trains it."""
    dtype: Dtypes = Dtypes()
    """Number formats."""
    attn_implementation: Literal["sdpa", "eager"] = "sdpa"
    """Attention kernel of both backbones."""
    probes: bool = True
    """Whether the joined bases are tested before training: attention works in both directions, and padding and order do
    not change vectors. If it is `false`, the model card reports so."""

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, value: Any) -> Any:
        """Drop the keys of older recipes that have a fixed value now, and refuse any other value."""
        if not isinstance(value, dict):
            return value
        if value.get("include_prompt", True) is not True:
            raise ValueError("include_prompt: the prompt is always part of the mean, as published: remove the key")
        if value.get("residual", False) is not False:
            raise ValueError("residual: a path around the LLM is no longer supported: remove the key")
        return {key: item for key, item in value.items() if key not in ("include_prompt", "residual")}

    def join_settings(self) -> dict[str, Any]:
        """Return the settings that join the bases, as keywords of `LusiferConfig`."""
        return {
            "connector_type": self.connector.type,
            "connector_kwargs": self.connector.kwargs(),
            "num_soft_tokens": self.connector.num_soft_tokens,
            "pooling": self.pooling,
            "output_projection": self.output_projection,
        }


Stage = Annotated[AlignmentStage | ContrastiveStage, Field(discriminator="kind")]


class Variant(Settings):
    """What a variant of a recipe changes, for ablations."""

    stages: list[str] | None = Field(default=None, min_length=1)
    """Names of the stages that run, in the order of the recipe. `null` runs all."""
    set: list[str] = []
    """Keys to change, in the form of `--set`: "stages.contrastive.train.llm=frozen"."""


class Recipe(Settings):
    """A complete training run."""

    model_config = ConfigDict(title="recipe")

    name: str = Field(default="lusifer", pattern=NAME)
    """Name of the run and of the model."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of everything that is drawn: new weights, order of rows, masks, dropout."""
    max_length: int = Field(default=512, ge=8)
    """Longest text, in tokens of the encoder's tokenizer, special tokens included. Longer texts are truncated. It is
    also the limit of the finished model."""
    english_only: bool = True
    """Leave out sources in other languages than English (the published alignment list has three in Chinese). Set
    `false` to train on other languages; the model is then not zero-shot in them."""
    data_root: str | None = None
    """Folder that relative data paths start from. `null` is the recipe's own folder. In the recipe it is relative to
    the recipe's folder; with `--set` it is relative to the current folder."""
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = []
    """Services that also get the log, by transformers' own integrations. Each one is a package to install."""
    model: ModelSettings = Field(default_factory=ModelSettings)
    """The two bases and the connector."""
    stages: list[Stage] = Field(min_length=1)
    """The stages, in order; each one starts from the weights of the previous one."""
    variants: dict[Annotated[str, Field(pattern=NAME)], Variant] = {}
    """Variants to compare with the recipe, by name, for `lusifer ablate` and `lusifer train --variant NAME`."""

    @model_validator(mode="before")
    @classmethod
    def _projection_where_it_trains(cls, value: Any) -> Any:
        """Set the default of `model.output_projection`: true if a stage trains it, because untrained it is noise."""
        model = value.get("model", {}) if isinstance(value, dict) else None
        stages = value.get("stages") if isinstance(value, dict) else None
        if not isinstance(model, dict) or not isinstance(stages, list) or model.get("output_projection") is not None:
            return value
        settings = [stage.get("train") for stage in stages if isinstance(stage, dict)]
        trains = any(train.get("output_projection") is True for train in settings if isinstance(train, dict))
        return {**value, "model": {**model, "output_projection": trains}}

    @model_validator(mode="after")
    def _variants_known(self) -> Recipe:
        if FULL in self.variants:
            raise ValueError(f"variants.{FULL}: this name stands for the unchanged recipe: remove or rename it")
        for name, variant in self.variants.items():
            for stage in variant.stages or ():
                if stage not in [each.name for each in self.stages]:
                    known = ", ".join(each.name for each in self.stages)
                    raise ValueError(f"variants.{name}.stages: there is no stage {stage!r}: use {known}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"stages: the name {twice[0]!r} is used twice: give each stage its own name")
        for stage in self.stages:
            if stage.train.output_projection and not self.model.output_projection:
                raise ValueError(
                    f"stages.{stage.name}.train.output_projection: true, but model.output_projection is false: change "
                    "one of them"
                )
            if self.longest(stage) > self.max_length:
                raise ValueError(
                    f"stages.{stage.name}.max_length {stage.max_length} is above the recipe's max_length "
                    f"{self.max_length}: lower the first, or raise the second"
                )
            if not self.sources(stage):
                raise ValueError(f"stages.{stage.name}.data: english_only leaves no source: add an English one")
            for source in stage.evaluate.data if stage.evaluate and stage.evaluate.keep_best else ():
                if not self.reads(source):
                    raise ValueError(
                        f"stages.{stage.name}.evaluate: {source.name} ({source.language_code}) would choose the "
                        "weights, and english_only is true: set english_only or keep_best to false"
                    )
        return self

    @model_validator(mode="after")
    def _all_new_parts_train(self) -> Recipe:
        if self.model.start is not None:
            return self  # these parts are trained already
        new = {"connector": True, "output_projection": self.model.output_projection}
        for part in (name for name, there in new.items() if there):
            if not any(getattr(stage.train, part) for stage in self.stages):
                fix = "set model.output_projection: false, or " if part == "output_projection" else ""
                raise ValueError(
                    f"model.{part}: no stage trains it, and it starts with random weights: {fix}set train.{part}: "
                    "true in a stage"
                )
        return self

    @property
    def variant_names(self) -> list[str]:
        """The names of the variants, after "full", the unchanged recipe."""
        return [FULL, *self.variants]

    def longest(self, stage: Stage) -> int:
        """The longest text of a stage, in tokens of the encoder's tokenizer."""
        return stage.max_length or self.max_length

    def reads(self, source: Source) -> bool:
        """Whether a source is used; `english_only` leaves out sources in other languages."""
        return not self.english_only or self.language(source) == "en"

    def language(self, source: Source) -> str | None:
        """The language of a source. If it is not known, it is "en" with `english_only`, else None."""
        return source.language_code or ("en" if self.english_only else None)

    def sources(self, stage: Stage) -> list[Source]:
        """The sources that a stage trains on."""
        return [source for source in stage.data if self.reads(source)]

    def spec(self, stage: Stage, source: Source) -> SourceSpec:
        """Make the specification to load a source of a stage, with its key in the recipe for messages.

        Args:
            stage: The stage.
            source: A source of its `data` or `evaluate.data`.
        """
        scored = stage.evaluate.data if stage.evaluate else []
        places = [("data", *each) for each in enumerate(stage.data)]
        places += [("evaluate.data", *each) for each in enumerate(scored)]
        key, number = next((key, number) for key, number, each in places if each is source)
        return source.spec(self.seed, f"--set stages.{stage.name}.{key}.{number}.fields.")
