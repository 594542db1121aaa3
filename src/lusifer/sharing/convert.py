"""From an authors' checkpoint to a model folder of ours."""

from __future__ import annotations

import os
from pathlib import Path

from sentence_transformers import SentenceTransformer

from lusifer import prompts
from lusifer.embedder import card, folder
from lusifer.embedder.assemble import assemble
from lusifer.errors import UsageError
from lusifer.model import adapters
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
    adapters.merge(published.model)
    if compat:
        embedder = assemble_published(published)
    else:
        no_instruction = {role: prompts.prompt(None, role) for role in prompts.ROLES}
        embedder = assemble(published.model, published.tokenizer, prompts=no_instruction)
    given = {"encoder": encoder, "llm": llm}
    name = _public_name(os.fspath(src))
    text = card.text(
        embedder,
        {tower: f"`{_public_name(path or published.settings[NAMES[tower]])}`" for tower, path in given.items()},
        name.rpartition("/")[2],
        "converted.md",
        base_models=[os.fspath(src)] if card.is_hub_id(os.fspath(src)) and not Path(src).exists() else [],
        checkpoint=name,
        compat=compat,
    )
    folder.save(embedder, out, text, finished=True)
    return embedder


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
