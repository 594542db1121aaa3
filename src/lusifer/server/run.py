"""Run the server: load and check models, listen, and stop without losing requests."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

import uvicorn

from lusifer import extras
from lusifer.embedder import folder, golden
from lusifer.embedder import identity as identities
from lusifer.errors import UsageError
from lusifer.index.index import Index
from lusifer.io import names
from lusifer.io.files import expand_user
from lusifer.server.app import Site, make_app
from lusifer.server.batcher import Batcher
from lusifer.server.bodies import Intake
from lusifer.server.connections import Connection, Door, Patience
from lusifer.server.gate import Gate, Keys
from lusifer.server.metrics import Meter, Metrics
from lusifer.server.search import Searcher, searchers
from lusifer.server.served import Look, Served
from lusifer.serving import dtypes, guard
from lusifer.serving.encode import BATCH_TOKENS, BATCH_TOKENS_ELSEWHERE, slow_format

if TYPE_CHECKING:
    from lusifer.index.models import IndexModel
    from lusifer.serving.encode import Embedder

LOG = logging.getLogger(__name__)
Unscored = Literal["warn", "error", "off"]
LOOK_EVERY = 10
"""How many ticks of uvicorn (0.1 s each) are between two checks for slow clients."""
GRACE = 30
"""How many seconds requests have to finish when the server stops."""
FILES = 2**13
"""The limit of open files that the process requests: twice the number of connections."""
HELD_BODIES = 16
"""How many bodies of the largest size may be in memory at once."""


@dataclass(frozen=True)
class Limits:
    """The limits of requests.

    batch_tokens: The most tokens of a batch; None takes the default of the device.
    queue_tokens: If this many tokens wait for a model, requests are refused.
    texts: The most texts of a request.
    body_bytes: The most bytes of a body.
    patience: The limits for slow clients and the number of connections.
    """

    batch_tokens: int | None = None
    queue_tokens: int = 2**18
    texts: int = 8192
    body_bytes: int = 2**24
    patience: Patience = field(default_factory=Patience)


def public_name(model: str) -> str:
    """Return the name of a model for clients: its short name, Hub id, package or folder; RUN for RUN/model."""
    found = names.model(model)
    if model.startswith(names.PACKAGE):
        return model.removeprefix(names.PACKAGE).replace(":", "-")
    if not isinstance(found, Path) or not expand_user(model).exists():
        return model
    place = Path(os.path.abspath(found))  # links are not resolved: their name is the public one
    return (place.parent.name if place.name == "model" else place.stem if place.is_file() else place.name) or "model"


def load(
    model: str,
    metrics: Metrics,
    limits: Limits,
    *,
    device: str | None = None,
    dtype: str | None = None,
    unscored: Unscored = "warn",
    indexes: Sequence[IndexModel] = (),
) -> Served:
    """Load a model, check its golden vectors, and start its thread.

    Args:
        model: A folder or name.
        metrics: The metrics of the server.
        limits: The limits of requests.
        device: "cpu", "cuda", ...; None takes the best one.
        dtype: The dtype of the model; None is the one it was saved in, "auto" that of the first index that the model
            made, the saved one if it made none of them, and without indexes the one that suits the processor.
        unscored: What happens with texts in a language for which the model has no score.
        indexes: The records of the indexes of the server, for "auto".

    Raises:
        MissingExtraError: `unscored` is "error", and py3langid is not installed.
        LusiferError: As `folder.load`; or the golden vectors differ.
        UsageError: The queue is smaller than a batch.
    """
    identity = identities.of_model(model) if indexes else None
    made_by_it = [index for index in indexes if index.identity == identity]
    if dtype == dtypes.AUTO and indexes:  # a model that asks another model's index loads as saved, as in `search`
        dtype = made_by_it[0].dtype if made_by_it else None
    choice, light = dtypes.FormatChoice(dtype), dtypes.on_processor(device)  # the same vectors with less memory

    def loaded(dtype: str | None) -> Embedder:
        return folder.load(model, device=device, dtype=dtype, vectors_only=light)

    if dtype == dtypes.AUTO:
        embedder, choice = dtypes.load(model, device, loaded)
        dtype = choice.dtype
        if choice.line:
            LOG.info("%s: %s", public_name(model), choice.line)
    else:
        embedder = loaded(dtype)
    if slow := slow_format(embedder.device, dtype):
        LOG.warning("%s: %s", public_name(model), slow)
    for other in {index.dtype for index in made_by_it if not dtypes.same(model, index.dtype, dtype)}:
        words = "%s: is served in %s, and vectors of an index that it made are in %s"
        LOG.warning(words, public_name(model), dtype or "the format saved", other or "the format saved")
    if not choice.checked:
        golden.demand(embedder, model)
    made = start(public_name(model), identity or identities.of_model(model), embedder, metrics, limits)
    made.look, made.refuse_unscored = _look(model, made.name, unscored), unscored == "error"
    return made


def _look(model: str, name: str, unscored: Unscored) -> Look | None:
    """A function that finds texts without a score, by the rules of `lusifer embed`; None if it is off."""
    identify = unscored == "error" or extras.tells_languages()
    known = None if unscored == "off" else guard.for_model(model, identify, logging.getLogger(__name__).warning)
    if known is None:
        return None
    known.find("a" * guard.FEWEST_LETTERS)  # loads the identifier before the first request

    def look(texts: Sequence[str]) -> list[tuple[int, str, str]]:
        asked = guard.LanguageGuard(known.codes, identify, seen=len(texts), looked=len(texts))
        found = [(row, *finding) for row, text in enumerate(texts) if (finding := asked.find(text)) is not None]
        for _, kind, language in found:
            asked.found.setdefault(kind, Counter())[language] += 1
        return found if asked.line(name) else []  # `line` ignores a few findings among many: they are probably errors

    return look


def start(name: str, identity: str, embedder: Embedder, metrics: Metrics, limits: Limits) -> Served:
    """Start the thread of a loaded model.

    Args:
        name: Its public name.
        identity: Its identity.
        embedder: The model.
        metrics: The metrics of the server.
        limits: The limits of requests.

    Raises:
        UsageError: The queue is smaller than a batch.
    """
    budget = limits.batch_tokens or BATCH_TOKENS.get(embedder.device.type, BATCH_TOKENS_ELSEWHERE)
    if limits.queue_tokens < budget:
        words = f"--queue-tokens {limits.queue_tokens}: less than the tokens of a batch ({budget})"
        raise UsageError(f"{words}: raise it, or lower --batch-tokens")
    meter = Meter(metrics, name)
    meter.budget.set(budget)
    return Served(name, identity, embedder, Batcher(embedder, budget, limits.queue_tokens, meter), meter)


def make(
    models: Sequence[str],
    limits: Limits | None = None,
    *,
    indexes: Sequence[Path] = (),
    statistics: Sequence[Path] = (),
    keys: Sequence[str] = (),
    device: str | None = None,
    dtype: str | None = None,
    unscored: Unscored = "warn",
) -> Gate:
    """Load models and return the ASGI application.

    Args:
        models: Folders or names of models.
        limits: The limits of requests; None takes the defaults.
        indexes: Folders of indexes; each model searches the first one that fits it.
        statistics: Files of language statistics, for models that have none in their folders.
        keys: API keys; without keys every request is accepted.
        device: "cpu", "cuda", ...; None takes the best one.
        dtype: The dtype of the models; None is the one each was saved in, "auto" that of the index that a model made,
            else the one that suits the processor.
        unscored: What happens with texts in a language for which the model's card has no score.

    Raises:
        UsageError: Two models have the same name, there is no such index, no model fits an index, or as `load`.
        LusiferError: As `load`.
    """
    limits, metrics = limits or Limits(), Metrics()
    called = [public_name(model) for model in models]
    for name in called:
        if called.count(name) > 1:
            raise UsageError(f"two models have the name {name!r}: rename the folder of one, or make a link to it")
    about = [Index.open(each).model for each in indexes] if dtype is not None else []
    how = {"device": device, "dtype": dtype, "unscored": unscored, "indexes": about}
    served = [load(model, metrics, limits, **how) for model in models]
    found = searchers(indexes, dict(zip(models, served, strict=True)), device, statistics)
    return assemble(served, metrics, limits, keys, found)


def assemble(
    served: Sequence[Served],
    metrics: Metrics,
    limits: Limits,
    keys: Sequence[str] = (),
    searchers: Mapping[str, Searcher] | None = None,
) -> Gate:
    """Return the ASGI application for started models and open indexes.

    Args:
        served: The models.
        metrics: The metrics of the server.
        limits: The limits of requests.
        keys: API keys; without keys every request is accepted.
        searchers: Public name of a model -> its searcher.
    """
    intake = Intake(limits.body_bytes, limits.texts, HELD_BODIES * limits.body_bytes, limits.patience)
    return make_app(Site(served, intake, metrics, searchers), Keys(keys))


class _Server(uvicorn.Server):
    """Exits with status 0 when it is stopped by a signal; uvicorn would raise the signal again."""

    def __init__(self, config: uvicorn.Config, door: Door) -> None:
        super().__init__(config)
        self._door = door
        self.last = False
        """Whether the process ends with the server: later signals are ignored then."""

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK_EVERY == 0:
            self._door.look(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; after a second signal without the open requests, whose cancellation uvicorn logs as errors."""
        await super().shutdown(sockets)
        if not self.force_exit:
            return
        self.lifespan.logger.disabled = True
        try:
            for task in self.server_state.tasks:
                task.cancel()
            await asyncio.gather(*self.server_state.tasks, return_exceptions=True)
            await self.lifespan.shutdown()  # uvicorn leaves it out here, and then logs the traceback of its task
        finally:
            self.lifespan.logger.disabled = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self.force_exit = self.should_exit
            self.should_exit = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if self.last and self.should_exit else handler)


def _files() -> int:
    """How many files and connections this process may have open; the limit is raised as far as allowed."""
    try:
        import resource
    except ImportError:  # not on Windows, where connections are not counted as files
        return 2**16
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def server(app: Gate, patience: Patience | None = None) -> _Server:
    """Return the server: `.run(sockets=[...])` runs until SIGINT or SIGTERM, and then finishes open requests.

    Args:
        app: The application of `make` or `assemble`.
        patience: The limits for slow clients; connections are at most half of the open files that are allowed.
    """
    patience = patience or Patience()
    door = Door(replace(patience, connections=min(patience.connections, _files() // 2)))
    config = uvicorn.Config(
        app,
        http=partial(Connection, door=door),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE,
    )
    return _Server(config, door)


def serve(app: Gate, found: socket.socket, say: Callable[[str], None]) -> None:
    """Answer requests until the process is stopped; from then on it ignores SIGINT and SIGTERM, and can end.

    Args:
        app: The application of `make` or `assemble`.
        found: A socket of `listen`.
        say: Called with the address of the server.
    """
    host, port = found.getsockname()[:2]
    say(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    made = server(app)
    made.last = True
    made.run(sockets=[found])
