"""The settings of the two kinds of stage, and the numbers of rows, steps and passes that follow from them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lusifer.errors import UsageError
from lusifer.training.objectives import BUILT_IN, OBJECTIVES
from lusifer.training.objectives.objective import PAIRED_ROLES, Objective
from lusifer.training.recipe.data import AlignmentSource, Evaluate, PairSource, Settings, Watch
from lusifer.training.recipe.parts import BackboneLoRA, Pass, Train

MIN_LEARNING_RATE = 1e-7  # published code


class StageSettings(Settings):
    """What both kinds of stage have."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")
    """Name of the stage, for `--set stages.NAME.KEY=VALUE`, log lines and folder names."""
    train: Train
    """What trains in this stage."""
    lora: BackboneLoRA = BackboneLoRA()
    """Adapters of the backbones that train by `lora`."""
    batch_size: int = Field(default=256, ge=1)
    """Rows of one optimizer step, over all processes. In a contrastive stage a larger batch has more negatives."""
    mini_batch_size: int = Field(default=32, ge=1)
    """Rows in memory at once, in each process. `batch_size` must be a multiple of it; a smaller `batch_size` lowers it.
    Lower it when memory is short, raise it for speed."""
    max_length: int | None = Field(default=None, ge=8)
    """Longest text in this stage, in tokens of the encoder's tokenizer. `null` is the recipe's `max_length`. Lower it
    to train faster; the finished model still reads up to the recipe's `max_length`."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps. Give either this or epochs."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the data. Give either this or `max_steps`."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate of AdamW. Lower it when the loss diverges."""
    min_learning_rate: float = Field(default=MIN_LEARNING_RATE, ge=0)
    """Learning rate at the end of the schedule. Leave it out with `schedule: constant`."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after warm-up."""
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps in which the learning rate rises."""
    warmup_steps: int | None = Field(default=500, ge=0)
    """Upper bound of the warm-up, in steps: the smaller of this and `warmup_ratio` applies. `null` sets no bound."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients with a larger norm are scaled down to this norm."""
    bf16: Literal["auto"] | bool = "auto"
    """Mixed precision in bfloat16. `auto` uses it on a GPU that has it. Set `true` on a CPU with AVX-512 bf16 or
    AMX."""
    gradient_checkpointing: bool = False
    """Compute activations a second time in the backward pass instead of storing them. Turn it on when memory is short;
    a step takes longer."""
    compile: bool = False
    """Compile the layers of the backbones: one to two minutes at the start, less time a step. It needs a C++ compiler
    and the headers of Python on a CPU, triton and a C compiler on a GPU."""
    save_steps: int = Field(default=500, ge=1)
    """Steps between checkpoints. Lower it if the machine may stop at any time. May change on `--resume`."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Number of checkpoints to store; older ones are deleted. May change on `--resume`."""
    logging_steps: int = Field(default=10, ge=1)
    """Steps between lines of the log. May change on `--resume`."""
    watch: Watch | None = None
    """Compute the gap between languages while the stage trains. `null` turns this off."""
    evaluate: Evaluate | None = None
    """Score pairs while the stage trains, and store the best weights. `null` turns this off."""

    @model_validator(mode="before")
    @classmethod
    def _default_lora(cls, value: Any) -> Any:
        """Add the published LoRA settings for a backbone that trains by lora and has none."""
        if not isinstance(value, dict) or not isinstance(value.get("train"), dict):
            return value
        lora = value.get("lora") or {}
        if not isinstance(lora, dict):
            return value
        defaults = {"encoder": "lora", "llm": "frozen"}
        wanted = [backbone for backbone in defaults if value["train"].get(backbone, defaults[backbone]) == "lora"]
        return {**value, "lora": {**lora, **{backbone: {} for backbone in wanted if lora.get(backbone) is None}}}

    @model_validator(mode="before")
    @classmethod
    def _no_more_than_a_batch(cls, value: Any) -> Any:
        """Lower the mini-batch to the batch size if the batch is smaller."""
        if not isinstance(value, dict):
            return value
        batch, mini = (value.get(key, cls.model_fields[key].default) for key in ("batch_size", "mini_batch_size"))
        known = type(batch) is int and type(mini) is int  # a bool is refused later
        return {**value, "mini_batch_size": batch} if known and 1 <= batch < mini else value

    @model_validator(mode="after")
    def _possible(self) -> StageSettings:
        if self.max_steps is None and self.epochs is None:
            raise ValueError("give either max_steps or epochs")
        if self.max_steps is not None and self.epochs is not None:
            raise ValueError(
                f"max_steps and epochs are both given: remove one, as with --set stages.{self.name}.epochs=null"
            )
        if self.batch_size % self.mini_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of mini_batch_size {self.mini_batch_size}: "
                "change one of them"
            )
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate} is above learning_rate {self.learning_rate}: lower it"
            )
        if self.schedule == "constant" and self.min_learning_rate != MIN_LEARNING_RATE:
            raise ValueError("min_learning_rate has no effect with schedule: constant: remove it")
        for backbone in ("encoder", "llm"):
            if getattr(self.lora, backbone) is not None and getattr(self.train, backbone) != "lora":
                raise ValueError(
                    f"lora.{backbone} is given, but train.{backbone} is {getattr(self.train, backbone)}: "
                    f"set train.{backbone}: lora, or remove lora.{backbone}"
                )
        if {self.train.encoder, self.train.llm} == {"frozen"} and not (
            self.train.connector or self.train.output_projection
        ):
            raise ValueError("train: everything is frozen: let at least one part train")
        return self

    def warmup(self, steps: int) -> int:
        """The warm-up steps of a stage of `steps` steps: `warmup_ratio` of them, at most `warmup_steps`."""
        share = math.ceil(self.warmup_ratio * steps)
        return share if self.warmup_steps is None else min(share, self.warmup_steps)

    def steps(self, rows: int) -> int:
        """The optimizer steps on `rows` rows: `max_steps`, or those of `epochs` (the last one may be partial)."""
        return self.max_steps or max(1, math.ceil(self.epochs * rows / self.batch_size))

    @property
    def columns(self) -> int:
        """The number of texts of a row that are embedded."""
        return 1

    @property
    def embeds_twice(self) -> bool:
        """Whether each text is embedded twice, first without gradient."""
        return False

    @property
    def passes(self) -> list[Pass]:
        """The kinds of forward and backward pass of a step, with shares that add up to 1."""
        return [Pass()]

    def rows_at_once(self, length: int) -> int:
        """The number of rows in memory at once if all texts have `length` tokens."""
        return self.mini_batch_size

    def refuse_llm(self, config: Any, has_head: bool) -> None:
        """Refuse an LLM that this stage cannot use.

        Args:
            config: The `PreTrainedConfig` of the LLM.
            has_head: Whether the LLM has an LM head.

        Raises:
            UsageError: The stage cannot use the LLM.
        """


