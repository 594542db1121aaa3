"""Split documents into passages and embed them; join passages to documents again."""

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
    """Embed documents, unless they have vectors.

    Args:
        load: Returns the model; called if there is something to embed.
        model: The index's record of it.
        documents: The documents, at least one, with fields in their final kinds. All have vectors, or none has.
        on_long: "split", "cut" or "error".
        report: Gets the counts of passages and truncated texts.
        offsets: The offsets to subtract from the vectors, also from given ones.

    Returns:
        The columns of the passages, and their vectors (n, d) float32.

    Raises:
        DataError: A text is too long, or given vectors have other dimensions than the index.
    """
    cut = [False] * len(documents)
    if documents[0].vector is not None:
        spans = [[(0, len(each.text or ""))] for each in documents]
        vectors = np.stack([each.vector for each in documents]).astype(np.float32)
        if vectors.shape[1] != model.dimensions:
            words = f"the vectors have {vectors.shape[1]} dimensions, those of {model.name} {model.dimensions}"
            raise DataError(f"{documents[0].place}: {words}: name the model that made them")
        report.rows += len(documents)
    else:
        embedder = InTurn(load())  # other threads may search meanwhile
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
    """The text of a span that is embedded: an entire text unchanged, a part without the space around it."""
    return text if count == 1 else text[slice(*span)].strip()


def _cut(
    parts: Sequence[tuple[str, str]], lengths: Sequence[int], count: chunks.Count, size: int, report: encode.EmbedReport
) -> list[tuple[str, str]]:
    """Truncate texts to the size of a passage, which is less than the model reads, and count them in the report."""
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
    """The spans of the passages of each document; `lengths` are the tokens of the documents."""
    found = []
    for each, tokens in zip(documents, lengths, strict=True):
        if tokens > model.tokens and on_long == "error":
            words = f"{tokens:,} tokens, but a passage has at most {model.tokens}"
            raise DataError(f"{each.place}: {words}: shorten or split it")
        long = tokens > model.tokens and on_long == "split"
        found.append(chunks.split(each.text, count, model.tokens, model.overlap) if long else [(0, len(each.text))])
    return found


def _rows(documents: Sequence[TextDocument], spans: Sequence[Sequence[chunks.Span]], cut: Sequence[bool]) -> Rows:
    """The columns of the table, with fields. A text that was `cut` is stored completely, with a digest that tells."""
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
    """Join rows of the table to documents; the passages of a document may be far apart.

    Raises:
        LusiferError: A passage is missing.
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
        raise LusiferError(f"document {id!r}: passages are missing in the index: delete it, and index it again")
