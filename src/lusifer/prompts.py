"""The prefix (prompt) of queries and documents, and the check that refuses texts that cannot be embedded.

Training, evaluation and serving all call `prompt`, so a text gets the same prefix wherever it is embedded.
The instruction of each task is in `prompts.toml`, next to this file.
"""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from typing import Any, Literal

from lusifer.errors import TextError, UsageError

Role = Literal["query", "document"]
ROLES: tuple[Role, ...] = ("query", "document")
INVISIBLE = (
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0001\U000e0100-\U000e01ef]"
)
"""Invisible characters without a meaning, as a regular expression: soft hyphen, zero-width space, direction marks, word
joiner, fillers, variation selectors, byte-order mark, annotation marks. Invisible characters that change the text are
not among them: the joiners (U+200C, U+200D) of Persian, Indic scripts and emoji, and the tags (U+E0020 to U+E007F) of
flags."""
_WORDS = ("a", "the", "1", "Z", "?", "\u6c34")
"""Texts that every tokenizer tells apart."""
_NOTHING = re.compile(rf"{INVISIBLE}|[\u200c\u200d\U000e0020-\U000e007f\s]")


def prompt(instruction: str | None, role: Role, *, symmetric: bool = False) -> str:
    """Return the prefix of a text: the instruction and a line break, or nothing.

    A query gets the instruction. A document gets it only in a symmetric task, whose two sides are texts of one kind
    (similarity, duplicates, clustering, classification): then both must be embedded in the same way.

    Args:
        instruction: The instruction of the task, or nothing. Space around it is removed.
        role: "query" or "document".
        symmetric: Whether documents get the instruction too.

    Raises:
        UsageError: `role` is neither of the two.
        TextError: `instruction` has characters that no tokenizer accepts.
    """
    if role not in ROLES:
        raise UsageError(f"role {role!r} is unknown: use 'query' or 'document'")
    if not (instruction or "").strip() or (role == "document" and not symmetric):
        return ""
    return check_text(instruction.strip(), "the instruction") + "\n"


def table() -> dict[str, dict[str, Any]]:
    """Return task name -> {"instruction": str, "symmetric": bool}, in the order of `prompts.toml`."""
    return tomllib.loads(resources.files("lusifer").joinpath("prompts.toml").read_text(encoding="utf-8"))


def for_task(name: str) -> dict[Role, str]:
    """Return role -> prefix for a task of `prompts.toml`, in the form of the prompts of sentence-transformers.

    Raises:
        UsageError: There is no such task; the message lists the tasks.
    """
    tasks = table()
    if name not in tasks:
        raise UsageError(f"task {name!r} is unknown: use one of {', '.join(tasks)}, or give the instruction itself")
    return {role: prompt(**tasks[name], role=role) for role in ROLES}


def check_room(prompt: str | None, tokenizer: Any, limit: int | None, where: str) -> None:
    """Refuse a prompt that leaves no token for a text: all vectors would be the same.

    Args:
        prompt: The prefix of every text, or nothing.
        tokenizer: The model's tokenizer. One that is not from transformers passes: its limit is not in tokens.
        limit: The most tokens that the model reads, prompt and special tokens included; None: no limit.
        where: Where the prompt comes from, at the start of the message.

    Raises:
        UsageError: Even a short word behind the prompt is truncated.
    """
    if not prompt or limit is None or not hasattr(tokenizer, "model_max_length"):
        return
    texts = [prompt + word for word in _WORDS]
    read = tokenizer(texts, truncation=True, max_length=limit, padding=False, verbose=False)["input_ids"]
    if any(ids != read[0] for ids in read):
        return
    tokens = len(tokenizer(prompt, truncation=False, verbose=False)["input_ids"])
    raise UsageError(
        f"{where}: the prompt {prompt[:40]!r} has {tokens} tokens with special tokens, which leaves no room for a text "
        f"in max_length {limit}: shorten it, or raise max_length in the recipe"
    )


def check_text(text: object, where: str) -> str:
    """Return the text unchanged, or refuse it if it cannot be embedded.

    Args:
        text: The text.
        where: Where it comes from, at the start of the message, such as "texts.txt line 3".

    Raises:
        TextError: Not a string, empty or blank, with a NUL character or half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise TextError(f"{where}: expected a text, found {type(text).__name__}: give a string")
    if not text.strip() or not _NOTHING.sub("", text):
        raise TextError(f"{where}: the text is empty: remove it or fill it")
    if "\x00" in text:
        raise TextError(f"{where}: NUL character at position {text.index(chr(0))}: remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        # A tokenizer would fail here with a message that does not name the text.
        raise TextError(
            f"{where}: lone surrogate U+{ord(text[error.start]):04X} at position {error.start}: "
            "remove it, or save the text again as UTF-8"
        ) from None
    return text
