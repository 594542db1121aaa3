"""The start of a run: build the model from its bases, and refuse what cannot work before training starts."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerBase

from lusifer.embedder import assemble, contents, folder
from lusifer.embedder.card import public_name
from lusifer.embedder.identity import identity
from lusifer.errors import LusiferError, UsageError
from lusifer.io import hub, names, seen
from lusifer.model import adapters, build, probes, words
from lusifer.model.build import check_tokenizers, read_tokenizer
from lusifer.model.lusifer import LusiferModel
from lusifer.prompts import prompt
from lusifer.training import processes
from lusifer.training.folder import RunFolder
from lusifer.training.recipe import start
from lusifer.training.recipe.recipe import ContrastiveStage, Recipe, Stage

WORD_TEXTS, WORD_TEXT = 4096, 64  # for `start_from_words`: the number of texts, and the tokens of each
PROBE_TEXTS = ("The river rises in spring.", "Сколько стоит билет до города?", "水", "How long is a day on Mars?")


def build_model(recipe: Recipe, frozen: torch.dtype) -> SentenceTransformer:
    """Build the model of a recipe from its two bases, on the device of this process.

    Args:
        recipe: The recipe.
        frozen: The dtype of backbones that are not trained in full.

    Raises:
        LusiferError: A check of `model.probes` failed.
    """
    settings = recipe.model
    # A backbone that a stage trains in full stays float32, so that it is never rounded.
    whole = {
        backbone: any(getattr(s.train, backbone) == "full" for s in recipe.stages) for backbone in adapters.BACKBONES
    }
    dtypes = {backbone: torch.float32 if trains else frozen for backbone, trains in whole.items()}
    device = str(processes.state().device)
    encoder = settings.encoder.base(dtype=dtypes["encoder"], device=device)
    llm = settings.llm.base(dtype=dtypes["llm"], device=device)
    tokenizer = read_tokenizer(names.base(encoder.path), encoder.revision)
    check_tokenizers(tokenizer)
    model = build.join(
        build.read_backbone(encoder, "encoder", settings.attn_implementation),
        build.read_backbone(llm, "llm", settings.attn_implementation),
        recipe.seed,
        **settings.join_settings(),
    )
    length = min(recipe.max_length, model.config.max_position_embeddings)
    embedder = assemble.assemble(model, tokenizer, prompts=prompts(recipe), max_seq_length=length)
    if settings.probes:
        _probe(model, tokenizer)
    return embedder


def start_from_words(embedder: SentenceTransformer, recipe: Recipe, texts: list[str]) -> None:
    """Initialize a connector with `start_from_words`, and no other one.

    Args:
        embedder: The model.
        recipe: The recipe.
        texts: The first texts of the run.
    """
    model, llm = assemble.lusifer_model(embedder), recipe.model.llm
    if model.connector.mapping.needs_words:
        tokenizer, own = embedder.tokenizer, read_tokenizer(names.base(llm.path), llm.revision)
        length = min(WORD_TEXT, embedder.max_seq_length)
        model.connector.mapping.start_from_words(words.moments(model.encoder, model.llm, tokenizer, own, texts, length))


def start_model(recipe: Recipe) -> SentenceTransformer:
    """Load the model of `model.start`, on the device of this process.

    Adapters of half-precision backbones stay separate layers. Weights are cast to float32 if the recipe asks for it,
    and never to half precision, which would round trained weights.

    Raises:
        ModelFolderError: The model is damaged, or a base has changed.
        LusiferError: A check of `model.probes` failed.
    """
    settings, device = recipe.model, str(processes.state().device)
    where = start.folder(settings.start.path, settings.start.revision)
    kernel = settings.attn_implementation
    embedder = folder.load(where, device, attn_implementation=kernel, bases=paths(recipe, where), merge_adapters=False)
    model = assemble.lusifer_model(embedder)
    for backbone in adapters.BACKBONES if settings.dtype.frozen == "float32" else ():
        getattr(model, backbone).float()
    embedder.max_seq_length = min(recipe.max_length, embedder.max_seq_length)
    embedder.prompts = prompts(recipe)
    if settings.probes:
        _probe(model, embedder.tokenizer)
    return embedder


def take_over_seen(recipe: Recipe, run: RunFolder) -> None:
    """Copy the record of the training texts of `model.start` to a run.

    Args:
        recipe: The recipe.
        run: The run.
    """
    if recipe.model.start is not None:
        seen.take_over(start.folder(recipe.model.start.path, recipe.model.start.revision), run.root)


def _probe(model: LusiferModel, tokenizer: PreTrainedTokenizerBase) -> None:
    features = tokenizer(list(PROBE_TEXTS), padding=True, return_tensors="pt").to(model.device)
    found = probes.run_probes(model, features["input_ids"], features["attention_mask"])
    failed = [probe for probe in found if not probe.ok]
    if failed:
        words = "; ".join(f"{probe.name}: no ({probe.detail})" for probe in failed)
        raise LusiferError(f"{words}; use other bases, or set model.probes: false to train these anyway")


def refuse_unreadable(recipe: Recipe, output: Path) -> None:
    """Read the configurations of the bases before the run folder exists: a wrong name must not leave a run folder.

    Args:
        recipe: The recipe.
        output: The run folder.

    Raises:
        UsageError: A base does not exist or is not supported, the connector cannot use its tokenizer, or `output` is
            inside its folder.
    """
    if recipe.model.start is not None:
        where = start.folder(recipe.model.start.path, recipe.model.start.revision)
        if output.is_relative_to(where.resolve()):
            raise UsageError(f"{output}: is in the folder of model.start: choose an --output outside it")
    for backbone in adapters.BACKBONES:
        base = getattr(recipe.model, backbone)
        if base.path.startswith("tiny:"):
            continue
        build.read_config(base.base(), backbone)
        if output.is_relative_to(Path(names.base(base.path)).resolve()):
            raise UsageError(f"{output}: is in the folder of model.{backbone}: choose an --output outside it")
    if recipe.model.start is None and getattr(recipe.model.connector, "start_from_words", False):
        given = {backbone: getattr(recipe.model, backbone) for backbone in adapters.BACKBONES}
        words.refuse_slow(
            **{
                backbone: read_tokenizer(names.base(base.path), base.revision)
                for backbone, base in given.items()
                if not base.path.startswith("tiny:")
            }
        )


def concrete(recipe: Recipe) -> Recipe:
    """Replace `auto` by its value on this machine, so that a run resumed on another machine computes the same."""
    auto, model = build.frozen_dtype(), recipe.model
    if model.dtype.frozen == "auto":
        dtype = model.dtype.model_copy(update={"frozen": str(auto).removeprefix("torch.")})
        model = model.model_copy(update={"dtype": dtype})
    stages = [
        stage.model_copy(update={"bf16": auto == torch.bfloat16}) if stage.bf16 == "auto" else stage
        for stage in recipe.stages
    ]
    return recipe.model_copy(update={"model": model, "stages": stages})


def with_tiny(recipe: Recipe, run: RunFolder) -> Recipe:
    """Make the bases `tiny:encoder` and `tiny:llm` in the run folder, and return the recipe with their paths.

    Args:
        recipe: The recipe. Its seed is that of the weights.
        run: The run.
    """
    paths = {"encoder": recipe.model.encoder.path, "llm": recipe.model.llm.path}
    if not any(path.startswith("tiny:") for path in paths.values()):
        return recipe
    made = dict(zip(("tiny:encoder", "tiny:llm"), build.make_tiny_bases(run.root / "bases", recipe.seed), strict=True))
    bases = {
        backbone: getattr(recipe.model, backbone).model_copy(update={"path": str(made.get(path, path))})
        for backbone, path in paths.items()
    }
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=bases)})


def paths(recipe: Recipe, model: Path) -> dict[str, str]:
    """Return the current paths of the bases of a delta; they may have moved since a stage recorded them.

    Args:
        recipe: The recipe, with the current paths.
        model: The folder of the delta.

    Returns:
        Backbone -> path. Empty for a model with all weights.
    """
    apart = contents.read(model / "config.json", dict).get("bases") or {}
    return {backbone: getattr(recipe.model, backbone).path for backbone in apart}


def space(recipe: Recipe, stage: Stage) -> dict[str, str] | None:
    """Return `LusiferConfig.space` after a stage: the embedder that it distills, or None.

    A stage without distillation gives None, because it moves the vectors away, whatever earlier stages did.

    Args:
        recipe: The recipe.
        stage: The stage.
    """
    if not stage.needs_embedder:
        return None
    base = recipe.model.llm
    place = Path(names.base(base.path))
    where = place if place.exists() else hub.fetch(str(place), contents.FILES, base.revision)
    found = {"name": public_name(base.path), "identity": identity(where)}
    return found | ({"revision": base.revision} if base.revision else {})


def prompts(recipe: Recipe) -> dict[str, str]:
    """Make the prompts of the model folder: `query`, `document`, and each instruction of a contrastive stage.

    The prompts of `model.start` come before those of the recipe.
    """
    found = {"query": "", "document": ""}
    if recipe.model.start is not None:
        where = start.folder(recipe.model.start.path, recipe.model.start.revision)
        found |= contents.read(where / "config_sentence_transformers.json", dict).get("prompts") or {}
    for stage in recipe.stages:
        if not isinstance(stage, ContrastiveStage):
            continue
        for source in stage.data:
            if source.instruction:
                found.setdefault(source.instruction, prompt(source.instruction, "query"))
    return found
