"""One call of an embedder at a time, for all threads that search indexes with it or write to them.

An index that is made, and a check of golden vectors, wait for nobody: they come before the searches.
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
    """An embedder that threads may share. A call waits for the one before, a batch at most.

    Whether a text is cut is set in the tokenizer itself, call by call: counting the tokens of one text in a thread
    would undo the cutting of another that is embedded, and one Rust object refuses to be used twice at once.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        with _MAKING:
            self._turn = _TURNS.setdefault(embedder, threading.RLock())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def encode(self, *words: Any, **named: Any) -> Any:
        """As the embedder does."""
        with self._turn:
            return self._embedder.encode(*words, **named)

    @property
    def tokenizer(self) -> _Tokenizer:
        """That of the embedder, in turn with it."""
        return _Tokenizer(self._embedder.tokenizer, self._turn)


class _Tokenizer:
    def __init__(self, tokenizer: Any, turn: threading.RLock) -> None:
        self._tokenizer, self._turn = tokenizer, turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *words: Any, **named: Any) -> Any:
        with self._turn:
            return self._tokenizer(*words, **named)
