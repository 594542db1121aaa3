"""Step 0 of a run: the two bases become one model, and what cannot work is refused before anything trains."""

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

WORD_TEXTS, WORD_TEXT = 4096, 64  # how many texts a connector starts from, and the tokens read of each
PROBE_TEXTS = ("The river rises in spring.", "Сколько стоит билет до города?", "水", "How long is a day on Mars?")


def build_model(recipe: Recipe, frozen: torch.dtype) -> SentenceTransformer:
    """The model of step 0, on this process's device.

    Unless the recipe says no, it is probed: what is not bidirectional or depends on padding is refused.
    """
    settings = recipe.model
    # A tower that will train whole is never rounded first.
    whole = {tower: any(getattr(s.train, tower) == "full" for s in recipe.stages) for tower in adapters.TOWERS}
    dtypes = {tower: torch.float32 if trains else frozen for tower, trains in whole.items()}
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
    """Start the connector near the LLM's word embeddings, if it wants to, from how the encoder reads these texts."""
    model, llm = assemble.lusifer_model(embedder), recipe.model.llm
    if model.connector.mapping.needs_words:
        tokenizer, own = embedder.tokenizer, read_tokenizer(names.base(llm.path), llm.revision)
        length = min(WORD_TEXT, embedder.max_seq_length)
        model.connector.mapping.start_from_words(words.moments(model.encoder, model.llm, tokenizer, own, texts, length))


def start_model(recipe: Recipe) -> SentenceTransformer:
    """The model that a recipe starts from, on this process's device, adapters of half-precision towers beside them.

    Weights are made wider where the recipe asks for float32, never narrower: what was trained is not rounded.

    Raises:
        ModelFolderError: It is damaged, or a base of it is another one.
        LusiferError: A probe failed.
    """
    settings, device = recipe.model, str(processes.state().device)
    where = start.folder(settings.start.path, settings.start.revision)
    kernel = settings.attn_implementation
    embedder = folder.load(where, device, attn_implementation=kernel, bases=paths(recipe, where), merge_adapters=False)
    model = assemble.lusifer_model(embedder)
    for tower in adapters.TOWERS if settings.dtype.frozen == "float32" else ():
        getattr(model, tower).float()
    embedder.max_seq_length = min(recipe.max_length, embedder.max_seq_length)
    embedder.prompts = prompts(recipe)
    if settings.probes:
        _probe(model, embedder.tokenizer)
    return embedder


def take_over_seen(recipe: Recipe, run: RunFolder) -> None:
    """Keep in a run what the model that it starts from was trained on."""
    if recipe.model.start is not None:
        seen.take_over(start.folder(recipe.model.start.path, recipe.model.start.revision), run.root)


def _probe(model: LusiferModel, tokenizer: PreTrainedTokenizerBase) -> None:
    features = tokenizer(list(PROBE_TEXTS), padding=True, return_tensors="pt").to(model.device)
    found = probes.run_probes(model, features["input_ids"], features["attention_mask"])
    failed = [probe for probe in found if not probe.ok]
    if failed:
        words = "; ".join(f"{probe.name}: no ({probe.detail})" for probe in failed)
        raise LusiferError(f"{words}; to train it all the same, set model.probes: false")


def refuse_unreadable(recipe: Recipe, output: Path) -> None:
    """Read both configurations before the run folder exists: a wrong name must not leave a run behind.

    Raises:
        UsageError: A base is not there or not known, its tokenizer does not serve the connector, or the run would be
            written into it.
    """
    if recipe.model.start is not None:
        where = start.folder(recipe.model.start.path, recipe.model.start.revision)
        if output.is_relative_to(where.resolve()):
            raise UsageError(f"{output}: lies in the folder of model.start; choose an --output outside it")
    for tower in adapters.TOWERS:
        base = getattr(recipe.model, tower)
        if base.path.startswith("tiny:"):
            continue
        build.read_config(base.base(), tower)
        if output.is_relative_to(Path(names.base(base.path)).resolve()):
            raise UsageError(f"{output}: lies in the folder of model.{tower}; choose an --output outside it")
    if recipe.model.start is None and getattr(recipe.model.connector, "start_from_words", False):
        given = {tower: getattr(recipe.model, tower) for tower in adapters.TOWERS}
        words.refuse_slow(
            **{
                tower: read_tokenizer(names.base(base.path), base.revision)
                for tower, base in given.items()
                if not base.path.startswith("tiny:")
            }
        )


def concrete(recipe: Recipe) -> Recipe:
    """What `auto` means on this machine, written out: a run resumed on another computes the same, or is refused."""
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
    """Put folders in the place of `tiny:encoder` and `tiny:llm`, made from the seed inside the run folder."""
    paths = {"encoder": recipe.model.encoder.path, "llm": recipe.model.llm.path}
    if not any(path.startswith("tiny:") for path in paths.values()):
        return recipe
    made = dict(zip(("tiny:encoder", "tiny:llm"), build.make_tiny_bases(run.root / "bases", recipe.seed), strict=True))
    bases = {
        tower: getattr(recipe.model, tower).model_copy(update={"path": str(made.get(path, path))})
        for tower, path in paths.items()
    }
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=bases)})


def paths(recipe: Recipe, model: Path) -> dict[str, str]:
    """Where the bases of a delta lie now, by tower: a run may have moved since a stage recorded them."""
    apart = contents.read(model / "config.json", dict).get("bases") or {}
    return {tower: getattr(recipe.model, tower).path for tower in apart}


def space(recipe: Recipe, stage: Stage) -> dict[str, str] | None:
    """The embedder to whose vectors a stage keeps those of the model, as `LusiferConfig.space`; None where to none.

    A stage without such an objective moves the vectors where it likes, whatever the stages before it did.
    """
    if not stage.needs_embedder:
        return None
    base = recipe.model.llm
    place = Path(names.base(base.path))
    where = place if place.exists() else hub.fetch(str(place), contents.FILES, base.revision)
    found = {"name": public_name(base.path), "identity": identity(where)}
    return found | ({"revision": base.revision} if base.revision else {})


def prompts(recipe: Recipe) -> dict[str, str]:
    """What the model folder remembers: `query` and `document`, and each instruction it was trained with.

    Of a model to start from, those that it has come first.
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
