"""From an authors' checkpoint to a model folder of ours."""

from __future__ import annotations

import os
from pathlib import Path

from sentence_transformers import SentenceTransformer

from lusifer import prompts
from lusifer.embedder import folder
from lusifer.embedder.assemble import assemble
from lusifer.errors import UsageError
from lusifer.model.published import Published, published_prompt, read


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
        src: folder or hub name of the checkpoint.
        out: the folder to write, whole or not at all.
        compat: reproduce the published arithmetic.
        encoder: folder or hub name with the encoder's configuration and tokenizer, where the checkpoint's own name
            for it is of no use.
        llm: likewise, the LLM's configuration.

    Returns:
        The embedder that was written.

    Raises:
        UsageError: the configuration of a backbone cannot be had, or `out` is the checkpoint itself.
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
    folder.save(embedder, out)
    return embedder


def assemble_published(published: Published) -> SentenceTransformer:
    """The embedder of the published arithmetic.

    Args:
        published: read with `compat=True`.

    Returns:
        Prompts "query" (the default) and "document" are the forms without instruction, "TASK-query" and
        "TASK-document" those of the tasks in `prompts.toml`.
    """
    bos = published.tokenizer.bos_token or ""
    instructions: dict[str, str | None] = {"": None}
    instructions |= {f"{name}-": task["instruction"] for name, task in prompts.table().items()}
    saved = {
        f"{name}{role}": published_prompt(instruction, role, bos)
        for name, instruction in instructions.items()
        for role in prompts.ROLES
    }
    embedder = assemble(published.model, published.tokenizer, prompts=saved, normalize=False)
    embedder.default_prompt_name = "query"
    return embedder
