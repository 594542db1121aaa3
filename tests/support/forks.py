"""An interpreter that has imported what takes longest, but not us, nor libraries that read their environment then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

COMMON = ("torch", "scipy.stats", "sklearn.metrics", "pandas", "pyarrow.dataset", "sympy", "lance_namespace")
"""What takes most of the time of all imports, and knows neither us nor the Auto classes nor a hub."""
FORKS = """
import json, os, select, signal, sys, time
for name in COMMON:
    __import__(name)
ours = {"lusifer", "transformers", "sentence_transformers", "peft", "huggingface_hub", "datasets"}
assert not ours & set(sys.modules)
for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
    del sys.modules[name]  # it reads, when it is imported, whether it shall be silent
for line in sys.stdin:
    program, seconds = json.loads(line)
    said, output = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # what it starts is killed with it
        os.dup2(output, 1)
        sys.stdout.reconfigure(line_buffering=True)
        exec(program, {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    os.close(output)
    text, ended, end = b"", False, time.monotonic() + seconds
    try:
        while not ended and select.select([said], [], [], max(0, end - time.monotonic()))[0]:
            part = os.read(said, 65536)
            text, ended = text + part, not part
    finally:
        if not ended:
            os.killpg(child, signal.SIGKILL)
    os.close(said)
    _, status = os.waitpid(child, 0)
    print(json.dumps([status, ended, text.decode(errors="replace")]), flush=True)
"""


class Interpreter:
    """Runs each program in a fork of itself, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, program: str, seconds: float = 300) -> str:
        """What a program prints; it must end well, and with all that it started, within so many seconds."""
        self._process.stdin.write(json.dumps([program, seconds]) + "\n")
        self._process.stdin.flush()
        status, ended, text = json.loads(self._process.stdout.readline())
        assert ended, f"killed after {seconds} seconds, in which it had printed: {text}"
        assert status == 0, text
        return text


@contextmanager
def started() -> Iterator[Interpreter]:
    """Start one."""
    command = [sys.executable, "-c", FORKS.replace("COMMON", repr(COMMON))]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Interpreter(process)
        process.stdin.close()
