"""Convert a checkpoint of the LUSIFER authors into a model folder of this library."""

from __future__ import annotations

import os
from pathlib import Path

from sentence_transformers import SentenceTransformer

from lusifer import prompts
from lusifer.embedder import card, folder
from lusifer.embedder.assemble import assemble
from lusifer.errors import UsageError
from lusifer.io.files import expand_user
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

    Adapters are merged; the LM head and the unused pooler are left out. With `compat` the folder reproduces the
    published arithmetic:

    - Soft tokens are padded to a multiple of 8, so that a vector depends on its batch.
    - Prompts have the text format `<s>{instruction}.\n{text}</s>`; special tokens in a text are read as such.
    - Vectors are not normalized.

    Texts must then be embedded with a prompt of the folder or of `published_prompt`, since `<s>` is in the prompt. The
    default prompt, "query", is the one without instruction.

    Args:
        src: The checkpoint: a folder or Hub id.
        out: The folder to write, atomically.
        compat: Whether to reproduce the published arithmetic.
        encoder: A folder or Hub id with the encoder's configuration and tokenizer, if the one in the checkpoint cannot
            be used.
        llm: The same for the LLM's configuration.

    Returns:
        The embedder that was written.

    Raises:
        UsageError: The configuration of a backbone cannot be read, or `out` is the checkpoint itself.
        ModelFolderError: `src` is no such checkpoint, or is damaged.
    """
    if expand_user(src).resolve() == expand_user(out).resolve():
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
        {
            backbone: f"`{_public_name(path or published.settings[NAMES[backbone]])}`"
            for backbone, path in given.items()
        },
        name.rpartition("/")[2],
        "converted.md",
        base_models=[os.fspath(src)] if card.is_hub_id(os.fspath(src)) and not Path(src).exists() else [],
        checkpoint=name,
        compat=compat,
    )
    folder.save(embedder, out, text, finished=True)
    return embedder


def _public_name(name: str) -> str:
    """A Hub id unchanged; of a path only the last name."""
    return card.public_name(os.path.abspath(expand_user(name)) if expand_user(name).exists() else name)


def assemble_published(published: PublishedModel) -> SentenceTransformer:
    """Make the embedder with the published arithmetic from a checkpoint that was read with `compat=True`.

    Its prompts "query" (the default) and "document" have no instruction; "TASK-query" and "TASK-document" have those of
    the tasks in `prompts.toml`.
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
