"""The MODEL argument, and the device and number format of it, which several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A model folder, a model that comes with the library (mini), a hub id, or package:NAME."
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default the best one here.")]


def _number_format(name: str | None) -> str | None:
    if name is None:
        return None
    from lusifer.embedder.place import number_format

    return number_format(name, "--dtype")


DtypeOption = Annotated[
    str | None,
    typer.Option(
        callback=_number_format,
        help="Number format of the model: float32, bfloat16 or float16; by default as saved.",
    ),
]


def usable(device: str | None) -> str | None:
    """The device in small letters; one that this machine does not have is refused as `embedder.place.usable` does."""
    if device is None:
        return None
    from lusifer.embedder import place

    return place.usable(device, "--device")
