"""Train one backbone of a recipe alone with the last stage of the recipe, as a baseline for its model.

    python examples/bridge/alone.py bridge --backbone llm --output runs/llm-alone
    python examples/bridge/alone.py bridge --backbone encoder --output runs/encoder-alone
    python examples/bridge/alone.py bridge --backbone encoder --train linear --output runs/linear
    lusifer evaluate runs/llm-alone --data DATA/eval --output scores/llm-alone

The backbone reads texts with its own tokenizer (an LLM in both directions); the mean of its hidden states is the
vector. It trains like the recipe's model in its last stage: with the same batches, loss, learning rate and number of
steps. `--train` chooses what trains: adapters with the settings that the recipe has for the LLM (`lora`), a linear map
after the frozen backbone (`linear`), or nothing (`none`). The output is a folder of sentence-transformers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

from lusifer.data.batches import PairBatches
from lusifer.errors import LusiferError, UsageError
from lusifer.io import names
from lusifer.model import build
from lusifer.model.adapters import lora_targets
from lusifer.model.build import Base
from lusifer.training.recipe.load import load_recipe
from lusifer.training.recipe.parts import LoRA
from lusifer.training.recipe.recipe import ContrastiveStage, Recipe
from lusifer.training.stages import contrastive
from lusifer.training.stages.contrastive import PairCollator, PairRows
from lusifer.training.stages.losses import loss
from lusifer.training.stages.trainer import PairArguments, arguments


class Trainer(SentenceTransformerTrainer):
    """The library's loop over the batches that the recipe's stage has."""

    data_collator_class = PairCollator
    batches: PairBatches

    def get_multi_dataset_batch_sampler(self, *args: Any, **kwargs: Any) -> PairBatches:
        """The plan of the stage."""
        return self.batches


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description="Train one backbone of a recipe alone with the last stage of the recipe."
    )
    parser.add_argument("recipe", help="a file, or the name of a recipe")
    parser.add_argument("--backbone", choices=("encoder", "llm"), required=True)
    parser.add_argument("--train", choices=("lora", "linear", "none"), default="lora")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for `lusifer train`")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    options = parser.parse_args()
    try:
        if options.output.exists():
            raise UsageError(f"{options.output} exists: choose a new folder")
        recipe = load_recipe(options.recipe, options.set)
        stage = recipe.stages[-1]
        if not isinstance(stage, ContrastiveStage):
            raise UsageError(f"{options.recipe}: its last stage is no contrastive one")
        finetune(recipe, stage, options.backbone, options.train, options.output)
    except LusiferError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.status
    return 0


def finetune(recipe: Recipe, stage: ContrastiveStage, backbone: str, train: str, output: Path) -> None:
    """Train as the stage says, and write the folder."""
    seed = recipe.seed + len(recipe.stages)  # as in a run: the rows come in the same order
    transformers.set_seed(seed)
    embedder = alone(recipe, backbone)
    embedder.max_seq_length = recipe.longest(stage)
    what_trains(embedder, backbone, train, stage.lora.llm or LoRA())
    if train != "none":
        rows = contrastive.examples(recipe, stage, seed)
        with tempfile.TemporaryDirectory(prefix="lusifer-") as folder:
            settings = arguments(recipe, stage, Path(folder), rows.steps, seed, stage.bf16 is True)
            trainer(stage, embedder, rows, settings).train()
    embedder.max_seq_length = recipe.max_length
    if train == "lora":
        read = embedder[0]
        read.model = read.model.float().merge_and_unload()
    embedder.float().save(str(output), create_model_card=False)


def alone(recipe: Recipe, backbone: str) -> SentenceTransformer:
    """Make an embedder of the backbone, the mean of its hidden states, and normalization."""
    entry = getattr(recipe.model, backbone)
    dtype = recipe.model.dtype.frozen if recipe.model.dtype.frozen != "auto" else "float32"
    base = Base(entry.path, entry.revision, getattr(torch, dtype), layers=entry.layers)
    model = build.read_backbone(base, backbone)
    if backbone == "llm":
        model.config.is_causal = False  # read by the masks of transformers
    with tempfile.TemporaryDirectory(prefix="lusifer-") as folder:  # the library reads modules from folders alone
        model.save_pretrained(folder)
        tokenizer = build.read_tokenizer(names.base(entry.path), entry.revision)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.save_pretrained(folder)
        held = {"dtype": getattr(torch, dtype), "attn_implementation": recipe.model.attn_implementation}
        read = Transformer(folder, max_seq_length=recipe.max_length, model_kwargs=held)
    width = read.model.config.hidden_size
    return SentenceTransformer(modules=[read, Pooling(width, "mean"), Normalize()])


def what_trains(embedder: SentenceTransformer, backbone: str, train: str, lora: LoRA) -> None:
    """Freeze all but the adapters or the map, which are added."""
    embedder.requires_grad_(False)
    read, pooling, normalize = embedder
    if train == "lora":
        targets = lora_targets(read.model, backbone)
        config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
        read.model = get_peft_model(read.model, config)
    elif train == "linear":
        width = read.model.config.hidden_size
        dense = Dense(width, width, activation_function=torch.nn.Identity())
        torch.nn.init.eye_(dense.linear.weight)  # starts as the backbone alone
        torch.nn.init.zeros_(dense.linear.bias)
        embedder.pop(2)
        embedder.append(dense)
        embedder.append(normalize)


def trainer(
    stage: ContrastiveStage, embedder: SentenceTransformer, rows: PairRows, settings: dict[str, Any]
) -> Trainer:
    """The library's trainer on the stage's rows; nothing is kept on the way."""
    keys = {name: f"set{number}" for number, name in enumerate(rows.sets)}
    embedder.model_card_data.generate_widget_examples = False
    settings |= {"save_strategy": "no", "per_device_train_batch_size": stage.batch_size}
    made = Trainer(
        model=embedder,
        args=PairArguments(
            **settings,
            prompts={key: rows.found[name][0].prompts for name, key in keys.items()},
            dataloader_drop_last=True,
        ),
        train_dataset={key: rows.sets[name] for name, key in keys.items()},
        loss={key: loss(stage, embedder, rows.found[name][1].in_batch_negatives) for name, key in keys.items()},
    )
    made.batches = rows.batches
    return made


if __name__ == "__main__":
    sys.exit(main())
