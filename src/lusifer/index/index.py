"""The index: it stores documents as passages with vectors, and finds them by questions in any language."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from lusifer.calibration import asking
from lusifer.calibration.statistics import LanguageStatistics, unit
from lusifer.errors import UsageError
from lusifer.index.documents import TextDocument, given_id
from lusifer.index.models import IN_MEMORY, IndexModel, Known, describe, known, maker, may_ask
from lusifer.index.ranks import Found, expected, judged, one
from lusifer.index.table import NAME, PassageTable, is_table
from lusifer.index.turns import InTurn
from lusifer.index.writing import DOCUMENTS_AT_ONCE, Added, put
from lusifer.io.files import expand_user, locked, refuse_unwritable
from lusifer.prompts import check_text
from lusifer.serving import encode

if TYPE_CHECKING:
    from lusifer.index.models import Embedder

Mode = Literal["vector", "hybrid", "words"]
THERE = "already has an index: open it, or name a new folder"
MEANWHILE = "was made by another process meanwhile: run the command again to add to it"


class Index:
    """An index on disk, with a record of the model of its vectors; made by `Index.create` or `Index.open`.

    Many processes and threads may read while one writes. Readers find all commits, and a writer that is killed leaves
    its commits. The model is loaded when it is first needed.
    """

    def __init__(
        self, folder: Path, table: PassageTable, asks: Known | None, embedder: Embedder | None, device: str | None
    ) -> None:
        self.folder, self.model = folder, IndexModel.from_dict(table.about, folder)
        self._table, self._device, self._embedder = table, device, embedder
        self._asks, self._own = asks, True
        self._lock, self._loading = threading.Lock(), threading.RLock()
        self._statistics: LanguageStatistics | None = None
        if asks is not None:
            self._own = may_ask(str(folder), self.model, asks)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        model: str | os.PathLike[str] | Embedder,
        *,
        embedder: Embedder | None = None,
        device: str | None = None,
        **settings: Any,
    ) -> Index:
        """Make an empty index in a new folder.

        Args:
            path: The folder.
            model: The model of the documents: a name as for `lusifer.load`, or a model in memory.
            embedder: The model of that name, if it is already loaded.
            device: The device of the model; None takes the best one.
            **settings: `task`, `prompt`, `dtype`, `tokens`, `overlap`, `offsets` and `language_field`, as for
                `models.describe`.

        Raises:
            UsageError: The folder exists or is being made, there is no such model, or a setting does not fit it.
            MissingExtraError: LanceDB is not installed.
        """
        folder = cls.refuse_old(path)
        if settings.get("offsets") is not None:
            settings["offsets"] = asking.taken(settings["offsets"])
        made, asks, embedder = describe(model, embedder, device, **settings)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", f"{path}: is being made by another process: wait until it is done"):
            cls.refuse_old(path, True)  # again: another process may have made it before the lock
            if made.offsets is not None:
                asking.keep(folder, settings["offsets"][0])
            return cls(folder, PassageTable.create(folder, made.to_dict(), made.dimensions), asks, embedder, device)

    @staticmethod
    def refuse_old(path: str | os.PathLike[str], meanwhile: bool = False) -> Path:
        """Refuse a folder in which no new index can be made; else return it as a path.

        Raises:
            UsageError: The folder has an index (made `meanwhile`) or other files, or cannot be written.
        """
        folder = expand_user(path)
        if is_table(folder):
            raise UsageError(f"{path}: {MEANWHILE if meanwhile else THERE}")
        begun = (f"{NAME}.lance", ".lock")  # the traces of a call that was killed before it made the index
        if folder.is_dir() and any(each.name not in begun and not asking.is_kept(each) for each in folder.iterdir()):
            raise UsageError(f"{path}: has other files and is no index: name a new folder")
        refuse_unwritable(folder, "folder", "the index")
        return folder

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        model: str | os.PathLike[str] | Embedder | None = None,
        *,
        embedder: Embedder | None = None,
        device: str | None = None,
    ) -> Index:
        """Open an index.

        Args:
            path: The folder.
            model: The model of questions. None takes the model of the index; another one must have been trained in the
                same vector space.
            embedder: The model of that name, if it is already loaded.
            device: The device of the model; None takes the best one.

        Raises:
            UsageError: There is no index, or the model has another vector space.
            MissingExtraError: LanceDB is not installed.
        """
        folder = expand_user(path)
        table = PassageTable(folder)
        loaded = model is not None and not isinstance(model, (str, os.PathLike))
        return cls(folder, table, None if model is None else known(model), model if loaded else embedder, device)

    def __len__(self) -> int:
        """The number of passages."""
        with self._lock:
            self._table.refresh()
            return len(self._table)

    @property
    def fields(self) -> dict[str, str]:
        """Field of documents -> kind, for filters: text, int, float or bool."""
        return self._table.fields

    @property
    def asks(self) -> str:
        """The name of the model that embeds questions."""
        return self._asks.name if self._asks else self.model.name

    @property
    def asks_own(self) -> bool:
        """Whether the model of questions is the one that made the index."""
        return self._own

    @property
    def embedder(self) -> Embedder:
        """The model that embeds questions; it is loaded at the first use.

        Raises:
            UsageError: The model of the index is gone or has changed.
        """
        with self._loading:
            asks = self._asking()
            if self._embedder is None:
                from lusifer.embedder import folder

                dtype = self.model.dtype if self._own else None
                self._embedder = folder.load(asks.place, device=self._device, dtype=dtype)
            return self._embedder

    def _asking(self) -> Known:
        """The model that embeds questions, not loaded; it is looked up at the first use."""
        with self._loading:
            if self._asks is None:
                if self.model.name == IN_MEMORY:
                    how = f"pass it as `model`, or run `lusifer reindex {shlex.quote(str(self.folder))} --model MODEL`"
                    raise UsageError(f"{self.folder}: was made by a model in memory: {how}")
                may_ask(str(self.folder), self.model, asks := maker(self.model, self.folder))
                self._asks = asks
            return self._asks

    def use(self, load: Callable[[str, str | None], Embedder]) -> None:
        """Load the model with a function (name or folder, dtype) instead of `lusifer.load`."""
        with self._loading:
            self._embedder = load(self._asking().place, self.model.dtype if self._own else None)

    def share(self, other: Index) -> None:
        """Use the table of another open index of the same folder, with its vectors in memory."""
        self._table, self._lock = other._table, other._lock

    def statistics(self, given: asking.Given | None = None) -> LanguageStatistics:
        """Return the language statistics for searching, given or by default.

        The default are those of the offsets of the index, or with another model those in the folder of that model.

        Raises:
            UsageError: There are none, or they are of other models.
            DataError: Their file is damaged.
        """
        if given is None and self._statistics is not None:
            return self._statistics
        asks, own = self._asking(), self.model.offsets if self._own else None
        made, called = asking.chosen(given, self.folder, own, asks.place)
        made.require(called, asks.identity, self.model.identity, self.prompt, self.model.document)
        self._statistics = made if given is None else self._statistics
        return made

    def add(
        self,
        documents: Iterable[TextDocument | Mapping[str, Any]],
        *,
        on_long: Literal["split", "cut", "error"] = "split",
        progress: Callable[[int], None] | None = None,
    ) -> Added:
        """Add documents with new ids. They are committed some hundred at a time.

        Args:
            documents: Objects with `id` and `text`; other fields are stored if they are texts, numbers or booleans.
            on_long: Whether texts longer than a passage are split, truncated ("cut") and counted, or refused.
            progress: Called with the number of documents done.

        Raises:
            UsageError: Another process writes, or the model is not the one that made the index.
            DataError: A document is invalid, or its id exists; documents before it may be committed.
        """
        self.require_own()
        with self._writing() as table:
            return put(table, self.model, lambda: self.embedder, documents, False, None, on_long, progress)

    def update(
        self,
        documents: Iterable[TextDocument | Mapping[str, Any]],
        *,
        fields: Mapping[str, str] | None = None,
        on_long: Literal["split", "cut", "error"] = "split",
        progress: Callable[[int], None] | None = None,
    ) -> Added:
        """Add or replace documents by their ids; unchanged documents are not embedded again.

        Arguments and errors are those of `add`; `fields` maps fields to kinds, if they are known beforehand.
        """
        self.require_own()
        with self._writing() as table:
            return put(table, self.model, lambda: self.embedder, documents, True, fields, on_long, progress)

    def delete(self, ids: str | int | Iterable[str | int]) -> int:
        """Delete documents by their ids, or one by its id.

        Returns:
            How many of them existed.

        Raises:
            UsageError: Another process writes, or something is no id.
            TextError: An id is blank, or has characters that are not allowed.
        """
        gone = 0
        one = isinstance(ids, (str, bytes, int, np.generic))
        wanted = list(dict.fromkeys(given_id(id) for id in ([ids] if one else ids)))
        with self._writing() as table:
            for start in range(0, len(wanted), DOCUMENTS_AT_ONCE):
                found = table.digests(wanted[start : start + DOCUMENTS_AT_ONCE])
                if found:
                    table.delete(list(found))
                gone += len(found)
            table.tidy()
        return gone

    def ids(self) -> set[str]:
        """Return the ids of all documents."""
        with self._lock:
            self._table.refresh()
            return self._table.all_ids()

    def optimize(self) -> None:
        """Index all rows, join files and remove old ones; `add` does this when it is worth it."""
        with self._writing() as table:
            table.tidy(force=True)

    def search(
        self,
        texts: str | Sequence[str],
        *,
        top_k: int = 10,
        where: str | None = None,
        mode: Mode = "vector",
        vectors: np.ndarray | None = None,
        report: encode.EmbedReport | None = None,
        calibrated: bool = False,
        min_score: float | None = None,
        languages: str | Sequence[str | None] | None = None,
        statistics: asking.Given | None = None,
    ) -> list[list[Found]]:
        """Find documents.

        Args:
            texts: Questions, or one.
            top_k: The most documents per question.
            where: An SQL condition on the fields, applied before the search, such as "lang = 'de'"; blank: none.
            mode: "vector" finds documents in any language, "words" is keyword search, "hybrid" fuses the ranks of both.
            vectors: The vectors of the questions, (n, d), if they are already embedded.
            report: Gets the count of truncated questions.
            calibrated: Whether hits also have a score that can be compared between languages.
            min_score: The lowest score of a hit: of the calibrated score if it is requested, else of the cosine.
            languages: The languages of the questions, or one for all, for calibrated scores and offsets. None
                identifies them.
            statistics: As for the method `statistics`, whose errors are raised as well.

        Returns:
            The hits of each question, best first.

        Raises:
            UsageError: The filter, the vectors or a setting does not fit the index.
            TextError: A question is empty.
        """
        if mode not in get_args(Mode) or top_k < 1:
            raise UsageError(f"mode {mode!r}, top_k {top_k}: use one of {', '.join(get_args(Mode))}, and 1 or more")
        scored = mode != "words" or vectors is not None
        if not scored and (calibrated or min_score is not None):
            raise UsageError('mode "words" gives no scores: leave calibrated and min_score out, or use another mode')
        texts = [texts] if isinstance(texts, str) else list(texts)
        for number, text in enumerate(texts, start=1):
            check_text(text, "the question" if len(texts) == 1 else f"question {number}")
        about = self.statistics(statistics) if calibrated or (self.model.offsets and scored) else None
        codes = [None] * len(texts) if about is None else asking.languages_of(texts, languages, about)
        rows = None
        if scored and (texts or vectors is not None):
            given = self.embed(texts, report) if vectors is None else vectors
            rows = unit(expected(given, len(texts), self.model.dimensions), np.float32)
            rows = about.without_offset(rows, codes, "query") if self.model.offsets else rows
        settings = self.model.language_field, self.model.offsets is not None
        scales = [asking.scale(about, code, *settings) if calibrated else None for code in codes]
        found = zip(self._all(texts, rows, top_k, (where or "").strip() or None, mode), scales, strict=True)
        return [judged(hits, scale, min_score) for hits, scale in found]

    @property
    def prompt(self) -> str | None:
        """The prefix of questions; None is the model's default."""
        return self.prompt_of({} if self._own else self.embedder.prompts)

    def prompt_of(self, saved: Mapping[str, str]) -> str | None:
        """Return the prefix of questions by the saved prompts of the model, which need not be loaded."""
        return self.model.query if self._own else encode.choose_prompt(saved, role="query")

    def held(self) -> tuple[list[dict[str, Any]], np.ndarray]:
        """Return all committed passages and their vectors, (n, d) float32 of length 1.

        Raises:
            UsageError: Offsets were subtracted from the vectors, so they differ from those of the model.
        """
        if self.model.offsets is not None:
            raise UsageError(f"{self.folder}: its vectors have offsets subtracted: use `search`, or index it again")
        with self._lock:
            self._table.refresh()
            held = self._table.snapshot()
            order = held.rows.tolist()
            found = self._table.take(order, False)
        return [found[row] for row in order], held.matrix

    def embed(self, texts: Sequence[str], report: encode.EmbedReport | None = None) -> np.ndarray:
        """Embed questions with their prompt, (n, d) float32; `report` gets the count of truncated ones."""
        embedder = InTurn(self.embedder)
        report = encode.EmbedReport() if report is None else report
        report.limit = embedder.max_seq_length
        rows = [(f"question {number}", text) for number, text in enumerate(texts, start=1)]
        return encode.embed_rows(embedder, rows, report, prompt=self.prompt)

    def _all(self, texts: Sequence[str], rows: Any, top_k: int, where: str | None, mode: Mode) -> list[list[Found]]:
        """The hits of each question, all in one version of the table."""
        with self._lock:
            self._table.refresh()
            top_k = min(top_k, max(1, self._table.rows))
            approximate = self._table.approximate
            allowed = self._table.allowed(where) if where and mode != "words" and not approximate else None
            return [
                one(self._table, text, None if rows is None else rows[number], top_k, where, allowed, mode, approximate)
                for number, text in enumerate(texts)
            ]

    @contextmanager
    def _writing(self) -> Iterator[PassageTable]:
        """The table for writing; the readers' table stays at its version while they search."""
        with self.locked():
            with self._lock:
                self._table.refresh()
            table = PassageTable(self.folder)
            table.check_words()
            self._table.require(table.about)
            yield table

    def locked(self) -> AbstractContextManager[None]:
        """Lock the index for writing while the block runs."""
        return locked(self.folder / ".lock", f"{self.folder}: another process writes to this index: wait for it")

    def require_own(self) -> None:
        """Refuse a model that may only search.

        Raises:
            UsageError: The model is not the one that made the index.
        """
        if not self._own:
            words = f"{self.asks} may only search it: add documents with the first, or leave the model out"
            raise UsageError(f"{self.folder}: its documents are embedded by {self.model.name}; {words}")
