"""Stage 1's examples: which text the encoder reads and which the LLM should say, and the batches made of them.

Everything drawn is a pure function of the seed and the example's number: order, objective, direction, masks. So a
resumed run, or one on more processes, sees the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lusifer.errors import UsageError
from lusifer.io import seen
from lusifer.training.objectives import OBJECTIVES
from lusifer.training.objectives.objective import Objective, Role
from lusifer.training.objectives.reading import TeacherInputs, ids_of, ones, pad, padding

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
# Purposes of draws, so that no two of them share random numbers.
_OBJECTIVE, _ORDER, _CHOICE, _MASK, _DROP = range(5)


def draw_objectives(weights: Sequence[float], steps: int, seed: int) -> np.ndarray:
    """Draw the objective of each step by weight, as its place among the weights.

    It is one stream of numbers: the first steps do not depend on how many follow.
    """
    drawn = np.random.default_rng([seed, _OBJECTIVE]).random(steps)
    return np.searchsorted(np.cumsum(np.array(weights, dtype=float) / sum(weights))[:-1], drawn, side="right")


class AlignmentExamples:
    """A map-style data set over all steps of a stage: example number i is row i % batch_size of step i // batch_size.

    All rows of a step have one objective. Every objective walks through its own rows, in a new order each epoch.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Dataset, Role]],
        objectives: Mapping[str, float],
        *,
        batch_size: int,
        steps: int,
        seed: int,
    ) -> None:
        """Prepare the plan of a stage.

        Args:
            sources: Rows and their role: columns `text` for reconstruct, `query` and `positive` for pairs.
            objectives: Weight by objective, at least one above 0: the share of steps.
            batch_size: Rows of one step, over all processes.
            steps: Steps of the stage.
            seed: Of everything drawn.

        Raises:
            UsageError: An objective has no rows.
        """
        self.sources = list(sources)
        self.skipped: list[str] = []
        """Bad rows that were left out, each with its message."""
        self.held: Any = None
        """The `HeldPairs` that the model is scored on while it trains, if it is."""
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self._starts = np.cumsum([0, *(len(rows) for rows, _ in self.sources)])
        self.objectives = [each for name, each in OBJECTIVES.items() if objectives.get(name, 0) > 0]
        self._pools = {each.name: self._pool(each) for each in self.objectives}
        self._choice = draw_objectives([objectives[each.name] for each in self.objectives], steps, seed)
        self._before = np.zeros(steps, dtype=np.int64)
        for number in range(len(self.objectives)):
            mine = self._choice == number
            self._before[mine] = np.arange(mine.sum())
        self._orders: dict[tuple[str, int], np.ndarray] = {}

    def __len__(self) -> int:
        """Examples of the stage: steps times batch size."""
        return self.steps * self.batch_size

    def objective(self, step: int) -> Objective:
        """Give the objective of a step."""
        return self.objectives[self._choice[step]]

    def characters(self, index: int) -> int:
        """Count the characters of example `index`, source and target: tokens are known only when a batch is made."""
        example = self[index]
        return len(example["source_text"]) + len(example["target_text"] or "")

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Give example `index`: index, epoch, objective, source_text, and target_text (None for distill)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        step, slot = divmod(int(index), self.batch_size)
        objective = self.objective(step)
        pool = self._pools[objective.name]
        epoch, position = divmod(int(self._before[step]) * self.batch_size + slot, len(pool))
        row, role = self._row(int(pool[self._order(objective, epoch)[position]]))
        source, target = objective.texts(row, role, np.random.default_rng([self.seed, _CHOICE, index]))
        return {
            "index": int(index), "epoch": epoch, "objective": objective.name, "source_text": source,
            "target_text": target,
        }  # fmt: skip

    def texts(self) -> Iterator[str]:
        """Yield every text that the stage trains on."""
        for number, (table, role) in enumerate(self.sources):
            if any(each.reads([role for _, role in self.sources])[number] for each in self.objectives):
                columns = ["text"] if role == "reconstruct" else ["query", "positive"]  # no objective reads negatives
                yield from seen.table_texts(table, columns)

    def first(self, count: int) -> list[str]:
        """Give the first texts that the encoder will read, `count` at most."""
        return [self[index]["source_text"] for index in range(min(count, len(self)))]

    def reads(self) -> dict[str, dict[str, int]]:
        """Give by objective its steps and rows, how often a row is read at most, and how many rows never are."""
        found = {}
        for number, each in enumerate(self.objectives):
            steps, rows = int((self._choice == number).sum()), len(self._pools[each.name])
            read = steps * self.batch_size
            found[each.name] = {"steps": steps, "rows": rows, "most": -(-read // rows), "unread": max(0, rows - read)}
        return found

    def _pool(self, objective: Objective) -> np.ndarray:
        """Numbers of the rows that an objective uses, counted over all sources."""
        reads = objective.reads([role for _, role in self.sources])
        places = zip(self._starts[:-1], self.sources, reads, strict=True)
        numbers = [np.arange(start, start + len(rows)) for start, (rows, _), used in places if used]
        if not sum(map(len, numbers)):
            raise UsageError(
                f"objective {objective.name} has no rows: add a data source for it, or set its weight to 0"
            )
        return np.concatenate(numbers)

    def _order(self, objective: Objective, epoch: int) -> np.ndarray:
        """The order of an objective's rows in an epoch; the last two are kept, since a batch may span both."""
        key = (objective.name, epoch)
        if key not in self._orders:
            self._orders.pop((objective.name, epoch - 2), None)
            generator = np.random.default_rng([self.seed, _ORDER, objective.stream, epoch])
            self._orders[key] = generator.permutation(len(self._pools[objective.name]))
        return self._orders[key]

    def _row(self, number: int) -> tuple[dict[str, Any], Role]:
        """The row of a number counted over all sources, and its role."""
        source = int(np.searchsorted(self._starts, number, side="right")) - 1
        rows, role = self.sources[source]
        return rows[number - int(self._starts[source])], role


class AlignmentCollator:
    """Examples of one objective -> tensors of one batch, right-padded, encoder and LLM apart."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        llm_tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        mask_probability: float = 0.5,
        attention_mask_probability: float | None = None,
        token_dropout: float = 0.0,
        seed: int = 0,
        teacher_length: int | None = None,
    ) -> None:
        """Keep both tokenizers.

        Args:
            tokenizer: Of the encoder, one that reads special tokens in a text as text (`read_tokenizer`).
            llm_tokenizer: Of the LLM, likewise.
            max_length: Most tokens of a text on either side, special tokens included.
            mask_probability: Probability that a target token's id becomes the mask token.
            attention_mask_probability: Probability that a target token is hidden from attention; None is the same.
            token_dropout: Most of a text's tokens, as a share, that the encoder does not get to read.
            seed: Of the masks and of the tokens left out.
            teacher_length: Most tokens of a text that the teacher reads; None is `max_length`.

        Raises:
            UsageError: Masks are wanted, but the LLM's tokenizer has no token that could stand for "hidden".
        """
        self.tokenizer, self.llm_tokenizer = tokenizer, llm_tokenizer
        self.max_length, self.seed = max_length, seed
        self.teacher = TeacherInputs(tokenizer, llm_tokenizer, max_length, teacher_length or max_length)
        names = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
        self._around = frozenset(getattr(tokenizer, name) for name in names)  # an unknown token is a word
        self.mask_probability, self.token_dropout = mask_probability, token_dropout
        both = attention_mask_probability is None
        self.attention_mask_probability = mask_probability if both else attention_mask_probability
        # Llama 3 has neither mask nor unknown token: the next token that stands for nothing.
        names = ("mask_token_id", "unk_token_id", "pad_token_id", "eos_token_id")
        ids = [getattr(llm_tokenizer, name) for name in names]
        self._mask_id = next((number for number in ids if number is not None), None)
        if mask_probability > 0 and self._mask_id is None:
            raise UsageError(
                "the LLM's tokenizer has no mask, unknown, padding or end token to hide a target token with: "
                "set mask_probability: 0 and attention_mask_probability, or give it a mask token"
            )

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            examples: Of `AlignmentExamples`, all with the same objective.

        Returns:
            `objective` (its name), input_ids and attention_mask (B, L) of the encoder; for an objective that needs an
            embedder teacher_ids and teacher_attention_mask (B, T): the text as the LLM itself reads it; for one that
            needs the LM head target_ids, target_attention_mask and labels (B, T). Labels are -100 on padding and on
            the BOS, which is given. And what else the objective makes.

        Raises:
            ValueError: Examples of different objectives.
        """
        names = {example["objective"] for example in examples}
        if len(names) != 1:
            raise ValueError(f"a batch has one objective, not {', '.join(sorted(names))}")
        objective = OBJECTIVES[names.pop()]
        sources = [example["source_text"] for example in examples]
        ids = ids_of(self.tokenizer, sources, self.max_length)
        lengths = [len(row) for row in ids]
        if self.token_dropout:
            ids = [self._drop(row, example["index"]) for row, example in zip(ids, examples, strict=True)]
        fill = self.tokenizer.pad_token_id or 0
        batch = {"objective": objective.name, "input_ids": pad(ids, fill), "attention_mask": pad(ones(ids), 0)}
        if objective.needs_embedder:
            batch |= self.teacher(sources, lengths)
        if objective.needs_head:
            batch |= self._predicted(examples)
        return batch | objective.tensors(examples, self._llm_ids)

    def _predicted(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """What the LLM reads and predicts behind the soft prompt."""
        targets = self._targets([example["target_text"] for example in examples])
        leading = int(self.llm_tokenizer.bos_token_id is not None)
        masked = [self._mask(row, leading, example["index"]) for row, example in zip(targets, examples, strict=True)]
        return {
            "target_ids": pad([row for row, _ in masked], padding(self.llm_tokenizer)),
            "target_attention_mask": pad([visible for _, visible in masked], 0),
            "labels": pad([[IGNORED] * leading + row[leading:] for row in targets], IGNORED),
        }

    def _llm_ids(self, texts: Sequence[str], **keywords: Any) -> list[list[int]]:
        return ids_of(self.llm_tokenizer, list(texts), self.max_length, **keywords)

    def _drop(self, ids: list[int], index: int) -> list[int]:
        """Leave tokens out, special ones apart: a share that is drawn for the text, from none to `token_dropout`."""
        generator = np.random.default_rng([self.seed, _DROP, index])
        drawn, share = generator.random(len(ids)), generator.random() * self.token_dropout
        words = [place for place, number in enumerate(ids) if number not in self._around]
        if words:
            drawn[words[int(drawn[words].argmax())]] = 1.0  # one word stays
        return [number for number, u in zip(ids, drawn, strict=True) if u >= share or number in self._around]

    def _targets(self, texts: list[str]) -> list[list[int]]:
        """Ids of what the LLM should say: BOS, the text cut to fit, EOS, where the tokenizer has them."""
        bos, eos = self.llm_tokenizer.bos_token_id, self.llm_tokenizer.eos_token_id
        first, last = [bos] if bos is not None else [], [eos] if eos is not None else []
        room = self.max_length - len(first) - len(last)
        return [first + ids + last for ids in ids_of(self.llm_tokenizer, texts, room, add_special_tokens=False)]

    def _mask(self, ids: list[int], leading: int, index: int) -> tuple[list[int], list[int]]:
        """Hide ids and, drawn apart, keys of one target; the leading BOS stays."""
        drawn = np.random.default_rng([self.seed, _MASK, index]).random((2, len(ids)))
        drawn[:, :leading] = 1.0  # never below a probability
        shown = [self._mask_id if u < self.mask_probability else i for i, u in zip(ids, drawn[0], strict=True)]
        return shown, [int(u >= self.attention_mask_probability) for u in drawn[1]]
