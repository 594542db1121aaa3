"""Check the condition of a filter before LanceDB reads it.

LanceDB silently ignores the rest of a condition after a syntax error. A deep condition overflows its stack, which kills
the process, and a function may take any amount of memory. So only a small grammar is allowed: the comparisons of SQL,
joined and negated, over fields and values, within limits.

    condition   test {AND test}, tests joined by OR, NOT test
    test        value [= == != <> < <= > >= value]    value [NOT] LIKE | ILIKE value
                value [NOT] IN (value, ...)         value [NOT] BETWEEN value AND value
                value IS [NOT] NULL | TRUE | FALSE
    value       field, 'text', 12, 1.5, TRUE, FALSE, NULL, DATE '2024-01-31', -value, value + - * / % value,
                CAST(value AS type), a function of `FUNCTIONS`, (condition)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lusifer.errors import UsageError

FUNCTIONS = frozenset(
    "abs ceil coalesce contains ends_with floor length lower ltrim now regexp_like".split()
    + "round rtrim starts_with trim upper".split()
)
"""Functions whose result is not larger than their arguments."""
TYPES = frozenset("int integer bigint float double string text varchar boolean bool date timestamp".split())
LONGEST = 100_000
"""The most characters of a condition."""
DEEPEST = 32
"""The deepest nesting of brackets, negations and signs."""
MOST = {"joined": 1_000, "computed": 32, "listed": 10_000}
"""The most tests that are joined, values that are computed, and values that are listed."""
HOW = "an SQL condition on the fields, such as: lang = 'de' AND year > 2000"
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<field>`[^`]+`)|(?P<word>[^\W\d]\w*(?:\.[^\W\d]\w*)*)|(?P<sign><=|>=|<>|!=|==|[=<>(),+\-*/%]))"
)
_COMPARED = ("=", "==", "!=", "<>", "<", "<=", ">", ">=")
_RESERVED = frozenset("AND OR NOT IN BETWEEN LIKE ILIKE IS AS".split())


def condition(where: str) -> str:
    """Check a condition and return it for LanceDB: the same tokens, joined by single spaces.

    Raises:
        UsageError: It does not follow the grammar above, or is too long or too deep.
    """
    if len(where) > LONGEST:
        raise UsageError(f"filter: {len(where):,} characters: give at most {LONGEST:,}")
    return _Reader(where).whole()


class _Reader:
    """Reads one condition, token by token."""

    def __init__(self, where: str) -> None:
        self._where, self._tokens, self._at = where, _tokens(where), 0
        self._deep = 0
        self._counts = dict.fromkeys(MOST, 0)

    def whole(self) -> str:
        self._condition()
        if self._at < len(self._tokens):
            raise self._error(f"{self._next()} does not belong here")
        return " ".join(text for _, text, _ in self._tokens)

    def _next(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _is(self, *words: str) -> bool:
        """Whether the next token is one of these words; fields in backticks and texts never are."""
        return self._at < len(self._tokens) and self._next().upper() in words

    def _take(self, *words: str) -> bool:
        if not self._is(*words):
            return False
        self._at += 1
        return True

    def _demand(self, word: str) -> None:
        if not self._take(word):
            raise self._error(f"{word} is missing before {self._next() or 'the end'}")

    def _error(self, what: str) -> UsageError:
        place = self._tokens[self._at][2] + 1 if self._at < len(self._tokens) else len(self._where) + 1
        return _refusal(self._where, f"{what} (character {place:,})")

    def _count(self, kind: str) -> None:
        self._counts[kind] += 1
        if self._counts[kind] > MOST[kind]:
            raise self._error(f"more than {MOST[kind]:,} tests or values {kind}")

    def _deeper(self) -> None:
        self._deep += 1
        if self._deep > DEEPEST:
            raise self._error(f"more than {DEEPEST} brackets, NOT or signs inside each other")

    def _condition(self) -> None:
        self._negated()
        while self._take("AND", "OR"):  # LanceDB decides on precedence
            self._count("joined")
            self._negated()

    def _negated(self) -> None:
        deep = self._deep
        while self._take("NOT"):
            self._deeper()
        self._test()
        self._deep = deep

    def _test(self) -> None:
        self._value()
        if self._take(*_COMPARED):
            self._value()
        elif self._take("IS"):
            self._take("NOT")
            if not self._take("NULL", "TRUE", "FALSE"):
                raise self._error("IS must be followed by NULL, NOT NULL, TRUE or FALSE")
        else:
            negated = self._take("NOT")
            if self._take("LIKE", "ILIKE"):
                self._value()
            elif self._take("BETWEEN"):
                self._value()
                self._demand("AND")
                self._value()
            elif self._take("IN"):
                self._demand("(")
                self._listed()
            elif negated:
                raise self._error("NOT must be followed by LIKE, IN or BETWEEN")

    def _listed(self) -> None:
        """Values up to a closing bracket."""
        while True:
            self._count("listed")
            self._value()
            if not self._take(","):
                return self._demand(")")

    def _value(self) -> None:
        self._one()
        while self._take("+", "-", "*", "/", "%"):
            self._count("computed")
            self._one()

    def _one(self) -> None:
        deep = self._deep
        while self._take("-"):
            self._deeper()
        if self._at == len(self._tokens):
            raise self._error("a value is missing at the end")
        kind, text, _ = self._tokens[self._at]
        if self._take("("):
            self._deeper()
            self._condition()
            self._demand(")")
        elif kind == "sign" or (kind == "word" and text.upper() in _RESERVED):
            raise self._error(f"a value is missing before {text}")
        else:
            self._at += 1
            if kind == "word" and text.upper() in ("DATE", "TIMESTAMP") and self._kind() == "text":
                self._at += 1
            elif kind == "word" and self._take("("):
                self._deeper()
                self._call(text.lower())
        self._deep = deep

    def _kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _call(self, name: str) -> None:
        """The arguments of a function, after its name and bracket."""
        if name in ("cast", "try_cast"):
            self._value()
            self._demand("AS")
            if self._next().lower() not in TYPES:
                raise self._error(f"CAST to {self._next() or 'nothing'}: give one of {', '.join(sorted(TYPES))}")
            self._at += 1
            self._demand(")")
        elif name not in FUNCTIONS:
            raise self._error(f"{name}(...) is not allowed: use one of {', '.join(sorted(FUNCTIONS))}")
        elif not self._take(")"):
            self._listed()


def _tokens(where: str) -> list[tuple[str, str, int]]:
    """Kind, text and place of every token."""
    found, end = [], 0
    text = where.rstrip()
    while end < len(text):
        token = _TOKEN.match(text, end)
        if token is None:
            rest = text[end:].lstrip()
            place = f"character {text.index(rest, end) + 1:,}"
            hint = ": put names in backticks, texts in single quotes" if rest[:1] in ('"', "'", "`") else ""
            raise _refusal(where, f"cannot be read from {rest[:20]!r} on ({place}){hint}")
        found.append((token.lastgroup or "", token[token.lastgroup or 0], token.start(token.lastgroup or 0)))
        end = token.end()
    return found


def _refusal(where: str, what: str) -> UsageError:
    shown = where if len(where) <= 200 else where[:200] + "..."
    return UsageError(f"filter {shown!r}: {what}: give {HOW}")


def one_of(ids: Sequence[str]) -> str:
    """SQL that is true of the documents with these ids."""
    return "id IN ({})".format(", ".join("'" + one.replace("'", "''") + "'" for one in ids)) if ids else "false"
