"""What both kinds of stage of a recipe have: what trains, how, and what is measured on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from lusifer import language_gap
from lusifer.errors import DataError
from lusifer.io import parallel_text
from lusifer.training.recipe.data import Settings


class LoRA(Settings):
    """Low-rank adapters of one tower; the defaults are the published ones."""

    r: int = Field(default=16, ge=1)
    """Rank."""
    alpha: float = Field(default=32, gt=0)
    """The update is scaled by alpha / r."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability that an input of the adapter is dropped."""
    targets: list[str] | str | None = None
    """Names of the linear layers, or one regular expression; null takes the linear layers of the architecture's
    blocks (for Mistral and Llama the published q, k, v, o, gate, up and down)."""


class TowerLoRA(Settings):
    """Adapters by tower; null where the tower has none."""

    encoder: LoRA | None = None
    """Of the multilingual encoder."""
    llm: LoRA | None = None
    """Of the LLM."""


class Train(Settings):
    """What trains in a stage."""

    encoder: Literal["lora", "full", "frozen"] = "lora"
    """The multilingual encoder: adapters, all weights, nothing."""
    llm: Literal["lora", "full", "frozen"] = "frozen"
    """The LLM."""
    connector: bool = True
    """The connector and its soft tokens."""
    output_projection: bool = False
    """The layers after the pooling."""


class Watch(Settings):
    """Embed parallel text now and then with the model as it stands. Nothing is learned from that text."""

    every: int = Field(default=100, ge=1)
    """Steps between measurements; the last step of the stage is measured as well."""
    parallel: str = Field(default=parallel_text.SAMPLE, min_length=1)
    """A .jsonl or .jsonl.gz file, one object a line, a sentence by language code (en among them); relative to
    `data_root`. `sample` is the one in the package: 28 sentences in 14 languages."""
    metric: Literal["retrieval", "margin"] = "retrieval"
    """What counts as better. retrieval: accuracy at 1 of translations, both ways, mean over languages; margin: mean
    cosine of translations less that of others. A model that gives one vector for all is bad by both."""
    patience: int | None = Field(default=None, ge=1)
    """Measurements in a row that are no better than the best one, after which the stage ends. With it the model of the
    stage is that of the best measurement (of the last such one), however the stage ends; null only watches: the stage
    runs to its last step, and that is its model."""

    def read(self) -> parallel_text.Parallel:
        """Read the parallel text.

        Raises:
            DataError: The file cannot be read, or has too few sentences.
        """
        found = parallel_text.read(self.parallel)
        if found.sentences <= language_gap.K:
            raise DataError(
                f"{self.parallel}: {found.sentences} sentences a language: {language_gap.K + 1} or more are needed"
            )
        return found

    def words(self, steps: int | None) -> str:
        """Say what a stage is watched on, how often, and what follows from it.

        Args:
            steps: Of the stage; None where they are unknown.

        Raises:
            DataError: As for `read`.
        """
        found = self.read()
        texts = found.sentences * len(found.texts)
        often = "" if steps is None else f" ({-(-steps // self.every):,} times in {steps:,} steps)"
        end = "; ends no stage"
        if self.patience is not None:
            measured = "measurement" if self.patience == 1 else "measurements"
            end = (
                f"; ends the stage after {self.patience} {measured} without a better {self.metric}, the best is its "
                "model"
            )
        return (
            f"watched every {self.every:,} steps and at the end{often}: {texts:,} texts, {found.sentences:,} sentences "
            f"in {len(found.texts)} languages ({self.parallel.rpartition('/')[2]}){end}"
        )


@dataclass(frozen=True)
class Pass:
    """One kind of forward and backward pass of a stage, for estimates.

    `share` of the steps; whether the LLM `predicts` a target as long as the text, `chunk` labels at a time; whether the
    LLM also reads the text itself as `teacher`.
    """

    share: float = 1.0
    predicts: bool = False
    teacher: bool = False
    chunk: int = 1


