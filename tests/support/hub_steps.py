"""What end_to_end/test_hub.py does in processes of its own: `hub_steps.py PLAN.json` prints results by name, as JSON.

A plan is a list of steps, {"name": ..., "do": ..., and the step's arguments}.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEXTS = ["The river rises in spring.", "Сколько воды нужно человеку каждый день?"]


@contextlib.contextmanager
def caught_stderr() -> Iterator[list[str]]:
    """Lines on standard error, also of handlers that took hold of it before."""
    lines: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode().splitlines()


def command(words: list[str], token: str | None = None) -> dict[str, Any]:
    """The command line, of a user who is logged in with a token."""
    from lusifer.cli import main

    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    with caught_stderr() as lines, contextlib.redirect_stdout(io.StringIO()) as out:
        status = main(words)
    return {"status": status, "err": lines, "out": out.getvalue()}


def load(model: str, alone: bool = True) -> dict[str, Any]:
    """Vectors by `lusifer.load` and, if `alone`, by sentence-transformers, which asks a lost hub again and again."""
    from sentence_transformers import SentenceTransformer

    import lusifer
    from lusifer.errors import LusiferError

    try:
        ours = lusifer.load(model, device="cpu")
    except LusiferError as error:
        return {"error": str(error), "status": error.status}
    theirs = SentenceTransformer(model, device="cpu") if alone else ours
    return {"ours": ours.encode(TEXTS).tolist(), "theirs": theirs.encode(TEXTS).tolist()}


def rows(kind: str, **spec: Any) -> Any:
    """Rows of a data set."""
    from lusifer.data.sources import SourceSpec
    from lusifer.data.sources import load as load_rows
    from lusifer.errors import LusiferError

    try:
        return list(load_rows(SourceSpec(**spec), kind))
    except LusiferError as error:
        return {"error": str(error), "status": error.status}


def convert(words: list[str], public: str) -> dict[str, Any]:
    """`lusifer convert`, where `public` is the public base of the tiny encoder."""
    from lusifer.model import published

    key = ("xlm-r", *json.loads(Path(public).read_text()))
    published.PUBLIC[key] = "tiny/public-encoder"
    try:
        return command(["convert", *words])
    finally:
        del published.PUBLIC[key]


if __name__ == "__main__":
    doers = {"command": command, "load": load, "rows": rows, "convert": convert}
    found = {}
    for step in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        name, do = step.pop("name"), step.pop("do")
        found[name] = doers[do](**step)
    sys.stdout.write("\n" + json.dumps(found) + "\n")
