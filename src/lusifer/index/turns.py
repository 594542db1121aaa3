"""Allow one call of an embedder at a time, for all threads that search indexes with it or write to them.

Creating an index and checking golden vectors take no turn: they happen before any search.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lusifer.index.models import Embedder

_TURNS: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()
_MAKING = threading.Lock()


class InTurn:
    """An embedder that threads may share: a call waits for the one before, at most for a batch.

    Truncation is a state of the tokenizer, set by each call. Counting tokens in one thread would switch it off for a
    text that another thread embeds. The Rust tokenizer also refuses two calls at once.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        with _MAKING:
            self._turn = _TURNS.setdefault(embedder, threading.RLock())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def encode(self, *words: Any, **named: Any) -> Any:
        """Embed like the embedder's own `encode`."""
        with self._turn:
            return self._embedder.encode(*words, **named)

    @property
    def tokenizer(self) -> _Tokenizer:
        """The embedder's tokenizer, which takes its turn with the embedder."""
        return _Tokenizer(self._embedder.tokenizer, self._turn)


class _Tokenizer:
    def __init__(self, tokenizer: Any, turn: threading.RLock) -> None:
        self._tokenizer, self._turn = tokenizer, turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *words: Any, **named: Any) -> Any:
        with self._turn:
            return self._tokenizer(*words, **named)