class StageSettings(Settings):
    """What both kinds of stage have."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")
    """Name of the stage, for --set, logs and folders."""
    train: Train
    """What trains."""
    lora: TowerLoRA = TowerLoRA()
    """Adapters of the towers that train by lora; left out, the published settings."""
    batch_size: int = Field(default=256, ge=1)
    """Rows of one optimizer step, over all processes."""
    mini_batch_size: int = Field(default=32, ge=1)
    """Rows that are in memory at once, in each process."""
    max_length: int | None = Field(default=None, ge=8)
    """Longest text in this stage, in tokens of the encoder's tokenizer; null is the recipe's max_length. Short texts
    train faster, and the finished model reads up to the recipe's max_length all the same."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; give this or epochs."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the data; give this or max_steps."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate of AdamW."""
    min_learning_rate: float = Field(default=1e-7, ge=0)
    """Learning rate that the schedule ends at."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after warm-up."""
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps in which the learning rate rises."""
    warmup_steps: int | None = Field(default=500, ge=0)
    """Most steps of warm-up: the smaller of this and the share counts; null sets no bound."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    bf16: Literal["auto"] | bool = "auto"
    """Mixed precision; auto uses it on a GPU that has it."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them."""
    compile: bool = False
    """Compile the layers of the backbones: a minute or two at the start, less time a step. Needs a
    C++ compiler and the headers of Python on a CPU, triton and a C compiler on a GPU."""
    save_steps: int = Field(default=500, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints kept, the newest."""
    logging_steps: int = Field(default=10, ge=1)
    """Steps between lines of the log."""
    watch: Watch | None = None
    """Measure the gap between languages while the stage trains, and perhaps end the stage by it; null does not."""

    @model_validator(mode="before")
    @classmethod
    def _default_lora(cls, value: Any) -> Any:
        """A tower that trains by lora has the published settings where none are given."""
        if not isinstance(value, dict) or not isinstance(value.get("train"), dict):
            return value
        lora = value.get("lora") or {}
        if not isinstance(lora, dict):
            return value
        defaults = {"encoder": "lora", "llm": "frozen"}
        wanted = [tower for tower in defaults if value["train"].get(tower, defaults[tower]) == "lora"]
        return {**value, "lora": {**lora, **{tower: {} for tower in wanted if lora.get(tower) is None}}}

    @model_validator(mode="after")
    def _possible(self) -> StageSettings:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError("give either max_steps or epochs, not both")
        if self.batch_size % self.mini_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of mini_batch_size {self.mini_batch_size}: "
                "change one of them"
            )
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate {self.min_learning_rate} is above learning_rate {self.learning_rate}")
        for tower in ("encoder", "llm"):
            if getattr(self.lora, tower) is not None and getattr(self.train, tower) != "lora":
                raise ValueError(
                    f"lora.{tower} is given, but train.{tower} is {getattr(self.train, tower)}: "
                    f"set train.{tower}: lora, or remove lora.{tower}"
                )
        if {self.train.encoder, self.train.llm} == {"frozen"} and not (
            self.train.connector or self.train.output_projection
        ):
            raise ValueError("train: everything is frozen: let at least one part train")
        return self

    def warmup(self, steps: int) -> int:
        """Steps of warm-up of a run of `steps`: the share, bounded by `warmup_steps`."""
        share = math.ceil(self.warmup_ratio * steps)
        return share if self.warmup_steps is None else min(share, self.warmup_steps)

    def steps(self, rows: int) -> int:
        """Optimizer steps on `rows` rows: `max_steps`, or what `epochs` come to (the last one may be partial)."""
        return self.max_steps or max(1, math.ceil(self.epochs * rows / self.batch_size))

    @property
    def columns(self) -> int:
        """Texts of a row that are embedded."""
        return 1

    @property
    def caches_gradients(self) -> bool:
        """Whether each text is embedded twice, first without gradient (the gradient cache of a contrastive loss)."""
        return False

    @property
    def passes(self) -> list[Pass]:
        """The kinds of pass that a step may consist of; their shares add up to 1."""
        return [Pass()]

    def rows_at_once(self, length: int) -> int:
        """Rows in memory at once if all texts have `length` tokens."""
        return self.mini_batch_size

    def refuse_llm(self, config: Any, has_head: bool) -> None:
        """Refuse an LLM that cannot serve this stage.

        Args:
            config: Of the LLM (`PreTrainedConfig`).
            has_head: Whether it has an LM head.

        Raises:
            UsageError: Names the key, and what to do.
        """

    def words(self) -> dict[str, str]:
        """Describe the loss, for the model card: name of a setting -> words."""
        return {}
