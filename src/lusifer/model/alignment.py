"""The alignment model (stage 1, paper section 3.3): the frozen LLM reads a soft prompt and predicts target tokens.

The LLM's input is `[BOS] soft prompt, target tokens`. There are two attention masks:

* "prefix" (default): the soft prompt attends to itself in both directions, and the target is causal. No position sees
  the token that it predicts.
* "bidirectional" (published code): all positions attend to each other, so position i sees the token i + 1 that it
  predicts. A random mask over ids and keys hides a part of the target.
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
    """`loss`, a scalar, and `token_loss` (N,), float32, one value for each labeled position in row order."""

    loss: torch.Tensor | None = None
    token_loss: torch.Tensor | None = None


class LusiferForAlignment(LusiferPreTrainedModel):
    """A LUSIFER model with the frozen LM head of the LLM; an encoder-style LLM has none.

    Args:
        config: The configuration.
        model: The model. None makes one from the configuration.
        lm_head: The LM head, a linear layer.

    Raises:
        ValueError: The LLM applies softcapping to its logits.
    """

    base_model_prefix = "model"

    def __init__(
        self, config: LusiferConfig, model: LusiferModel | None = None, lm_head: nn.Module | None = None
    ) -> None:
        super().__init__(config)
        self.model = model if model is not None else LusiferModel(config)
        if lm_head is not None and getattr(config.llm, "final_logit_softcapping", None):
            raise ValueError(f"{config.llm.model_type} softcaps its logits, and this loss does not: use another LLM")
        self.lm_head = lm_head
        self.logits_chunk = 1024
        if model is None:
            self.post_init()

    def forward(self, *args: Any, **kwargs: Any) -> AlignmentOutput:
        """Call `predict`."""
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
        """Compute the loss of predicting the target tokens after the soft prompt of the source.

        Args:
            input_ids: Ids of the source text from the encoder's tokenizer (B, L), int64.
            attention_mask: 1 for a token, 0 for padding (B, L).
            target_ids: Ids from the LLM's tokenizer (B, T), int64, possibly with masked ids. They start with BOS if
                `config.alignment_bos`.
            target_attention_mask: 0 for padding and for keys that masking hides (B, T).
            labels: The ids to predict (B, T), int64, -100 where there is none. The BOS column is never predicted.
            attention: "prefix" or "bidirectional".
            num_items_in_batch: The number of labels in all mini-batches of the step, so that gradient accumulation
                weighs every label equally. None takes the labels of this batch.

        Returns:
            The loss, and the cross-entropy of each labeled position.

        Raises:
            ValueError: The attention is unknown, there is no label, or there is no LM head.
        """
        if self.lm_head is None:
            raise ValueError("no LM head was given, and this objective needs the LM head of the LLM: pass lm_head")
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
        """Run the LLM over `[BOS] soft prompt, target` and return its hidden states (B, L' + T, d)."""
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
        """Compute the cross-entropy of labeled positions, `logits_chunk` at a time to save memory for the logits.

        The result has one value a position, because a sum in bfloat16 would keep only three digits.

        Args:
            states: Hidden states (N, d).
            wanted: The ids to predict (N,).

        Returns:
            (N,), float32.
        """
        if not len(wanted):
            raise ValueError("no target token in the batch: every text is empty or truncated: raise max_length")
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
    """The `acc_policy` of `LinearCrossEntropyOptions` for the LM head.

    By default torch multiplies bfloat16 as float32 on a CPU. On processors with bfloat16 instructions that takes five
    times as long (`benchmarks/head.py`), and the gradients are no more accurate.
    """
    ours = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and multiplies("bfloat16")
    return "accurate" if ours else "auto"


def target_positions(prompt: ConnectorOutput, target_mask: torch.Tensor, leading: int) -> torch.Tensor:
    """Compute the position ids of `[BOS] soft prompt, target`.

    The positions of the prompt are shifted by the BOS, and the target continues where the prompt of its row ends.
    Hidden keys have their own positions. Padding of the prompt shares a position with a token, which has no effect.

    Args:
        prompt: The soft prompt.
        target_mask: (B, T).
        leading: 1 if the target starts with a BOS, else 0.

    Returns:
        (B, L' + T), int64.
    """
    batch, length = target_mask.shape
    device = target_mask.device
    start = prompt.position_ids.amax(dim=1, keepdim=True) + 1 + leading
    rest = start + torch.arange(length - leading, device=device)
    lead = torch.arange(leading, device=device).expand(batch, -1)
    return torch.cat([lead, prompt.position_ids + leading, rest], dim=1)


def prefix_mask(key_mask: torch.Tensor, prefix: int, dtype: torch.dtype) -> torch.Tensor:
    """Make the attention mask in which the first positions see each other, and the others see them and the past.

    Args:
        key_mask: 0 for padding and hidden keys (B, K).
        prefix: The number of the first positions: BOS and soft prompt.
        dtype: The dtype of the attention scores.

    Returns:
        An additive mask (B, 1, K, K).
    """
    order = torch.arange(key_mask.shape[1], device=key_mask.device)
    query, key = order[:, None], order[None, :]
    visible = (key < prefix) | ((query >= prefix) & (key <= query))
    allowed = visible[None] & key_mask.bool()[:, None, :]
    # The smallest number instead of -inf: a padding row that sees no position must not become NaN.
    mask = torch.zeros(allowed.shape, dtype=dtype, device=key_mask.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min).unsqueeze(1)


def select_predictors(
    hidden_states: torch.Tensor, prompt_mask: torch.Tensor, labels: torch.Tensor, leading: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Select the hidden states that predict the labels.

    A target token is predicted from the position before it, and the first one from the last real position of the soft
    prompt, because the position before it in memory may be padding.

    Args:
        hidden_states: (B, L' + T, d).
        prompt_mask: The mask of the soft prompt (B, L').
        labels: (B, T), -100 where there is none.
        leading: 1 if labels[:, 0] belongs to a BOS before the prompt, else 0.

    Returns:
        States (N, d) and labels (N,), in row order.
    """
    batch, length = prompt_mask.shape
    order = torch.arange(length, device=labels.device)
    last_real = torch.where(prompt_mask.bool(), order, -1).amax(dim=1, keepdim=True) + leading
    rest = labels[:, leading:]
    before = torch.arange(rest.shape[1] - 1, device=labels.device).expand(batch, -1) + leading + length
    index = torch.cat([last_real, before], dim=1)[:, : rest.shape[1]]
    rows, columns = torch.nonzero(rest != IGNORED, as_tuple=True)
    return hidden_states[rows, index[rows, columns]], rest[rows, columns]
