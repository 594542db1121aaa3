"""From an authors' checkpoint to a model folder of ours."""

from __future__ import annotations

import os
from pathlib import Path

from sentence_transformers import SentenceTransformer

from lusifer import prompts
from lusifer.embedder import card, folder, info
from lusifer.embedder.assemble import assemble
from lusifer.errors import UsageError
from lusifer.model.published import NAMES, PublishedModel, published_prompt, read


def convert(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    compat: bool = False,
    encoder: str | None = None,
    llm: str | None = None,
) -> SentenceTransformer:
    r"""Write a checkpoint in the authors' format as a folder that `SentenceTransformer` loads.

    Adapters are merged, the LM head and the unused pooler are left away. `compat` makes the folder reproduce the
    published arithmetic: soft tokens behind a padding to a multiple of 8 (so a vector depends on its batch), the text
    format `<s>{instruction}.\n{text}</s>` as prompts, special tokens in a text read as such, vectors not normalised.
    Its texts must be embedded with a prompt of the folder (the default, "query", is the one without instruction) or one
    of `published_prompt`, since `<s>` stands in the prompt.

    Args:
        src: Folder or hub name of the checkpoint.
        out: The folder to write, whole or not at all.
        compat: Reproduce the published arithmetic.
        encoder: Folder or hub name with the encoder's configuration and tokenizer, where the checkpoint's own name
            for it is of no use.
        llm: Likewise, the LLM's configuration.

    Returns:
        The embedder that was written.

    Raises:
        UsageError: The configuration of a backbone cannot be had, or `out` is the checkpoint itself.
        ModelFolderError: `src` is no such checkpoint, or is damaged.
    """
    if Path(src).expanduser().resolve() == Path(out).expanduser().resolve():
        raise UsageError(f"{out}: is the checkpoint itself; name another folder to write")
    published = read(os.fspath(src), compat=compat, encoder=encoder, llm=llm)
    if compat:
        embedder = assemble_published(published)
    else:
        no_instruction = {role: prompts.prompt(None, role) for role in prompts.ROLES}
        embedder = assemble(published.model, published.tokenizer, prompts=no_instruction)
    folder.save(embedder, out, _card(os.fspath(src), {"encoder": encoder, "llm": llm}, published, compat, embedder))
    return embedder


def _card(
    src: str, given: dict[str, str | None], published: PublishedModel, compat: bool, embedder: SentenceTransformer
) -> str:
    """The model card: from which checkpoint, and whose arithmetic; how that one was trained is not known here."""
    command = "lusifer convert"
    limit = (
        "A vector depends on its text alone, which it does not in the published code: vectors differ from those "
        "computed there, by more than rounding (`lusifer convert --compat` reproduces them)."
    )
    if compat:
        command += " --compat"
        limit = (
            "It reproduces the arithmetic of the published code, for comparison with it: a vector depends on the batch "
            "that it was computed in, and special tokens in a text are read as such."
        )
    facts = card.Card(
        name=_public_name(src).rpartition("/")[2],
        origin=[
            f"Converted by `{command}` from the checkpoint `{_public_name(src)}`, which is in the format of the "
            "authors' code; its adapters are merged. How it was trained, and on what, is for that checkpoint to say."
        ],
        base_models=[src] if card.is_hub_id(src) and not Path(src).exists() else [],
        limits=[limit],
        versions=card.versions(),
    )
    names = {tower: f"`{_public_name(path or published.settings[NAMES[tower]])}`" for tower, path in given.items()}
    return card.text(facts, info.contents(embedder, names))


def _public_name(name: str) -> str:
    """A hub id as it is, of anything on this machine the last name."""
    return card.public_name(os.path.abspath(Path(name).expanduser()) if Path(name).expanduser().exists() else name)


def assemble_published(published: PublishedModel) -> SentenceTransformer:
    """The embedder of the published arithmetic, of a checkpoint that was read with `compat=True`.

    Prompts "query" (the default) and "document" are the forms without instruction, "TASK-query" and "TASK-document"
    those of the tasks in `prompts.toml`.
    """
    bos = published.tokenizer.bos_token or ""
    instructions = {"": None} | {f"{name}-": task["instruction"] for name, task in prompts.table().items()}
    saved = {
        f"{name}{role}": published_prompt(instruction, role, bos)
        for name, instruction in instructions.items()
        for role in prompts.ROLES
    }
    embedder = assemble(published.model, published.tokenizer, prompts=saved, normalize=False)
    embedder.default_prompt_name = "query"
    return embedder
