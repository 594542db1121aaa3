"""The text of README.md in a model folder: what a stranger needs to use the model and to judge it.

The templates have the words. No date and no path goes in: a run that was resumed writes the same card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lusifer import __version__
from lusifer.errors import UsageError
from lusifer.io import markdown

if TYPE_CHECKING:
    from huggingface_hub import EvalResult
    from sentence_transformers import SentenceTransformer

TAGS = ("sentence-transformers", "sentence-similarity", "feature-extraction", "lusifer")
LIBRARIES = ("torch", "transformers", "sentence-transformers", "tokenizers", "peft", "accelerate", "datasets")
_TOWERS = {"encoder": "the encoder", "llm": "the LLM"}
SCORES = ("<!-- scores:begin -->", "<!-- scores:end -->")
"""Lines between which a card has its scores."""
DELTA_BEGINS = "This folder holds what training added."
"""How the paragraph of a card begins that only a delta has."""


def text(
    embedder: SentenceTransformer,
    bases: Mapping[str, str],
    name: str,
    template: str = "card.md",
    *,
    base_models: Sequence[str] = (),
    datasets: Sequence[str] = (),
    languages: Sequence[str] = (),
    instructions: Mapping[str, bool] | None = None,
    **facts: Any,
) -> str:
    """Make the whole card.

    Args:
        embedder: The model, adapters merged.
        bases: What to call "encoder" and "llm", in Markdown.
        name: Of the model.
        template: `card.md`, or one that extends it by how the weights came about.
        base_models: Hub ids only.
        datasets: Likewise.
        languages: Codes of those of the training text; none are known where it is empty.
        instructions: The prefixes of training, and whether documents had them too.
        facts: What else the template reads.

    Returns:
        YAML front matter for the Hub, then Markdown; ends with a line break.
    """
    # Not above: who pushes a model need not wait for them.
    from sentence_transformers.sentence_transformer.modules import Normalize

    from lusifer.embedder.assemble import lusifer_model
    from lusifer.model import adapters
    from lusifer.model.connector import CONNECTORS

    model = lusifer_model(embedder)
    config, parts = model.config, []
    for row in adapters.report(model):
        if row.parameters:
            dtypes = {str(p.dtype).removeprefix("torch.") for p in getattr(model, row.part).parameters()}
            parts.append((row.part, row.parameters, ", ".join(sorted(dtypes))))
    page = markdown.environment("lusifer.embedder", code=code, cell=markdown.cell, repr=repr).get_template(template)
    body = page.render(
        embedder=embedder,
        config=config,
        connector=CONNECTORS[config.connector_type].describe(config.connector_kwargs),
        parts=parts,
        normalized=any(isinstance(module, Normalize) for module in embedder),
        bases=bases,
        name=name,
        languages=languages,
        instructions=instructions or {},
        versions={"lusifer": __version__, **{library: version(library) for library in LIBRARIES}},
        scores=SCORES,
        delta_begins=DELTA_BEGINS,
        apart=[_TOWERS[tower] for tower in (model.delta.bases if model.delta else ())],
        **facts,
    )
    return f"---\n{front_matter(base_models, datasets, languages)}---\n\n{body.rstrip()}\n"


def front_matter(base_models: Sequence[str] = (), datasets: Sequence[str] = (), languages: Sequence[str] = ()) -> str:
    """The YAML that the Hub reads, without its two lines of dashes."""
    from huggingface_hub import ModelCardData

    bases = list(dict.fromkeys(base_models))
    values = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=list(TAGS),
        base_model=bases or None,
        # Without it the Hub takes a model with two bases for a merge of them.
        base_model_relation="finetune" if bases else None,
        datasets=list(dict.fromkeys(datasets)) or None,
        language=sorted(set(languages)) or None,
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
    from huggingface_hub import ModelCard

    before, begin, rest = card.partition(SCORES[0])
    _, end, after = rest.partition(SCORES[1])
    if not (begin and end):
        raise UsageError(f"the card has no place for scores: put the lines {SCORES[0]} and {SCORES[1]} into it")
    made = ModelCard(f"{before}{begin}\n{section}\n{end}{after}")
    title = re.search(r"^# +(.+?) *$", made.text, flags=re.MULTILINE)
    made.data.model_name = (title[1] if title else "model") if scores else None
    made.data.eval_results = list(scores) or None
    return str(made)


def of_whole(card: str) -> str:
    """The card of a delta as that of the whole model."""
    return "\n\n".join(part for part in card.split("\n\n") if not part.startswith(DELTA_BEGINS))


def public_name(name: str) -> str:
    """What a card may say of a base, a checkpoint or a data file: of a local path the last name only.

    Args:
        name: A hub id, `package:NAME`, `package:NAME/FILE`, `tiny:NAME`, `sample:NAME`, or a path.
    """
    if is_hub_id(name) or re.fullmatch(r"(package|tiny|sample):[\w.-]+(/[\w.-]+)?", name):
        return name
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] or "unnamed"


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id; whether a folder of that name is here is for the caller to see."""
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) is not None


def code(value: str) -> str:
    """A text as inline code, with its line breaks and quotation marks written out."""
    quoted = repr(value)
    longest = max(map(len, re.findall("`+", quoted)), default=0)
    return f"{'`' * (longest + 1)}{quoted}{'`' * (longest + 1)}"