class AlignmentStage(StageSettings):
    """Stage 1: the encoder and the connector learn to give hidden states that the frozen LLM can read."""

    kind: Literal["alignment"]
    """An alignment stage (stage 1)."""
    objectives: dict[str, Annotated[float, Field(ge=0)]]
    """Objectives and the share of steps that each one gets. `reconstruction`: the LLM predicts the text itself.
    `completion`: the LLM predicts the passage from the query or the query from the passage (needs pairs). `distill`:
    the vector should match the LLM's own vector of the text (the LLM must be an embedder). `reconstruction` and
    `completion` need an LLM with an LM head."""
    attention: Literal["prefix", "bidirectional"] = "prefix"
    """How the LLM attends to the target tokens. `prefix`: the target is causal, and no position sees its own label.
    `bidirectional`: as in the published code, only masks hide the labels."""
    mask_probability: float = Field(default=0.5, ge=0, le=1)
    """Probability that a target token is replaced by the mask token."""
    attention_mask_probability: float | None = Field(default=None, ge=0, le=1)
    """Probability that a target token is hidden from attention, drawn independently. `null` takes
    `mask_probability`."""
    distill_contrast: float = Field(default=0.0, ge=0)
    """Weight, within `distill`, of a contrastive term: the LLM's own vector of a text against the vectors of the other
    texts in the mini-batch. It needs `distill`."""
    token_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Highest share of tokens that the encoder does not read; the target stays complete. For each text, the share is
    drawn uniformly between 0 and this value."""
    logits_chunk: int = Field(default=1024, ge=1)
    """Labels whose logits are in memory at once. Lower it when memory is short."""
    data: list[AlignmentSource] = Field(min_length=1)
    """Sources of rows."""

    @field_validator("objectives")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        """Refuse unknown names with a weight, add the built-in objectives with weight 0, and sort as the registry."""
        for name, weight in value.items():
            if name not in OBJECTIVES and weight:
                raise ValueError(f"{name} is no alignment objective: use {', '.join(OBJECTIVES)}")
        if not sum(value.values()) > 0:
            raise ValueError(f"the weights add up to 0: give {', '.join(OBJECTIVES)} a weight above 0")
        return {name: value.get(name, 0.0) for name in OBJECTIVES if name in value or name in BUILT_IN}

    @model_validator(mode="after")
    def _objectives_possible(self) -> AlignmentStage:
        if self.train.llm != "frozen":
            raise ValueError("train.llm: alignment works with a frozen LLM only: set it to frozen")
        if self.evaluate is not None and self.evaluate.held is not None:
            raise ValueError("evaluate.held: works in a contrastive stage only: give evaluate.data instead")
        active = self.active
        for each in active:
            if each.needs_pairs and all(source.role not in PAIRED_ROLES for source in self.data):
                raise ValueError(
                    f"objectives.{each.name} needs paired data: add a source with role passage_and_query or "
                    "query_to_passage, or set the weight to 0"
                )
        if self.attention == "bidirectional" and not any(each.needs_head for each in active):
            names = " and ".join(each.name for each in active)
            raise ValueError(f"attention: bidirectional has no effect with {names} alone: remove it")
        for each in OBJECTIVES.values():
            option = next((option for option in each.options if each not in active and getattr(self, option)), None)
            if option is not None:
                raise ValueError(f"{option} needs {each.name}: give {each.name} a weight, or set {option} to 0")
        if self.train.output_projection and not any(each.trains_vector for each in active):
            names = " or ".join(each.name for each in OBJECTIVES.values() if each.trains_vector)
            raise ValueError(
                f"train.output_projection: only {names} trains it: give {names} a weight, or set it to false"
            )
        return self

    @property
    def active(self) -> list[Objective]:
        """The objectives with a weight above 0, in the order of the registry."""
        return [OBJECTIVES[name] for name, weight in self.objectives.items() if weight > 0]

    @property
    def needs_head(self) -> bool:
        """Whether an objective predicts tokens with the LM head of the LLM."""
        return any(each.needs_head for each in self.active)

    @property
    def needs_embedder(self) -> bool:
        """Whether an objective compares with the LLM's own vectors."""
        return any(each.needs_embedder for each in self.active)

    @property
    def passes(self) -> list[Pass]:
        """One kind of pass for each combination of `needs_head` and `needs_embedder` of the objectives."""
        total, shares = sum(self.objectives.values()), {}
        for each in self.active:
            key = each.needs_head, each.needs_embedder
            shares[key] = shares.get(key, 0.0) + self.objectives[each.name] / total
        return [Pass(share, *key, self.logits_chunk) for key, share in shares.items()]

    def refuse_llm(self, config: Any, has_head: bool) -> None:
        """Refuse an LLM without an LM head if an objective predicts tokens."""
        needy = " and ".join(each.name for each in self.active if each.needs_head)
        if needy and not has_head:
            raise UsageError(
                f"stages.{self.name}.objectives: {needy} needs an LM head, and {config.model_type} has none: use "
                "objectives: {distill: 1}"
            )


