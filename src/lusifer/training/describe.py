"""What a stage was trained on, kept beside its checkpoints: to be said when it starts and on the model's card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lusifer.data.alignment import AlignmentExamples
from lusifer.data.sources import short_name
from lusifer.folders import write_file
from lusifer.training import recipe as recipes
from lusifer.training.contrast import PairRows
from lusifer.training.recipe import AlignmentStage, ContrastiveStage, Recipe

DATA = "data.json"


def data(
    recipe: Recipe, stage: AlignmentStage | ContrastiveStage, rows: AlignmentExamples | PairRows
) -> dict[str, Any]:
    """Say what a stage reads.

    Args:
        recipe: The whole run.
        stage: One of its stages.
        rows: As `align.examples` or `contrast.examples` gives them.

    Returns:
        `steps`; `sources`: name, language, rows, rows `dropped` because no negative was found for them, their use and
        the text before queries; `left_out`: name and language of the sources that `english_only` drops.
    """
    kept, left_out = recipes.sources(recipe, stage)
    if isinstance(rows, PairRows):
        sources = [_pairs(name, rows) for name in rows.dropped]
    else:
        sources = [
            _source(source) | {"rows": len(table), "dropped": 0, "use": role.replace("_", " "), "prompt": ""}
            for source, (table, role) in zip(kept, rows.sources, strict=True)
        ]
    return {"steps": rows.steps, "sources": sources, "left_out": [_source(source) for source in left_out]}


def _source(source: recipes.Source) -> dict[str, str]:
    return {"name": short_name(source.path, source.hub), "language": recipes.language(source)}


def _pairs(name: str, rows: PairRows) -> dict[str, Any]:
    """One set of a contrastive stage."""
    prompts = rows.prompts.get(name, {})
    use = "texts of one kind" if prompts.get("positive") else "query to document"
    use += ", in-batch negatives" if rows.in_batch_negatives.get(name) else ", own negatives only"
    return {
        "name": name,
        "language": rows.language[name],
        "rows": len(rows.sets.get(name, ())),
        "dropped": rows.dropped[name],
        "use": use,
        "prompt": prompts.get("query", ""),
    }


def keep(folder: Path, said: dict[str, Any]) -> None:
    """Write what `data` says into a stage's folder: a later stage's card needs it, a resume may not read the rows."""
    with write_file(folder / DATA) as temporary:
        temporary.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
