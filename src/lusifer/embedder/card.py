"""The model card (README.md) of a model folder, rendered from templates.

A card has no date and no path, so that a resumed run writes the same card.
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
_BACKBONES = {"encoder": "the encoder", "llm": "the LLM"}
SCORES = ("<!-- scores:begin -->", "<!-- scores:end -->")
"""The lines before and after the scores of a card."""
DELTA_BEGINS = "This folder holds what training added."
"""The start of the paragraph that only the card of a delta has."""


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
    """Render the model card.

    Args:
        embedder: The model, with its adapters merged.
        bases: "encoder" and "llm" -> the name of the base in the card, in Markdown.
        name: The name of the model.
        template: `card.md`, or a template that extends it.
        base_models: Ids on the Hub, for the front matter.
        datasets: Ids on the Hub, for the front matter.
        languages: Language codes of the training text. Empty if they are not known.
        instructions: Instruction of training -> whether documents had it too.
        facts: Other variables of the template.

    Returns:
        YAML front matter for the Hub, then Markdown, ending with a line break.
    """
    # Imported here because `lusifer push` uses this file and needs none of them.
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
        apart=[_BACKBONES[backbone] for backbone in (model.delta.bases if model.delta else ())],
        **facts,
    )
    return f"---\n{front_matter(base_models, datasets, languages)}---\n\n{body.rstrip()}\n"


def front_matter(base_models: Sequence[str] = (), datasets: Sequence[str] = (), languages: Sequence[str] = ()) -> str:
    """Make the YAML front matter that the Hub reads, without the two lines of dashes.

    Args:
        base_models: Ids of the bases on the Hub.
        datasets: Ids of the datasets on the Hub.
        languages: Language codes of the training text.
    """
    from huggingface_hub import ModelCardData

    bases = list(dict.fromkeys(base_models))
    values = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=list(TAGS),
        base_model=bases or None,
        # Without it the Hub shows a model with two bases as a merge of them.
        base_model_relation="finetune" if bases else None,
        datasets=list(dict.fromkeys(datasets)) or None,
        language=sorted(set(languages)) or None,
    )
    return values.to_yaml() + "\n"


def with_scores(card: str, section: str, scores: Sequence[EvalResult]) -> str:
    """Replace the scores of a card.

    Args:
        card: The text of README.md. Its title becomes the model's name in the front matter.
        section: The Markdown of the scores, as `lusifer.evaluation.report.card.model_card` makes it.
        scores: The scores of the front matter (`model-index`), which the Hub shows.

    Raises:
        UsageError: The card lacks one of the two marker lines.
    """
    from huggingface_hub import ModelCard

    before, begin, rest = card.partition(SCORES[0])
    _, end, after = rest.partition(SCORES[1])
    if not (begin and end):
        raise UsageError(f"the card has no place for scores: add the lines {SCORES[0]} and {SCORES[1]}")
    made = ModelCard(f"{before}{begin}\n{section}\n{end}{after}")
    title = re.search(r"^# +(.+?) *$", made.text, flags=re.MULTILINE)
    made.data.model_name = (title[1] if title else "model") if scores else None
    made.data.eval_results = list(scores) or None
    return str(made)


def of_whole(card: str) -> str:
    """Return the card of a delta without the paragraph about its bases, for an exported copy with all weights."""
    return "\n\n".join(part for part in card.split("\n\n") if not part.startswith(DELTA_BEGINS))


def public_name(name: str) -> str:
    """Return the name of a base, checkpoint or data file for a card; of a local path only the last part.

    Args:
        name: An id on the Hub, `package:NAME`, `package:NAME/FILE`, `tiny:NAME`, `sample:NAME`, or a path.
    """
    if is_hub_id(name) or re.fullmatch(r"(package|tiny|sample):[\w.-]+(/[\w.-]+)?", name):
        return name
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] or "unnamed"


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of an id on the Hub. It may also be a local folder, which is not checked."""
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) is not None


def code(value: str) -> str:
    """Format a text as inline code, with line breaks escaped."""
    quoted = repr(value)
    longest = max(map(len, re.findall("`+", quoted)), default=0)
    return f"{'`' * (longest + 1)}{quoted}{'`' * (longest + 1)}"
