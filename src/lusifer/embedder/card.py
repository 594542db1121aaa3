"""The text of README.md in a model folder: what a stranger needs to use the model and to judge it.

Only plain values go in, and no date and no path: a run that was resumed writes the same card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import yaml

from lusifer import __version__
from lusifer.embedder.contents import Contents
from lusifer.io import markdown
from lusifer.io.markdown import bullets

TAGS = ("sentence-transformers", "sentence-similarity", "feature-extraction", "lusifer")
LIBRARIES = ("torch", "transformers", "sentence-transformers", "tokenizers", "peft", "accelerate", "datasets")
METHOD = "[LUSIFER, arXiv 2501.00874](https://arxiv.org/abs/2501.00874)"
SCORES = ("<!-- scores:begin -->", "<!-- scores:end -->")
UNMEASURED = """Not measured: no score is known in any language, which is not a score of 0. With SIB-200 files in the
folder DATA, this measures 14 languages:

```sh
lusifer evaluate DIR --suite offline --data DATA --output scores
```"""
_WHERE = {False: "before queries only", True: "before both texts of a pair"}
_QUESTION, _ANSWER = "Where is the station?", "La estación está en el norte."


@dataclass(frozen=True)
class Stage:
    """One stage of training: settings in words, and a row a data source (every row with the same columns)."""

    name: str
    settings: Mapping[str, str]
    data: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True)
class Card:
    """What a card says beside what the folder itself shows.

    `base_models` and `datasets` are hub ids only, `languages` those of the training text (none: unknown). `origin` are
    paragraphs on how the weights came about, `instructions` the prefixes of training with whether documents had them
    too, `limits` what this model in particular must not be taken for.
    """

    name: str
    origin: Sequence[str]
    base_models: Sequence[str] = ()
    datasets: Sequence[str] = ()
    languages: Sequence[str] = ()
    stages: Sequence[Stage] = ()
    instructions: Mapping[str, bool] = field(default_factory=dict)
    limits: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def text(card: Card, contents: Contents) -> str:
    """Make the whole card.

    Args:
        card: How the model came about.
        contents: What the folder holds, as `contents.read` gives it.

    Returns:
        YAML front matter for the Hub, then Markdown; ends with a line break.
    """
    sections = {
        "Use": _use(card, contents),
        "What it is made of": _made_of(contents),
        "How it was trained": "\n\n".join([*card.origin, *map(_stage, card.stages)]),
        "Scores by language": "\n".join([SCORES[0], UNMEASURED, SCORES[1]]),
        "Limits": bullets([*card.limits, *_limits(contents)]),
        "Licence": "The licences of the bases and of the data apply. Whoever publishes this model reads them and adds "
        "`license:` at the head of this file.",
    }
    if card.versions:
        sections["Made with"] = ", ".join(f"{name} {number}" for name, number in card.versions.items()) + "."
    summary = (
        "A text embedder: a multilingual encoder reads the text, a connector hands what it understood to an LLM, and "
        f"the LLM, {contents.attention}, turns it into a vector of {contents.dimension} numbers. "
        f"The method is {METHOD}."
    )
    body = [f"# {card.name}", summary, *(f"## {title}\n\n{content}" for title, content in sections.items())]
    return f"---\n{front_matter(card)}---\n\n" + "\n\n".join(body) + "\n"


def front_matter(card: Card) -> str:
    """The YAML that the Hub reads, without its two lines of dashes."""
    bases = list(dict.fromkeys(card.base_models))
    values = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": list(TAGS),
        "base_model": bases,
        # Without it the Hub takes a model with two bases for a merge of them.
        "base_model_relation": "finetune" if bases else None,
        "datasets": list(dict.fromkeys(card.datasets)),
        "language": sorted(set(card.languages)),
    }
    return yaml.safe_dump({key: value for key, value in values.items() if value}, sort_keys=False, allow_unicode=True)


def public_name(name: str) -> str:
    """What a card may say of a base, a checkpoint or a data file: of a local path the last name only.

    Args:
        name: A hub id, `package:NAME`, `tiny:NAME`, `sample:NAME`, or a path.
    """
    if is_hub_id(name) or re.fullmatch(r"(package|tiny|sample):[\w.-]+", name):
        return name
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] or "unnamed"


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id; whether a folder of that name is here is for the caller to see."""
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) is not None


