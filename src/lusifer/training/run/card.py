"""What a run was trained on and by: said when a stage starts, kept beside its checkpoints, written on its card."""

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
    """Say what a stage reads; `digests` has file name -> SHA-256 of each source that is read, of a hub set none.

    Returns:
        `steps`; `sources`: name, language, rows, rows `dropped` because no negative was found for them, their use and
        the text before queries, of sets of pairs also negatives that were `removed` because they answer their query,
        the steps that they get, how often a row is read at `most` and how many are `unread`, with clusters the steps
        that are `mixed` of several, and of small sets that were joined the rows of each of the `parts`; `objectives`
        of an alignment stage: of each the steps, rows, `most` and `unread` as of a set of pairs; `left_out`: name and
        language of the sources that `english_only` drops; `skipped`: the bad rows that were left out; `read_from`: of
        every source name, rows as they were read, and the commit or the digests of its files.
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
    """One set of a contrastive stage."""
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
    """Write what a stage reads into its folder: a later stage's card needs it, a resume may not read the rows.

    `data.json` is what `data` says, `seen.safetensors` tells which texts it reads, and `steps.jsonl` of a stage of
    pairs has a line for each step: its set and, where its rows share one, their cluster.
    """
    write_json(folder / DATA, said)
    seen.write(folder, rows.texts(), sum(1 for _ in rows.texts()))
    if isinstance(rows, PairRows):
        with write_file(folder / STEPS) as temporary, temporary.open("w", encoding="utf-8") as stream:
            for number, step in enumerate(rows.plan, start=1):
                row = {"step": number, "source": step.name, "rows": len(step.rows), "cluster": step.cluster}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def prompts(run: RunFolder, number: int) -> dict[str, str]:
    """Give the prefixes in the stages up to `number`, by instruction: those of rows and tasks as well.

    Where documents had it too, it is there once more as "INSTRUCTION-document".

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
            f"the instruction {both[0]!r} is the name under which documents of {name!r} are saved: reword one"
        )
    return queries | documents


def card(run: RunFolder, number: int, embedder: SentenceTransformer) -> str:
    """The model card of the result of stage `number` (from 1); `run` has `data.json` of the stages that are done."""
    recipe = run.recipe
    stages = recipe.stages[:number]
    said = [_kept(run.stage(place, stage.name)) for place, stage in enumerate(stages, start=1)]
    bases = {"encoder": recipe.model.encoder, "llm": recipe.model.llm}
    start = recipe.model.start
    from_hub = [start] if start is not None and isinstance(names.model(start.path), str) else []
    whole = start is not None and bases["encoder"].path == bases["llm"].path  # a delta has bases of its own
    sources = [source for stage in stages for source in recipe.sources(stage)]
    spoken = [recipe.language(source) for source in sources]
    return cards.text(
        embedder,
        {
            tower: (f"the {'LLM' if tower == 'llm' else tower} of " if whole else "")
            + (f"the first {base.layers} layers of " if base.layers else "")
            + f"`{cards.public_name(base.path)}`"
            + (f" at revision `{base.revision}`" if base.revision else "")
            for tower, base in bases.items()
        },
        recipe.name if number == len(recipe.stages) else f"{recipe.name}, after stage {stages[-1].name}",
        "trained.md",
        base_models=[base.path for base in (*bases.values(), *from_hub) if cards.is_hub_id(base.path)],
        start=cards.public_name(start.path) if start else None,
        datasets=[source.hub for source in sources if source.hub],
        languages=[code for code in spoken if code],
        unsaid=None in spoken,
        # Prefixes of contrastive stages, and whether documents had them too.
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
    """What `keep` wrote, or nothing where an older version ran the stage."""
    said = {"steps": None, "sources": [], "left_out": [], "skipped": [], "best": None}
    if (folder / DATA).is_file():
        said |= read_json(folder / DATA, "put it back, or train the stage again")
    if (folder / BEST).is_file():
        said["best"] = read_json(folder / BEST, "put it back, or train the stage again")
    return said
