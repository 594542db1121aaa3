"""Documents into passages with vectors: long texts split as the index says, and put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lusifer import chunks
from lusifer.errors import DataError, LusiferError
from lusifer.index.documents import RESERVED, TextDocument
from lusifer.index.models import IndexModel
from lusifer.index.turns import InTurn
from lusifer.serving import encode

if TYPE_CHECKING:
    from lusifer.calibration.asking import DocumentOffsets
    from lusifer.index.models import Embedder

Rows = dict[str, list[Any]]


def embedded(
    load: Callable[[], Embedder],
    model: IndexModel,
    documents: Sequence[TextDocument],
    on_long: str,
    report: encode.EmbedReport,
    offsets: DocumentOffsets | None = None,
) -> tuple[Rows, np.ndarray]:
    """Embed documents, at least one; all bring their vectors, or none does.

    Args:
        load: Gives the model that embeds, and is called where there is something to embed.
        model: What the index knows of it.
        documents: The documents, with fields as they are kept.
        on_long: "split", "cut" or "error".
        report: Counts passages, and texts that were cut.
        offsets: What is taken out of the vectors, brought ones too.

    Returns:
        Columns of the passages, and their vectors (n, d).

    Raises:
        DataError: A text is too long, or a vector is none of this index.
    """
    cut = [False] * len(documents)
    if documents[0].vector is not None:
        spans = [[(0, len(each.text or ""))] for each in documents]
        vectors = np.stack([each.vector for each in documents]).astype(np.float32)
        if vectors.shape[1] != model.dimensions:
            words = f"the vectors have {vectors.shape[1]} numbers, those of {model.name} {model.dimensions}"
            raise DataError(f"{documents[0].place}: {words}: name the model that made them")
        report.rows += len(documents)
    else:
        embedder = InTurn(load())  # others may search meanwhile
        report.limit = embedder.max_seq_length
        count = partial(encode.token_counts, embedder, prompt=model.document)
        lengths = count([each.text for each in documents])
        spans = _spans(count, lengths, model, documents, on_long)
        parts = [
            (each.place if len(own) == 1 else f"{each.place} (passage {number})", _passage(each.text, span, len(own)))
            for each, own in zip(documents, spans, strict=True)
            for number, span in enumerate(own, start=1)
        ]
        if on_long == "cut":
            cut = [length > model.tokens for length in lengths]
            if report.limit is None or model.tokens < report.limit:
                parts = _cut(parts, lengths, count, model.tokens, report)
        vectors = encode.embed_rows(embedder, parts, report, prompt=model.document)
        report.limit = model.tokens
    if offsets is not None:
        codes = [offsets.language(each.text, each.fields, each.place) for each in documents]
        own = [code for code, parts in zip(codes, spans, strict=True) for _ in parts]
        vectors = offsets.taken_out(vectors, own)
    return _rows(documents, spans, cut), vectors


def _passage(text: str, span: chunks.Span, count: int) -> str:
    """What is embedded of a span: a text that is whole as it is, a part of one without the space around it."""
    return text if count == 1 else text[slice(*span)].strip()


def _cut(
    parts: Sequence[tuple[str, str]], lengths: Sequence[int], count: chunks.Count, size: int, report: encode.EmbedReport
) -> list[tuple[str, str]]:
    """Cut texts where a passage ends; the model, which reads more, does not. They are counted in the report."""
    found = []
    for (place, text), length in zip(parts, lengths, strict=True):
        if length > size:
            if not report.cut:
                report.first_cut, report.first_tokens = place, length
            report.cut += 1
            text = text[: chunks.beginning(text, count, size)]
        found.append((place, text))
    return found


def _spans(
    count: chunks.Count, lengths: Sequence[int], model: IndexModel, documents: Sequence[TextDocument], on_long: str
) -> list[list[chunks.Span]]:
    """Where the passages of each document, of so many tokens, lie in it."""
    found = []
    for each, tokens in zip(documents, lengths, strict=True):
        if tokens > model.tokens and on_long == "error":
            raise DataError(f"{each.place}: {tokens:,} tokens, and a passage has {model.tokens}: shorten or split it")
        long = tokens > model.tokens and on_long == "split"
        found.append(chunks.split(each.text, count, model.tokens, model.overlap) if long else [(0, len(each.text))])
    return found


def _rows(documents: Sequence[TextDocument], spans: Sequence[Sequence[chunks.Span]], cut: Sequence[bool]) -> Rows:
    """Columns of the table, fields included. A text that was `cut` is kept whole, and its digest says so."""
    rows: Rows = {name: [] for name in RESERVED if name != "vector"}
    names = list(dict.fromkeys(name for each in documents for name in each.fields))
    rows |= {name: [] for name in names}
    for each, own, short in zip(documents, spans, cut, strict=True):
        digest = each.digest_if_cut if short else each.digest
        for number, (start, end) in enumerate(own):
            text = each.text if each.text is None else each.text[start:end]
            values = (each.id, text, number, len(own), start, end, digest)
            for name, value in zip([name for name in RESERVED if name != "vector"], values, strict=True):
                rows[name].append(value)
            for name in names:
                rows[name].append(each.fields.get(name))
    return rows


def joined(passages: Iterable[dict[str, Any]]) -> Iterator[TextDocument]:
    """Put documents together again from rows of the table; the passages of one may lie apart.

    Raises:
        LusiferError: Some are missing.
    """
    begun: dict[str, list[dict[str, Any]]] = {}
    for row in passages:
        parts = begun.setdefault(row["id"], [])
        parts.append(row)
        if len(parts) < row["chunk_count"]:
            continue
        parts = sorted(begun.pop(row["id"]), key=lambda part: part["chunk"])
        text: str | None = None if parts[0]["text"] is None else ""
        for part in parts if text is not None else ():
            text += part["text"][len(text) - part["chunk_start"] :]
        fields = {name: value for name, value in row.items() if name not in RESERVED and value is not None}
        yield TextDocument(row["id"], text, fields, f"document {row['id']}")
    for id in begun:
        raise LusiferError(f"document {id!r}: passages of it are missing in the index: delete it, and index it again")
