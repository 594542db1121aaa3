"""The command `serve`: a model behind HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lusifer import extras
from lusifer.cli import terminal
from lusifer.cli.models import Device, DtypeOption, usable
from lusifer.errors import UsageError

KEYS = "LUSIFER_API_KEYS"
LOCAL = ("127.0.0.1", "::1", "localhost")
Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="Models, as in `embed`; with two the page shows them side by side."),
]


def serve(
    models: Models,
    index: Annotated[
        list[Path] | None,
        typer.Option(metavar="INDEX", help="Index to search, of one of the models; can be given several times."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_keys: Annotated[
        Path | None, typer.Option(help=f"File of API keys, one a line; or the variable {KEYS}, with commas between.")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a batch, padding included; by default what suits the device.")
    ] = None,
    queue_tokens: Annotated[int, typer.Option(min=1, help="While so many wait, requests get status 429.")] = 2**18,
    texts: Annotated[int, typer.Option(min=1, help="Most texts of a request.")] = 8192,
    body_bytes: Annotated[int, typer.Option(min=1, help="Most bytes of a request.")] = 2**24,
    dtype: DtypeOption = None,
    device: Device = None,
) -> None:
    """Answer over HTTP as OpenAI's embeddings do, with a page to try it; stop with Ctrl-C."""
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        extras.need("serve", module)
    keys = _keys(api_keys)
    terminal.quiet()
    import logging

    from lusifer.server import run

    logging.basicConfig(format="lusifer: %(message)s", level=logging.WARNING)
    logging.getLogger("lusifer").setLevel(logging.INFO)
    limits = run.Limits(batch_tokens, queue_tokens, texts, body_bytes)
    with run.listen(host, port) as found:  # before the models are loaded: an address that is taken is said at once
        app = run.make(models, limits, indexes=index or [], keys=keys, device=usable(device), dtype=dtype)
        if not keys and host not in LOCAL:
            terminal.note(f"whoever reaches {host} can use this server: it has no API key (--api-keys)")
        run.serve(app, found, lambda address: terminal.note(f"{', '.join(models)} at {address} (stop with Ctrl-C)"))
    terminal.note("stopped")


def _keys(file: Path | None) -> list[str]:
    """The API keys of a file, or of the environment.

    Raises:
        UsageError: The file cannot be read, or there is no key where there should be one.
    """
    if file is None:
        if KEYS not in os.environ:
            return []
        where, found = KEYS, os.environ[KEYS].split(",")
    else:
        try:
            where, found = str(file), file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: cannot be read ({error}): give a file of API keys, one a line") from error
    keys = [key.strip() for key in found if key.strip()]
    if not keys:
        raise UsageError(f"{where}: no API key in it: write one a line, or leave it out")
    return keys
