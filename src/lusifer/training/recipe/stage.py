"""The two kinds of stage of a recipe: their settings, and what follows from them for rows, memory and cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lusifer.errors import UsageError
from lusifer.training.objectives import OBJECTIVES
from lusifer.training.objectives.objective import PAIRED_ROLES, Objective
from lusifer.training.recipe.data import AlignmentSource, PairSource
from lusifer.training.recipe.stage_settings import Pass, StageSettings


class AlignmentStage(StageSettings):
    """Stage 1: the frozen LLM learns nothing, the encoder and the connector learn to speak to it."""

    kind: Literal["alignment"]
    """Which kind of stage this is."""
    objectives: dict[str, Annotated[float, Field(ge=0)]]
    """What the loss is made of: the share of steps that each objective gets, by name. reconstruction: the LLM predicts
    the text itself; completion: the LLM predicts what belongs to the text, query to passage or passage to query (needs
    paired data); distill: the vector should match the LLM's own vector of the text (the LLM must be an embedder)."""
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

    @field_validator("objectives")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        """Refuse unknown names; those left out get weight 0, in the order of the registry."""
        for name in value:
            if name not in OBJECTIVES:
                raise ValueError(f"{name} is no alignment objective: use {', '.join(OBJECTIVES)}")
        if not sum(value.values()) > 0:
            raise ValueError(f"the weights add up to 0: give {', '.join(OBJECTIVES)} a weight above 0")
        return {name: value.get(name, 0.0) for name in OBJECTIVES}

    @model_validator(mode="after")
    def _objectives_possible(self) -> AlignmentStage:
        if self.train.llm != "frozen":
            raise ValueError("train.llm: the LLM is what the encoder is aligned to: set it to frozen")
        active = self.active
        for each in active:
            if each.needs_pairs and all(source.role not in PAIRED_ROLES for source in self.data):
                raise ValueError(
                    f"objectives.{each.name} needs paired data: add a source with role passage_and_query or "
                    "query_to_passage, or set the weight to 0"
                )
        if self.attention == "bidirectional" and not any(each.needs_head for each in active):
            names = " and ".join(each.name for each in active)
            raise ValueError(f"attention: bidirectional has no meaning for {names} alone, which has no target tokens")
        for each in OBJECTIVES.values():
            option = next((option for option in each.options if each not in active and getattr(self, option)), None)
            if option is not None:
                raise ValueError(f"{option} is a part of {each.name}: give {each.name} a weight, or set it to 0")
        if self.train.output_projection and not any(each.trains_vector for each in active):
            names = " or ".join(each.name for each in OBJECTIVES.values() if each.trains_vector)
            raise ValueError(
                f"train.output_projection: only {names} reaches it: give {names} a weight, or set it to false"
            )
        return self

    @property
    def active(self) -> list[Objective]:
        """The objectives with a weight above 0, in the order of the registry."""
        return [OBJECTIVES[name] for name, weight in self.objectives.items() if weight > 0]

    @property
    def needs_head(self) -> bool:
        """Whether an objective predicts tokens by the LLM's LM head."""
        return any(each.needs_head for each in self.active)

    @property
    def needs_embedder(self) -> bool:
        """Whether an objective compares with the LLM's own vectors."""
        return any(each.needs_embedder for each in self.active)

    @property
    def passes(self) -> list[Pass]:
        """One kind of pass for objectives that need the same of the LLM."""
        total, shares = sum(self.objectives.values()), {}
        for each in self.active:
            key = each.needs_head, each.needs_embedder
            shares[key] = shares.get(key, 0.0) + self.objectives[each.name] / total
        return [Pass(share, *key, self.logits_chunk) for key, share in shares.items()]

    def refuse_llm(self, config: Any, has_head: bool) -> None:
        """Refuse an LLM without LM head for objectives that predict tokens."""
        needy = " and ".join(each.name for each in self.active if each.needs_head)
        if needy and not has_head:
            raise UsageError(
                f"stages.{self.name}.objectives: {config.model_type} has no LM head, which {needy} need: use "
                "objectives: {distill: 1}"
            )

    def words(self) -> dict[str, str]:
        """Describe objectives, their settings and the tokens left out."""
        total = sum(self.objectives.values())
        shares = [f"{each.name} in {self.objectives[each.name] / total:.0%} of the steps" for each in self.active]
        found = {"objective": ", ".join(shares) if len(shares) > 1 else self.active[0].name}
        for each in self.active:
            found |= each.words(self)
        if self.token_dropout:
            found["tokens kept from the encoder"] = f"up to {self.token_dropout:.0%} of a text"
        return found


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

    @property
    def columns(self) -> int:
        """Query, positive and hard negatives."""
        return 2 + self.hard_negatives

    @property
    def caches_gradients(self) -> bool:
        """Both losses are cached."""
        return True

    def rows_at_once(self, length: int) -> int:
        """Texts in memory at once if all have `length` tokens."""
        return max(1, self.mini_batch_tokens // length) if self.mini_batch_tokens else self.mini_batch_size

    def refuse_llm(self, config: Any, has_head: bool) -> None:
        """Refuse Matryoshka dimensions that the LLM's vectors do not have."""
        if self.matryoshka_dims and max(self.matryoshka_dims) > config.hidden_size:
            raise UsageError(
                f"stages.{self.name}.matryoshka_dims: {max(self.matryoshka_dims)} is more than the "
                f"{config.hidden_size} dimensions of the vector"
            )

    def words(self) -> dict[str, str]:
        """Describe loss, negatives and Matryoshka dimensions."""
        losses = {"infonce": "InfoNCE on cosine similarity", "ntxent_l2": "NT-Xent on the L2 distance, pairs mined"}
        found = {
            "loss": f"{losses[self.loss]}, temperature {self.temperature:g}",
            "hard negatives": f"{self.hard_negatives} a row",
        }
        if self.matryoshka_dims:
            found["leading dimensions trained as well"] = ", ".join(map(str, self.matryoshka_dims))
        return found
