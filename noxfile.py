"""The fast tests on the oldest packages that pyproject.toml admits and on the newest that install: make check-versions.

The wheel is built and installed away from the clone, with all extras. An interpreter that this machine lacks is left
out by nox, and named. TORCH names the build of torch, as in TORCH=torch==2.13.0+cpu with UV_FIND_LINKS at its wheel.
"""

import os
import tomllib
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False
VERSION = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
EXTRAS = "eval,report,data,int8,gguf,index,ray,languages,robust,serve,mini,test"
CHOSEN = ("tests/io", "tests/data", "tests/training/recipe", "tests/cli")
"""What runs where no words are given: `nox -- tests` runs everything that is fast, `nox -- tests -m ""` all."""


@nox.session(python=["3.11", "3.12", "3.13"])
@nox.parametrize("resolution", ["lowest-direct", "highest"])
def versions(session: nox.Session, resolution: str) -> None:
    """Install the wheel with all extras by one resolution, say what came, and run tests on it."""
    folder = session.create_tmp()
    session.run("uv", "build", "--quiet", "--wheel", "--out-dir", folder, external=True)
    pinned = f"{folder}/torch.txt"
    with open(pinned, "w", encoding="utf-8") as stream:
        stream.write(os.environ.get("TORCH", "torch==2.13.0") + "\n")
    # Of a wheel, lusifer alone would be direct, and all that it needs as new as it comes.
    extras = [f"--extra={name}" for name in EXTRAS.split(",")]
    session.install("--resolution", resolution, "--override", pinned, "-r", "pyproject.toml", *extras)
    session.install("--no-deps", f"{folder}/lusifer-{VERSION}-py3-none-any.whl")
    session.run("uv", "pip", "list", external=True)
    # Of the clone, src/ is not on the path: what is tested is the wheel.
    session.run("pytest", "-q", "-m", "not slow", *(session.posargs or CHOSEN), env={"HF_HUB_OFFLINE": "1"})
