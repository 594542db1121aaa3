"""The text of README.md in a model folder: what a stranger needs to use the model and to judge it.

The template `card.md` has the words. Only plain values go in, and no date and no path: a run that was resumed writes
the same card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from lusifer import __version__
from lusifer.embedder.info import Contents
from lusifer.errors import UsageError
from lusifer.io import markdown

TAGS = ("sentence-transformers", "sentence-similarity", "feature-extraction", "lusifer")
LIBRARIES = ("torch", "transformers", "sentence-transformers", "tokenizers", "peft", "accelerate", "datasets")
SCORES = ("<!-- scores:begin -->", "<!-- scores:end -->")
"""Lines between which a card has its scores."""


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
        contents: What the folder holds, as `info.contents` gives it.

    Returns:
        YAML front matter for the Hub, then Markdown; ends with a line break.
    """
    roles = {"query", "document"} <= contents.prompts.keys()
    # The example has an instruction, if there is one: one for queries alone before one for both sides.
    chosen = sorted(card.instructions.items(), key=lambda item: item[1])[:1]
    prompt = f", prompt={chosen[0][0]!r}" if chosen and not contents.prompts.get("query") else ""
    parts = [
        {"part": part.name, "what": part.what, "parameters": f"{part.parameters:,}", "weights": part.dtype}
        for part in contents.parts
    ]
    template = markdown.environment("lusifer.embedder", code=code, rows=_table).get_template("card.md")
    body = template.render(
        card=card,
        contents=contents,
        roles=roles,
        query_prompt=prompt,
        document_prompt=prompt if chosen and chosen[0][1] else "",
        saved={name: words for name, words in contents.prompts.items() if words},
        parts=_table(parts),
        scores=SCORES,
    )
    return f"---\n{front_matter(card)}---\n\n{body.rstrip()}\n"


def front_matter(card: Card) -> str:
    """The YAML that the Hub reads, without its two lines of dashes."""
    bases = list(dict.fromkeys(card.base_models))
    values = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=list(TAGS),
        base_model=bases or None,
        # Without it the Hub takes a model with two bases for a merge of them.
        base_model_relation="finetune" if bases else None,
        datasets=list(dict.fromkeys(card.datasets)) or None,
        language=sorted(set(card.languages)) or None,
    )
    return values.to_yaml() + "\n"


def with_scores(card: str, section: str, scores: Sequence[EvalResult]) -> str:
    """Put scores into the text of a card, in the place of those it has.

    Args:
        card: The text of README.md; its title is the model's name in the front matter.
        section: Markdown to read, as `lusifer.evaluation.report.card.model_card` makes it.
        scores: For the front matter (`model-index`), which the Hub shows beside a model; a missing score is none.

    Raises:
        UsageError: The card has no place for scores.
    """
    before, begin, rest = card.partition(SCORES[0])
    _, end, after = rest.partition(SCORES[1])
    if not (begin and end):
        raise UsageError(f"the card has no place for scores: put the lines {SCORES[0]} and {SCORES[1]} into it")
    made = ModelCard(f"{before}{begin}\n{section}\n{end}{after}")
    title = re.search(r"^# +(.+?) *$", made.text, flags=re.MULTILINE)
    made.data.model_name = (title[1] if title else "model") if scores else None
    made.data.eval_results = list(scores) or None
    return str(made)


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


def code(value: str) -> str:
    """A text as inline code, with its line breaks and quotation marks written out."""
    quoted = repr(value)
    longest = max(map(len, re.findall("`+", quoted)), default=0)
    return f"{'`' * (longest + 1)}{quoted}{'`' * (longest + 1)}"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows with the same keys as a Markdown table; columns that are empty in all rows are left out."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    cells = [[row[name] for name in columns] for row in rows]
    return markdown.table(columns, cells, left=len(columns)) if columns else ""
