"""The examples of an alignment stage (source text and target text), and their batches.

Everything random (order, objective, direction, masks) is a pure function of the seed and the example's number. So a
resumed run, or a run with more processes, gets the same batches.
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
# Numbers that seed the draws for different purposes.
_OBJECTIVE, _ORDER, _CHOICE, _MASK, _DROP = range(5)


def draw_objectives(weights: Sequence[float], steps: int, seed: int) -> np.ndarray:
    """Draw the objective of each step. The first steps do not depend on the number of steps.

    Args:
        weights: The weight of each objective.
        steps: The number of steps.
        seed: The seed of the draws.

    Returns:
        The index of the objective in `weights` for each step, (steps,), int64.
    """
    drawn = np.random.default_rng([seed, _OBJECTIVE]).random(steps)
    return np.searchsorted(np.cumsum(np.array(weights, dtype=float) / sum(weights))[:-1], drawn, side="right")


class AlignmentExamples:
    """A map-style dataset over all steps of a stage: example i is row i % batch_size of step i // batch_size.

    All rows of a step have one objective. Each objective goes through its own rows, in a new order each epoch.
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
        """Draw the objective of each step.

        Args:
            sources: Rows and their role: columns `text` for reconstruct, `query` and `positive` for pairs.
            objectives: Objective -> weight, its share of the steps; at least one is above 0.
            batch_size: Rows of one step, over all processes.
            steps: Steps of the stage.
            seed: The seed of all draws.

        Raises:
            UsageError: An objective has no rows.
        """
        self.sources = list(sources)
        self.skipped: list[str] = []
        """The messages of the bad rows that were skipped."""
        self.held: Any = None
        """The `HeldPairs` of a stage with `evaluate`."""
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
        """The number of examples of the stage: steps times batch size."""
        return self.steps * self.batch_size

    def objective(self, step: int) -> Objective:
        """Return the objective of a step."""
        return self.objectives[self._choice[step]]

    def characters(self, index: int) -> int:
        """Count the characters of source and target of an example, as a cheap measure of its length."""
        example = self[index]
        return len(example["source_text"]) + len(example["target_text"] or "")

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return an example: index, epoch, objective, source_text, and target_text (None for distill)."""
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
        """Return the first texts that the encoder will read, at most `count`."""
        return [self[index]["source_text"] for index in range(min(count, len(self)))]

    def reads(self) -> dict[str, dict[str, int]]:
        """Count for each objective: its steps and rows, the most reads of a row, and the rows that are never read."""
        found = {}
        for number, each in enumerate(self.objectives):
            steps, rows = int((self._choice == number).sum()), len(self._pools[each.name])
            read = steps * self.batch_size
            found[each.name] = {"steps": steps, "rows": rows, "most": -(-read // rows), "unread": max(0, rows - read)}
        return found

    def _pool(self, objective: Objective) -> np.ndarray:
        """The numbers of the rows that an objective uses, counted over all sources."""
        reads = objective.reads([role for _, role in self.sources])
        places = zip(self._starts[:-1], self.sources, reads, strict=True)
        numbers = [np.arange(start, start + len(rows)) for start, (rows, _), used in places if used]
        if not sum(map(len, numbers)):
            raise UsageError(
                f"objective {objective.name} has no rows: add a data source for it, or set its weight to 0"
            )
        return np.concatenate(numbers)

    def _order(self, objective: Objective, epoch: int) -> np.ndarray:
        """The order of an objective's rows in an epoch; two epochs are cached, because a batch may contain both."""
        key = (objective.name, epoch)
        if key not in self._orders:
            self._orders.pop((objective.name, epoch - 2), None)
            generator = np.random.default_rng([self.seed, _ORDER, objective.stream, epoch])
            self._orders[key] = generator.permutation(len(self._pools[objective.name]))
        return self._orders[key]

    def _row(self, number: int) -> tuple[dict[str, Any], Role]:
        """The row with this number, counted over all sources, and its role."""
        source = int(np.searchsorted(self._starts, number, side="right")) - 1
        rows, role = self.sources[source]
        return rows[number - int(self._starts[source])], role