def versions() -> dict[str, str]:
    """The versions of this package and of those that it trains with."""
    return {"lusifer": __version__, **{name: version(name) for name in LIBRARIES}}


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows with the same keys as a Markdown table; columns that are empty in all rows are left out."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    cells = [[row[name] for name in columns] for row in rows]
    return markdown.table(columns, cells, left=len(columns)) if columns else ""


def code(value: str) -> str:
    """A text as inline code, with its line breaks and quotation marks written out."""
    quoted = repr(value)
    longest = max(map(len, re.findall("`+", quoted)), default=0)
    return f"{'`' * (longest + 1)}{quoted}{'`' * (longest + 1)}"


def _use(card: Card, contents: Contents) -> str:
    """The lines to type, import first, and the prompts."""
    roles = {"query", "document"} <= contents.prompts.keys()
    queries, documents = ("encode_query", "encode_document") if roles else ("encode", "encode")
    told = sorted(card.instructions.items(), key=lambda item: item[1])[:1]  # one for queries alone, if there is one
    prompt = f", prompt={told[0][0]!r}" if told and not contents.prompts.get("query") else ""
    both = prompt if prompt and told[0][1] else ""
    lines = [
        "```python",
        "import lusifer  # first: it registers the architecture, and no flag is needed",
        "from sentence_transformers import SentenceTransformer",
        "",
        'model = SentenceTransformer("DIR")  # this folder, or its name on the Hub',
        f"queries = model.{queries}([{_QUESTION!r}]{prompt})",
        f"documents = model.{documents}([{_ANSWER!r}]{both})",
        "print(model.similarity(queries, documents))",
        "```",
    ]
    parts = ["The Python package `lusifer` must be installed.", "\n".join(lines)]
    if card.instructions:
        words = "In training these words, line break included, stood before a text; take those that fit your texts:"
        rows = [f"{code(told)}, {_WHERE[both]}" for told, both in card.instructions.items()]
        parts.append(f"{words}\n\n{bullets(rows)}")
    saved = {name: prompt for name, prompt in contents.prompts.items() if prompt}
    if saved:
        rows = [
            f"{code(name)}: {code(prompt)}" + (" (the default)" if name == contents.default_prompt else "")
            for name, prompt in saved.items()
        ]
        words = "Prompts saved in the folder, for `prompt_name=`:"
        if roles:
            words = "Prompts saved in the folder, for `prompt_name=`; `encode_query` and `encode_document` take theirs:"
        parts.append(f"{words}\n\n{bullets(rows)}")
    elif roles:
        parts.append("The folder itself puts nothing before a text: without a prompt both calls equal `encode`.")
    return "\n\n".join(parts)


def _made_of(contents: Contents) -> str:
    parts = [
        {"part": part.name, "what": part.what, "parameters": f"{part.parameters:,}", "weights": part.dtype}
        for part in contents.parts
    ]
    length = "length 1" if contents.normalized else "the length that the model gives them"
    facts = [
        f"pooling: {contents.pooling}",
        f"vectors: {contents.dimension} numbers, of {length}; compare them by {contents.similarity}",
        f"longest text: {contents.max_tokens} tokens of the encoder's tokenizer, prompt and special tokens included",
    ]
    return f"{table(parts)}\n\n{bullets(facts)}"


def _stage(stage: Stage) -> str:
    settings = bullets(f"{name}: {value}" for name, value in stage.settings.items())
    return "\n\n".join(part for part in (f"### {stage.name}", settings, table(stage.data)) if part)


def _limits(contents: Contents) -> list[str]:
    """What holds for every model of this kind."""
    return [
        f"A text longer than {contents.max_tokens} tokens is cut at its end.",
        "How good it is in a language is known only where a score stands above.",
        "What the bases and the training text have in errors and prejudice remains; nothing was done against it.",
    ]
