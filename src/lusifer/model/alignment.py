"""Stage 1, alignment (paper section 3.3): the frozen LLM reads `[BOS] soft prompt, target tokens`, predicts the target.

Two attention masks:

* "prefix" (default): the soft prompt attends to itself in both directions, the target is causal. No position sees
  the token it predicts.
* "bidirectional" (published code): everything attends to everything, so position i predicts a token i + 1 that it can
  see; a random mask over ids and keys hides part of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.utils import ModelOutput

from lusifer.model.config import LusiferConfig
from lusifer.model.connector import ConnectorOutput
from lusifer.model.lusifer import LusiferModel, LusiferPreTrainedModel
from lusifer.processor import multiplies

IGNORED = -100


@dataclass
class AlignmentOutput(ModelOutput):
    """`loss` (scalar); `token_loss` (N,), one value a labelled position in row order."""

    loss: torch.Tensor | None = None
    token_loss: torch.Tensor | None = None


class LusiferForAlignment(LusiferPreTrainedModel):
    """A LUSIFER model with the LLM's own LM head, frozen, on top (no head for an encoder-style LLM)."""

    base_model_prefix = "model"

    def __init__(
        self, config: LusiferConfig, model: LusiferModel | None = None, lm_head: nn.Module | None = None
    ) -> None:
        super().__init__(config)
        self.model = model if model is not None else LusiferModel(config)
        if lm_head is not None and getattr(config.llm, "final_logit_softcapping", None):
            raise ValueError(f"{config.llm.model_type} caps its logits, which this loss does not: use another LLM")
        self.lm_head = lm_head
        self.logits_chunk = 1024
        if model is None:
            self.post_init()

    def forward(self, *args: Any, **kwargs: Any) -> AlignmentOutput:
        """As `predict`."""
        return self.predict(*args, **kwargs)

    def predict(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        target_ids: torch.Tensor,
        target_attention_mask: torch.Tensor,
        labels: torch.Tensor,
        attention: str = "prefix",
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> AlignmentOutput:
        """Compute how well the LLM predicts the target behind the soft prompt of the source.

        Args:
            input_ids: (B, L), the source text, ids of the encoder's tokenizer.
            attention_mask: (B, L).
            target_ids: (B, T), ids of the LLM's tokenizer, possibly with masked ids; starts with BOS when
                `config.alignment_bos`.
            target_attention_mask: (B, T), 0 on padding and on keys hidden by masking.
            labels: (B, T), the ids to predict, -100 where there is none; the BOS column is never predicted.
            attention: "prefix" or "bidirectional".
            num_items_in_batch: labels in all micro-batches of the step, so that gradient accumulation weighs
                every label alike; the labels of this batch if left out.

        Returns:
            The loss, and the cross entropy of each labelled position.

        Raises:
            ValueError: an unknown attention, no label at all, or no LM head.
        """
        if self.lm_head is None:
            raise ValueError("no LM head was given: this objective needs the LLM's")
        prompt = self.model.soft_prompt(input_ids, attention_mask)
        leading = int(self.config.alignment_bos)
        hidden_states = self._run(prompt, target_ids, target_attention_mask, leading, attention)
        states, wanted = select_predictors(hidden_states, prompt.attention_mask, labels, leading)
        token_loss = self._token_loss(states, wanted)
        count = num_items_in_batch if num_items_in_batch is not None else len(wanted)
        return AlignmentOutput(token_loss.sum() / count, token_loss.detach())

    def _run(
        self, prompt: ConnectorOutput, ids: torch.Tensor, mask: torch.Tensor, leading: int, attention: str
    ) -> torch.Tensor:
        """The LLM over `[BOS] soft prompt, target`: hidden states (B, leading + L' + T - leading, d)."""
        words = self.model.llm.get_input_embeddings()(ids).to(prompt.inputs_embeds.dtype)
        embeds = torch.cat([words[:, :leading], prompt.inputs_embeds, words[:, leading:]], dim=1)
        key_mask = torch.cat([mask[:, :leading], prompt.attention_mask, mask[:, leading:]], dim=1)
        position_ids = target_positions(prompt, mask, leading)
        if attention == "prefix":
            key_mask = prefix_mask(key_mask, leading + prompt.attention_mask.shape[1], self.model.llm.dtype)
        elif attention != "bidirectional":
            raise ValueError(f"attention={attention!r} is unknown: use prefix or bidirectional")
        return self.model.run_llm(embeds, key_mask, position_ids)

    def _token_loss(self, states: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Cross entropy of labelled positions, `logits_chunk` of them at a time, so that few logits exist at once.

        States are (N, d), the ids to predict (N,), the result (N,) in float32. Each position has its own value: in
        bfloat16 the library's sum would keep three digits.
        """
        if not len(wanted):
            raise ValueError("no target token in the whole batch: every text is empty or cut away")
        weight = self.lm_head.weight
        losses = nn.functional.linear_cross_entropy(
            states.to(weight.dtype),
            weight,
            wanted,
            linear_bias=self.lm_head.bias,
            reduction="none",
            options=nn.LinearCrossEntropyOptions(
                batch_chunk_size=self.logits_chunk, chunking_method=None, acc_policy=_policy(weight)
            ),
        )
        return losses.float()


def _policy(weight: torch.Tensor) -> str:
    """How the products of the head are made, in the words of `LinearCrossEntropyOptions`.

    Left alone, torch multiplies bfloat16 on a processor as float32: five times the time of the instructions for it
    where there are such (`benchmarks/head.py`), and gradients that are no nearer.
    """
    ours = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and multiplies("bfloat16")
    return "accurate" if ours else "auto"


def target_positions(prompt: ConnectorOutput, target_mask: torch.Tensor, leading: int) -> torch.Tensor:
    """Position ids of `[BOS] soft prompt, target`: (B, L' + T).

    The prompt keeps its own positions, shifted by the BOS; the target goes on where the row's prompt ends. Keys that
    masking hides keep their place: only padding behind the last token shares a number, and nobody reads it.
    """
    batch, length = target_mask.shape
    device = target_mask.device
    start = prompt.position_ids.amax(dim=1, keepdim=True) + 1 + leading
    rest = start + torch.arange(length - leading, device=device)
    lead = torch.arange(leading, device=device).expand(batch, -1)
    return torch.cat([lead, prompt.position_ids + leading, rest], dim=1)


def prefix_mask(key_mask: torch.Tensor, prefix: int, dtype: torch.dtype) -> torch.Tensor:
    """Additive mask (B, 1, Q, K): the first `prefix` positions see each other, the rest see them and the past.

    `key_mask` (B, K) is 0 for padding and hidden keys; `prefix` counts BOS and soft prompt; `dtype` is of the scores.
    """
    order = torch.arange(key_mask.shape[1], device=key_mask.device)
    query, key = order[:, None], order[None, :]
    visible = (key < prefix) | ((query >= prefix) & (key <= query))
    allowed = visible[None] & key_mask.bool()[:, None, :]
    # The smallest number rather than -inf: a row of padding that sees nothing must not become NaN.
    mask = torch.zeros(allowed.shape, dtype=dtype, device=key_mask.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min).unsqueeze(1)


def select_predictors(
    hidden_states: torch.Tensor, prompt_mask: torch.Tensor, labels: torch.Tensor, leading: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The states that predict each label, and the labels.

    Target token t is predicted from the position before it; the first one from the last REAL position of the soft
    prompt (the position before it in memory may be padding).

    Hidden states are (B, leading + L' + T - leading, d), the prompt's mask (B, L'), labels (B, T); `leading` is 1 when
    labels[:, 0] belongs to a BOS in front of the prompt. Gives states (N, d) and labels (N,), in row order.
    """
    batch, length = prompt_mask.shape
    order = torch.arange(length, device=labels.device)
    last_real = torch.where(prompt_mask.bool(), order, -1).amax(dim=1, keepdim=True) + leading
    rest = labels[:, leading:]
    before = torch.arange(rest.shape[1] - 1, device=labels.device).expand(batch, -1) + leading + length
    index = torch.cat([last_real, before], dim=1)[:, : rest.shape[1]]
    rows, columns = torch.nonzero(rest != IGNORED, as_tuple=True)
    return hidden_states[rows, index[rows, columns]], rest[rows, columns]
