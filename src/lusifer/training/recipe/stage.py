"""The two kinds of stage of a recipe."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from lusifer.data.stages.alignment import PAIRED_ROLES
from lusifer.training.recipe.data import AlignmentSource, PairSource, Settings
from lusifer.training.recipe.watch import Watch


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


class Objectives(Settings):
    """Weights of the alignment objectives: the share of steps that each gets."""

    reconstruction: float = Field(default=0.0, ge=0)
    """The LLM predicts the text itself."""
    completion: float = Field(default=0.0, ge=0)
    """The LLM predicts what belongs to the text: query to passage, passage to query. Needs paired data."""
    distill: float = Field(default=0.0, ge=0)
    """The vector should match the LLM's own vector of the text. The LLM must be an embedder."""

    @model_validator(mode="after")
    def _some(self) -> Objectives:
        if not self.reconstruction + self.completion + self.distill > 0:
            raise ValueError("the weights add up to 0: give reconstruction, completion or distill a weight above 0")
        return self


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


class AlignmentStage(StageSettings):
    """Stage 1: the frozen LLM learns nothing, the encoder and the connector learn to speak to it."""

    kind: Literal["alignment"]
    """Which kind of stage this is."""
    objectives: Objectives
    """What the loss is made of."""
    attention: Literal["prefix", "bidirectional"] = "prefix"
    """prefix: the target is causal, no label is visible; bidirectional: as published, labels hidden by masks only."""
    mask_probability: float = Field(default=0.5, ge=0, le=1)
    """Probability that a target token is replaced by the mask token."""
    attention_mask_probability: float | None = Field(default=None, ge=0, le=1)
    """Probability that a target token is hidden from attention, drawn apart; null is the same as mask_probability."""
    distill_contrast: float = Field(default=0.0, ge=0)
    """Weight, within distill, of telling the LLM's own vector of a text from those of the other texts in memory at once
    (mini_batch_size)."""
    token_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Tokens that the encoder does not get to read while the target stays whole: each text leaves out a share drawn
    evenly from 0 to this. A text with gaps is what a language looks like of which the encoder knows only some words."""
    logits_chunk: int = Field(default=1024, ge=1)
    """Labels whose logits are in memory at once."""
    data: list[AlignmentSource] = Field(min_length=1)
    """Where rows come from."""

    @model_validator(mode="after")
    def _objectives_possible(self) -> AlignmentStage:
        if self.train.llm != "frozen":
            raise ValueError("train.llm: the LLM is what the encoder is aligned to: set it to frozen")
        if self.objectives.completion > 0 and all(source.role not in PAIRED_ROLES for source in self.data):
            raise ValueError(
                "objectives.completion needs paired data: add a source with role passage_and_query or "
                "query_to_passage, or set the weight to 0"
            )
        language_model = self.objectives.reconstruction + self.objectives.completion
        if self.attention == "bidirectional" and not language_model > 0:
            raise ValueError("attention: bidirectional has no meaning for distill alone, which has no target tokens")
        if self.distill_contrast and not self.objectives.distill > 0:
            raise ValueError("distill_contrast is a part of distill: give distill a weight, or set it to 0")
        if self.train.output_projection and not self.objectives.distill > 0:
            raise ValueError(
                "train.output_projection: only distill reaches it: give distill a weight, or set it to false"
            )
        return self


class ContrastiveStage(StageSettings):
    """Stage 2: queries move to their positives and away from negatives."""

    kind: Literal["contrastive"]
    """Which kind of stage this is."""
    loss: Literal["infonce", "ntxent_l2"] = "infonce"
    """infonce: cosine similarity; ntxent_l2: minus the L2 distance with mined pairs, as in the published code."""
    temperature: float = Field(default=0.05, gt=0)
    """Similarities are divided by it."""
    hard_negatives: int = Field(default=7, ge=0)
    """Hard negatives of each row."""
    mini_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens in memory at once, padding included, in place of mini_batch_size; null counts rows."""
    matryoshka_dims: list[int] | None = Field(default=None, min_length=1)
    """Leading dimensions whose vectors are trained as well; null trains whole vectors only."""
    miner_epsilon: float = Field(default=0.25, ge=0)
    """Margin of the multi-similarity miner of ntxent_l2."""
    data: list[PairSource] = Field(min_length=1)
    """Where rows come from."""

    @model_validator(mode="after")
    def _loss_possible(self) -> ContrastiveStage:
        dims = self.matryoshka_dims
        if dims is not None and (min(dims) < 1 or len(set(dims)) < len(dims)):
            raise ValueError(f"matryoshka_dims {dims}: give different numbers above 0")
        if dims is not None and self.loss != "infonce":
            raise ValueError("matryoshka_dims works with loss: infonce only")
        if not self.hard_negatives and any(not source.in_batch_negatives for source in self.data):
            raise ValueError(
                "hard_negatives: 0 leaves a source with in_batch_negatives: false without any negative: raise it"
            )
        return self
