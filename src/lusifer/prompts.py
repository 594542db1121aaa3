"""One place that decides which text a model sees: the prefix of a query or a document, and which texts are refused.

Training, evaluation and serving all call `prompt`, so a text gets the same prefix wherever it is embedded.
The instructions by task name stand in `prompts.toml` beside this file.
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
"""Characters that nobody sees and that carry no meaning, as a regular expression: soft hyphen, zero-width space,
direction marks, word joiner, fillers, variation selectors, byte-order mark, annotation marks. Those that make another
text are not among them: the joiners (U+200C, U+200D) of words of Persian and of Indic scripts and of emoji, and the
tags (U+E0020 to U+E007F) of flags."""
_WORDS = ("a", "the", "1", "Z", "?", "\u6c34")
"""Texts that no tokenizer reads as one and the same."""
_NOTHING = re.compile(rf"{INVISIBLE}|[\u200c\u200d\U000e0020-\U000e007f\s]")


def prompt(instruction: str | None, role: Role, *, symmetric: bool = False) -> str:
    """Give the prefix that stands before a text: nothing, or the instruction and a line break.

    A query gets its instruction. A document gets none, unless both sides of the task are texts of one kind
    (similarity, duplicates, clustering, classification): then they must land in one place.

    Space around the instruction does not count; `symmetric` says whether documents carry it too.

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
    """Read the tasks by name, {"instruction": str, "symmetric": bool} each, in the order of `prompts.toml`."""
    return tomllib.loads(resources.files("lusifer").joinpath("prompts.toml").read_text(encoding="utf-8"))


def for_task(name: str) -> dict[Role, str]:
    """Give the prefixes of a task of `prompts.toml` by role, the form that sentence-transformers saves as prompts.

    Raises:
        UsageError: The table has no such task; the message lists those it has.
    """
    tasks = table()
    if name not in tasks:
        raise UsageError(f"task {name!r} is unknown: use one of {', '.join(tasks)}, or give the instruction itself")
    return {role: prompt(**tasks[name], role=role) for role in ROLES}


def check_room(prompt: str | None, tokenizer: Any, limit: int | None, where: str) -> None:
    """Refuse a prompt that leaves no token for a text: every vector would be that of the prompt.

    Args:
        prompt: What stands before every text, or nothing.
        tokenizer: That of the model, as transformers has it; others, whose limit is none of tokens, pass.
        limit: The most tokens of a text that are read, prompt and special tokens included; None: no limit.
        where: Whose prompt it is, at the start of the message.

    Raises:
        UsageError: Short words behind it are cut off, all of them.
    """
    if not prompt or limit is None or not hasattr(tokenizer, "model_max_length"):
        return
    texts = [prompt + word for word in _WORDS]
    read = tokenizer(texts, truncation=True, max_length=limit, padding=False, verbose=False)["input_ids"]
    if any(ids != read[0] for ids in read):
        return
    tokens = len(tokenizer(prompt, truncation=False, verbose=False)["input_ids"])
    raise UsageError(
        f"{where}: the prompt {prompt[:40]!r} has {tokens} tokens with the special ones, and of the {limit} that are "
        "read it leaves none for a text: shorten it, or raise max_length in the recipe"
    )


def check_text(text: object, where: str) -> str:
    """Return the text as it is, or refuse it; `where` it comes from begins the message, as in "texts.txt line 3".

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
        # Tokenizers fail on half of a surrogate pair with a message that does not name the text.
        raise TextError(
            f"{where}: lone surrogate U+{ord(text[error.start]):04X} at position {error.start}: "
            "remove it, or write the text anew as UTF-8"
        ) from None
    return text
