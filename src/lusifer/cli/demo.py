"""`lusifer demo`: the whole journey on a toy, from nothing to vectors."""

from __future__ import annotations

import time
from pathlib import Path

import typer

from lusifer.cli.train import listener
from lusifer.errors import LusiferError, MissingExtraError

RECIPE = "tiny"
SENTENCES = {
    "en": "Where is the nearest hospital?",
    "es": "¿Dónde está el hospital más cercano?",
    "ru": "Где ближайшая больница?",
    "hi": "निकटतम अस्पताल कहाँ है?",
    "sw": "Hospitali iliyo karibu iko wapi?",
}


def run(output: Path) -> None:
    """Train the recipe `tiny`, check the model and embed a sentence in five languages.

    Args:
        output: Gets the run in `run/`, the vectors in `vectors.npy` and, with matplotlib, `loss.png`. What is done
            already is not done again.

    Raises:
        LusiferError: A step failed.
    """
    started = time.monotonic()
    typer.echo(
        "This demo uses random bases of toy size. It shows the mechanics, not quality: its vectors mean nothing."
    )
    typer.echo("")
    typer.echo(f"1. Train: both stages of recipe {RECIPE!r}, on English text alone")
    import torch

    from lusifer.training import run as training

    torch.set_num_threads(1)  # for toy tensors several threads are no faster, and beside other work far slower
    with listener() as listen:
        begun = (output / "run" / "recipe.yaml").is_file()
        model = training.train(RECIPE, output / "run", resume=begun, listen=listen)
    typer.echo(f"   the model is in {model}")
    _check(model)
    _embed(model, output)
    _draw(output)
    typer.echo("")
    typer.echo(f"Done in {time.monotonic() - started:.0f} seconds. The same by hand:")
    typer.echo(f"    lusifer train {RECIPE} --output my-run")
    typer.echo("    lusifer doctor my-run/model")
    typer.echo("    lusifer embed my-run/model --input texts.txt --output vectors.npy")


def _check(model: Path) -> None:
    """The doctor, in two lines."""
    from lusifer.embedder import doctor

    typer.echo("")
    typer.echo("2. Check the model on its own weights (lusifer doctor)")
    probes = doctor.examine(model)
    for probe in probes:
        if not probe.ok:
            typer.echo(f"   red: {probe.name}: {probe.detail}")
    failed = sum(not probe.ok for probe in probes)
    if failed:
        raise LusiferError(f"{model}: {failed} of {len(probes)} checks failed")
    typer.echo(f"   all {len(probes)} checks hold")


def _embed(model: Path, output: Path) -> None:
    """One sentence in five languages, and how near each is to the English one."""
    import numpy as np

    from lusifer import languages
    from lusifer.embedder import folder
    from lusifer.folders import write_file
    from lusifer.serving import encode

    typer.echo("")
    typer.echo("3. Embed one sentence in five languages (lusifer embed)")
    vectors = encode.encode(folder.load(model), list(SENTENCES.values()))
    with write_file(output / "vectors.npy") as file:
        np.save(file, vectors)
    known = languages.table()
    for (code, text), vector in zip(SENTENCES.items(), vectors, strict=True):
        typer.echo(f"   {known[code].name:<8} cosine to English {vector @ vectors[0]:+.3f}   {text}")
    typer.echo(f"   {vectors.shape[0]} vectors of {vectors.shape[1]} numbers are in {output / 'vectors.npy'}")


def _draw(output: Path) -> None:
    """The loss of both stages, where matplotlib is installed."""
    from lusifer.evaluation import plots

    try:
        picture = plots.loss_curves(output / "run" / "metrics.jsonl", output / "loss.png")
    except MissingExtraError:
        return
    typer.echo(f"   the losses of both stages are drawn in {picture}")
