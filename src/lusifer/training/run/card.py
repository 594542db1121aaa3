"""The record of a stage's data: printed when the stage starts, stored in its folder, and shown on the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from lusifer.data.pairs import PairSet
from lusifer.embedder import card as cards
from lusifer.errors import UsageError
from lusifer.io import names, seen
from lusifer.io.files import read_json, write_file, write_json
from lusifer.training.folder import BEST, DATA, STEPS, RunFolder
from lusifer.training.objectives.examples import AlignmentExamples
from lusifer.training.recipe.data import PairSource, Source
from lusifer.training.recipe.recipe import Recipe, Stage
from lusifer.training.stages.contrastive import PairRows

ONE_KIND = "texts of one kind"


def data(
    recipe: Recipe, stage: Stage, rows: AlignmentExamples | PairRows, digests: Sequence[Mapping[str, str]] = ()
) -> dict[str, Any]:
    """Describe the data of a stage.

    Args:
        recipe: The recipe.
        stage: The stage.
        rows: The rows of the stage.
        digests: For each source, file name -> SHA-256; empty for a dataset on the Hub.

    Returns:
        - `steps`: the steps of the stage.
        - `sources`: for each source its name, language, `rows`, rows `dropped` without a negative, `use`, and the
          `prompt` of queries. A set of pairs also has the negatives that were `removed` because they answer their
          query, its `steps`, the `most` reads of a row, the `unread` rows, the steps `mixed` of several clusters, and
          the rows of each of its `parts` if small sets were joined.
        - `objectives`: for each alignment objective `steps`, `rows`, `most` and `unread`.
        - `left_out`: name and language of the sources that `english_only` leaves out.
        - `skipped`: the messages of the bad rows.
        - `evaluate`: with `evaluate`, the numbers of held-out pairs.
        - `read_from`: for each source its name, the rows that were read, and the commit or the digests of its files.
    """
    read_from = recipe.sources(stage)
    if isinstance(rows, PairRows):
        reads = rows.reads()
        sources = [_pairs(recipe, name, *found) | reads.get(name, {}) for name, found in rows.found.items()]
        counts, objectives = rows.read, {}
    else:
        sources = [
            _source(recipe, source) | {"rows": len(table), "dropped": 0, "use": role.replace("_", " "), "prompt": ""}
            for source, (table, role) in zip(read_from, rows.sources, strict=True)
        ]
        counts, objectives = [len(table) for table, _ in rows.sources], rows.reads()
    return {
        "steps": rows.steps,
        "sources": sources,
        "objectives": objectives,
        "left_out": [_source(recipe, source) for source in stage.data if not recipe.reads(source)],
        "skipped": rows.skipped,
        **({"evaluate": rows.held.counts() if rows.held else None} if stage.evaluate else {}),
        "read_from": [
            {"name": source.name, "rows": count}
            | ({"revision": source.revision} if source.hub else {"sha256": dict(files)})
            for source, count, files in zip_longest(read_from, counts, digests, fillvalue={})
        ],
    }


def _source(recipe: Recipe, source: Source) -> dict[str, str | None]:
    return {"name": source.name, "language": recipe.language(source)}


def _pairs(recipe: Recipe, name: str, found: PairSet, source: PairSource) -> dict[str, Any]:
    """Describe one set of a contrastive stage."""
    use = ONE_KIND if found.prompts.get("positive") else "query to document"
    return {
        "name": name,
        "language": recipe.language(source),
        "rows": len(found.rows),
        "dropped": found.dropped,
        "removed": found.removed,
        "use": use + (", in-batch negatives" if source.in_batch_negatives else ", own negatives only"),
        "prompt": found.prompts.get("query", ""),
        **({"parts": dict(found.parts)} if found.parts else {}),
    }


def keep(folder: Path, said: dict[str, Any], rows: AlignmentExamples | PairRows) -> None:
    """Write the record of a stage's data to its folder, for the cards of later stages and of a resumed run.

    `data.json` is the result of `data`, and `seen.safetensors` records the training texts. In a contrastive stage
    `steps.jsonl` has a line for each step: its set, and the cluster that its rows share, if any.

    Args:
        folder: The folder of the stage.
        said: The result of `data`.
        rows: The rows of the stage.
    """
    write_json(folder / DATA, said)
    seen.write(folder, rows.texts(), sum(1 for _ in rows.texts()))
    if isinstance(rows, PairRows):
        with write_file(folder / STEPS) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for number, step in enumerate(rows.plan, start=1):
                row = {"step": number, "source": step.name, "rows": len(step.rows), "cluster": step.cluster}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def prompts(run: RunFolder, number: int) -> dict[str, str]:
    """Collect the prompts of the stages up to `number`, including those that rows and tasks brought.

    Args:
        run: The run.
        number: The number of the last stage, from 1.

    Returns:
        Instruction -> prefix. If documents had the instruction too, also "INSTRUCTION-document" -> prefix.

    Raises:
        UsageError: Another instruction has that name.
    """
    kept = (_kept(run.stage(place, stage.name)) for place, stage in enumerate(run.recipe.stages[:number], start=1))
    found = [source for said in kept for source in said["sources"] if source["prompt"] and source["rows"]]
    queries = {source["prompt"].strip(): source["prompt"] for source in found}
    alike = [source["prompt"] for source in found if source["use"].startswith(ONE_KIND)]
    documents = {f"{prefix.strip()}-document": prefix for prefix in alike}
    if both := sorted(queries.keys() & documents.keys()):
        name = documents[both[0]].strip()
        raise UsageError(
            f"the instruction {both[0]!r} has the name under which the prompt for documents of {name!r} is saved: "
            "change one of them"
        )
    return queries | documents


def card(run: RunFolder, number: int, embedder: SentenceTransformer) -> str:
    """Render the model card after a stage.

    Args:
        run: The run, with `data.json` of the finished stages.
        number: The number of the stage, from 1.
        embedder: The model.
    """
    recipe = run.recipe
    stages = recipe.stages[:number]
    said = [_kept(run.stage(place, stage.name)) for place, stage in enumerate(stages, start=1)]
    bases = {"encoder": recipe.model.encoder, "llm": recipe.model.llm}
    start = recipe.model.start
    from_hub = [start] if start is not None and isinstance(names.model(start.path), str) else []
    whole = start is not None and bases["encoder"].path == bases["llm"].path  # a delta has its own bases
    sources = [source for stage in stages for source in recipe.sources(stage)]
    spoken = [recipe.language(source) for source in sources]
    return cards.text(
        embedder,
        {
            backbone: (f"the {'LLM' if backbone == 'llm' else backbone} of " if whole else "")
            + (f"the first {base.layers} layers of " if base.layers else "")
            + f"`{cards.public_name(base.path)}`"
            + (f" at revision `{base.revision}`" if base.revision else "")
            for backbone, base in bases.items()
        },
        recipe.name if number == len(recipe.stages) else f"{recipe.name}, after stage {stages[-1].name}",
        "trained.md",
        base_models=[base.path for base in (*bases.values(), *from_hub) if cards.is_hub_id(base.path)],
        start=cards.public_name(start.path) if start else None,
        datasets=[source.hub for source in sources if source.hub],
        languages=[code for code in spoken if code],
        unsaid=None in spoken,
        # Prefix of a contrastive stage -> whether documents had it too.
        instructions={
            source["prompt"]: source["use"].startswith(ONE_KIND)
            for kept in said
            for source in kept["sources"]
            if source["prompt"] and source["rows"]
        },
        recipe=recipe,
        stages=list(zip(stages, said, strict=True)),
    )


def _kept(folder: Path) -> dict[str, Any]:
    """Read the record that `keep` wrote; empty values if an older version ran the stage."""
    said = {"steps": None, "sources": [], "left_out": [], "skipped": [], "best": None}
    if (folder / DATA).is_file():
        said |= read_json(folder / DATA, "put it back, or train the stage again")
    if (folder / BEST).is_file():
        said["best"] = read_json(folder / BEST, "put it back, or train the stage again")
    return said