class ContrastiveStage(StageSettings):
    """Stage 2: queries are pulled to their positives and pushed away from negatives."""

    kind: Literal["contrastive"]
    """A contrastive stage (stage 2)."""
    gradient_cache: bool = True
    """`true` embeds each text twice, first without gradient, so that memory holds one mini-batch. `false` embeds it
    once: less time, but memory holds the complete batch."""
    loss: Literal["infonce", "ntxent_l2"] = "infonce"
    """`infonce`: cosine similarity. `ntxent_l2`: negative L2 distance with mined pairs, as in the published code."""
    temperature: float = Field(default=0.05, gt=0)
    """Similarities are divided by it. A lower value weights the hardest negatives more."""
    hard_negatives: int = Field(default=7, ge=0)
    """Hard negatives of each row. A row with fewer is filled up with texts of other rows, or with its own negatives
    again. 0 uses in-batch negatives alone."""
    mini_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens in memory at once, padding included, in place of `mini_batch_size`. `null` counts rows. Set it if the
    lengths of texts differ much."""
    matryoshka_dims: list[int] | None = Field(default=None, min_length=1)
    """Numbers of leading dimensions that are also trained as separate vectors, as in `[256, 128]`. `null` trains
    complete vectors only. Set it to shorten vectors later."""
    miner_epsilon: float = Field(default=0.25, ge=0)
    """Margin of the multi-similarity miner; only `ntxent_l2` reads it."""
    distill: float = Field(default=0.0, ge=0)
    """Weight of a second loss that keeps vectors near the LLM's own vectors of the same texts. An index that the LLM
    made stays usable. The LLM must be an embedder."""
    distill_contrast: float = Field(default=0.0, ge=0)
    """Weight, within `distill`, of a contrastive term: the LLM's own vector of a text against those of the other texts
    of the batch. It needs `distill`."""
    data: list[PairSource] = Field(min_length=1)
    """Sources of pairs."""

    @model_validator(mode="after")
    def _loss_possible(self) -> ContrastiveStage:
        dims = self.matryoshka_dims
        if dims is not None and (min(dims) < 1 or len(set(dims)) < len(dims)):
            raise ValueError(f"matryoshka_dims {dims}: give different numbers above 0")
        if dims is not None and self.loss != "infonce":
            raise ValueError("matryoshka_dims works with loss: infonce only: change one of them")
        if dims is not None and self.distill:
            raise ValueError("matryoshka_dims and distill do not work together: remove one of them")
        if self.distill_contrast and not self.distill:
            raise ValueError("distill_contrast needs distill: give distill a weight, or set distill_contrast to 0")
        if not self.hard_negatives and any(not source.in_batch_negatives for source in self.data):
            raise ValueError(
                "hard_negatives: 0 leaves a source with in_batch_negatives: false without negatives: raise it"
            )
        if self.batch_size == 1 and not self.hard_negatives and not self.distill:
            raise ValueError("batch_size: 1 with hard_negatives: 0 has no negatives: raise one of them")
        return self

    @property
    def columns(self) -> int:
        """The number of texts of a row: query, positive and hard negatives."""
        return 2 + self.hard_negatives

    @property
    def needs_embedder(self) -> bool:
        """Whether the loss compares with the LLM's own vectors, as `distill` does."""
        return self.distill > 0

    @property
    def embeds_twice(self) -> bool:
        """Whether `gradient_cache` is on."""
        return self.gradient_cache

    @property
    def passes(self) -> list[Pass]:
        """One kind of pass, for all texts of a step."""
        return [Pass(teacher=self.needs_embedder)]

    def rows_at_once(self, length: int) -> int:
        """The number of texts in memory at once if all have `length` tokens."""
        if not self.gradient_cache:
            return self.batch_size * self.columns
        return max(1, self.mini_batch_tokens // length) if self.mini_batch_tokens else self.mini_batch_size

    def refuse_llm(self, config: Any, has_head: bool) -> None:
        """Refuse Matryoshka dimensions above the dimensions of the LLM's vectors."""
        if self.matryoshka_dims and max(self.matryoshka_dims) > config.hidden_size:
            raise UsageError(
                f"stages.{self.name}.matryoshka_dims: {max(self.matryoshka_dims)} is more than the "
                f"{config.hidden_size} dimensions of the vectors: lower it"
            )