class AlignmentCollator:
    """Makes the tensors of a batch from examples of one objective, padded on the right."""

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
        """Set up the tokenizers and the masking.

        Args:
            tokenizer: The encoder's tokenizer, from `read_tokenizer`, which reads special tokens in a text as text.
            llm_tokenizer: The LLM's tokenizer, likewise.
            max_length: The maximum number of tokens of a source or a target, special tokens included.
            mask_probability: Probability that the id of a target token is replaced by the mask token.
            attention_mask_probability: Probability that a target token is hidden from attention. None takes
                `mask_probability`.
            token_dropout: Upper bound of the share of a text's tokens that the encoder does not read.
            seed: The seed of the masks and of the dropped tokens.
            teacher_length: The maximum number of the teacher's tokens. None takes `max_length`.

        Raises:
            UsageError: The LLM's tokenizer has no token to use as a mask, and `mask_probability` is above 0.
        """
        self.tokenizer, self.llm_tokenizer = tokenizer, llm_tokenizer
        self.max_length, self.seed = max_length, seed
        self.teacher = TeacherInputs(tokenizer, llm_tokenizer, max_length, teacher_length or max_length)
        names = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
        self._around = frozenset(getattr(tokenizer, name) for name in names)  # not "unknown", which stands for a word
        self.mask_probability, self.token_dropout = mask_probability, token_dropout
        both = attention_mask_probability is None
        self.attention_mask_probability = mask_probability if both else attention_mask_probability
        # Llama 3 has neither a mask nor an unknown token: take the next special token.
        names = ("mask_token_id", "unk_token_id", "pad_token_id", "eos_token_id")
        ids = [getattr(llm_tokenizer, name) for name in names]
        self._mask_id = next((number for number in ids if number is not None), None)
        if mask_probability > 0 and self._mask_id is None:
            raise UsageError(
                "the LLM's tokenizer has no mask, unknown, padding or end token to mask target tokens with: set "
                "mask_probability: 0 and attention_mask_probability, or add a mask token to the tokenizer"
            )

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            examples: Examples of `AlignmentExamples` with the same objective.

        Returns:
            `objective` (its name); input_ids and attention_mask (B, L) of the encoder; with `needs_embedder` also
            teacher_ids and teacher_attention_mask (B, T), the text for the LLM; with `needs_head` also target_ids,
            target_attention_mask and labels (B, T), which are -100 at padding and at BOS; and the tensors that the
            objective makes. All are int64.

        Raises:
            ValueError: The examples have different objectives.
        """
        names = {example["objective"] for example in examples}
        if len(names) != 1:
            raise ValueError(f"a batch must have one objective, found {', '.join(sorted(names))}")
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
        """Make the target tensors: ids, attention mask and labels after the soft prompt."""
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
        """Drop a share of the tokens, drawn from 0 to `token_dropout`; special tokens stay."""
        generator = np.random.default_rng([self.seed, _DROP, index])
        drawn, share = generator.random(len(ids)), generator.random() * self.token_dropout
        words = [place for place, number in enumerate(ids) if number not in self._around]
        if words:
            drawn[words[int(drawn[words].argmax())]] = 1.0  # at least one token stays
        return [number for number, u in zip(ids, drawn, strict=True) if u >= share or number in self._around]

    def _targets(self, texts: list[str]) -> list[list[int]]:
        """The ids that the LLM should predict: BOS and EOS, if the tokenizer has them, around the truncated text."""
        bos, eos = self.llm_tokenizer.bos_token_id, self.llm_tokenizer.eos_token_id
        first, last = [bos] if bos is not None else [], [eos] if eos is not None else []
        room = self.max_length - len(first) - len(last)
        return [first + ids + last for ids in ids_of(self.llm_tokenizer, texts, room, add_special_tokens=False)]

    def _mask(self, ids: list[int], leading: int, index: int) -> tuple[list[int], list[int]]:
        """Mask ids and, with independent draws, attention keys of a target; the leading BOS stays."""
        drawn = np.random.default_rng([self.seed, _MASK, index]).random((2, len(ids)))
        drawn[:, :leading] = 1.0  # never below a probability
        shown = [self._mask_id if u < self.mask_probability else i for i, u in zip(ids, drawn[0], strict=True)]
        return shown, [int(u >= self.attention_mask_probability) for u in drawn[1]]
