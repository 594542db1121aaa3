"""The command `serve`: what it refuses, and a process that ends well when it is asked to."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from lusifer import extras
from lusifer.cli import main
from lusifer.cli.use import _keys
from lusifer.embedder import golden
from lusifer.errors import Probe, UsageError
from lusifer.server.connections import listen
from support.processes import Started, lusifer


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["MODEL", "--port", "70000"], "less than or equal to 65535"),
        (["MODEL", "--queue-tokens", "10"], "--queue-tokens 10: less than the tokens of a batch (1024)"),
        (["MODEL", "MODEL"], "two models have the name"),
        (["MODEL", "--api-keys", "empty"], "empty: has no API key"),
        (["MODEL", "--api-keys", "absent"], "absent: cannot be read"),
        (["MODEL", "--api-keys", "bom"], "bom line 2: an API key may only have printable ASCII characters"),
        (["MODEL", "--api-keys", "latin"], "latin: not UTF-8 text"),
        (["MODEL", "--port", "TAKEN"], "TAKEN: in use by another program: give another --host or --port"),
        (["MODEL", "--host", "192.0.2.1"], "192.0.2.1 port 8000: Cannot assign requested address: give another --host"),
    ],
)
def test_a_call_that_cannot_work_is_refused_in_a_line(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text(" \n\n")
    Path("bom").write_text("key-one\nse\u200bcret\n", encoding="utf-8-sig")
    Path("latin").write_bytes(b"se\xfccret\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        real = {"MODEL": str(model_folder), "TAKEN": str(taken.getsockname()[1])}
        assert main(["serve", *(real.get(word, word) for word in words)]) == 2
    told = capsys.readouterr().err
    assert (
        said.replace("TAKEN", real["TAKEN"]) in told
        and "Errno" not in told
        and "cret" not in told
        and "xfc" not in told
    )


def test_a_second_server_is_refused_while_the_first_loads_whose_early_clients_wait() -> None:
    with listen("127.0.0.1", 0) as found:
        port = found.getsockname()[1]
        with pytest.raises(UsageError, match=rf"127\.0\.0\.1 port {port}: in use by another program: give another"):
            listen("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            assert found.accept()[1] == client.getsockname()


def test_a_key_is_what_its_file_shows(tmp_path: Path) -> None:
    """Editors of Windows put a mark before the first one, which no client sends."""
    (tmp_path / "keys").write_text("key one\n\n two \n", encoding="utf-8-sig")
    assert _keys(tmp_path / "keys") == ["key one", "two"]


@pytest.mark.parametrize("secret", ["k\udcff", "käse", "k\x1b[2J"])
def test_a_key_of_the_environment_that_no_header_can_hold(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUSIFER_API_KEYS", f"first,{secret}")
    with pytest.raises(UsageError, match="LUSIFER_API_KEYS: key 2: an API key may only have") as error:
        _keys(None)
    assert secret not in str(error.value)


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    assert main(["serve", "mini"]) == 1
    assert "pip install 'lusifer[serve]'" in capsys.readouterr().err


def test_a_model_that_gives_other_vectors_than_its_golden_ones_is_not_served(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(golden, "check", lambda *_: Probe("golden vectors", False, "largest cosine distance 1e-01"))
    assert main(["serve", str(model_folder)]) == 1
    assert "golden vectors: largest cosine distance 1e-01" in capsys.readouterr().err


def _address(server: Started) -> str:
    """Wait for the address of a server that starts."""
    found, end = None, time.monotonic() + 120
    while found is None and time.monotonic() < end and server.process.exitcode is None:
        found = re.search(r"http://[\d.]+:\d+", server.stderr if server.files[1].exists() else "")
        time.sleep(0.1)
    assert found, server.stderr
    return found[0]


@pytest.mark.slow
def test_asked_twice_to_stop_it_ends_with_status_0_and_no_traceback(model_folder: Path, tmp_path: Path) -> None:
    """The second signal comes while it stops, or when it has stopped and the process ends."""
    for number, pause in ((signal.SIGINT, 0.05), (signal.SIGTERM, 0.05), (signal.SIGINT, 0.3), (signal.SIGTERM, 0.3)):
        place = tmp_path / f"{number}-{pause}"
        place.mkdir()
        server = lusifer(place, "serve", model_folder, "--port", "0")
        _address(server)
        os.kill(server.process.pid, number)
        time.sleep(pause)
        if server.process.exitcode is None:
            os.kill(server.process.pid, number)
        assert server.wait() == 0, server.stderr
        assert "Traceback" not in server.stderr and server.stderr.splitlines()[-1] == "lusifer: stopped"


@pytest.mark.slow
def test_asked_to_stop_it_answers_what_has_begun_and_ends_with_status_0(model_folder: Path, tmp_path: Path) -> None:
    server = lusifer(tmp_path, "serve", model_folder, "--port", "0")
    address = _address(server)

    def ask(texts: list[str]) -> httpx.Response:
        return httpx.post(f"{address}/v1/embeddings", json={"input": texts}, timeout=60, trust_env=False)

    def stop() -> None:
        """Ask it to stop once it computes: a client that has not connected by then is refused, and rightly."""
        while not re.search(r"^lusifer_queue_tokens\{.*\} [1-9]", metrics.get(f"{address}/metrics").text, re.M):
            time.sleep(0.01)
        os.kill(server.process.pid, signal.SIGTERM)

    assert ask(["water"]).status_code == 200
    forged = f"{address}/v1/models/%1b]0;owned%07%1b[2J%0dlusifer: forged"
    assert httpx.get(forged, trust_env=False).status_code == 404
    with httpx.Client(timeout=60, trust_env=False) as metrics:
        stopper = threading.Thread(target=stop, daemon=True)
        stopper.start()
        answer = ask(["water " * 60] * 1000)
        stopper.join(60)
    assert not stopper.is_alive()
    assert answer.status_code == 200 and len(answer.json()["data"]) == 1000
    assert server.wait() == 0, server.stderr
    assert server.stderr.splitlines()[-1] == "lusifer: stopped"
    assert "\\u001b[2J" in server.stderr and "\x1b" not in server.stderr
    assert not [line for line in server.stderr.splitlines() if line.startswith("lusifer: forged")]
