"""The suite `mine`: a user's own questions with the ids of right documents, and the documents.

A row with `question` is a question. It has `right` (an id or a list of ids; empty for a negative control, which nothing
answers), and optionally `id` and `language`. Any other row is a document with `id`, `text` and optionally `language`.
py3langid (extra `languages`) detects missing languages.
"""

from __future__ import annotations

import difflib
import hashlib
import reprlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lusifer import extras, languages
from lusifer.errors import DataError, UsageError
from lusifer.evaluation.search.collection import UNKNOWN, Question, QuestionSet, Searched, SearchedDocument
from lusifer.evaluation.search.ranked import RankedTask
from lusifer.evaluation.tasks.rows import SuiteRow
from lusifer.io import rows
from lusifer.io.files import parse_json, refuse_no_file, sha256
from lusifer.prompts import check_text

COLUMNS = ("question", "right", "id", "text", "language")
READ_CHARACTERS = 800
"""The language is detected from this many characters at the start of a text."""
FEWEST_LETTERS = 30
"""Shorter texts can only get a language that was detected in longer ones."""
RARE = 0.02
"""A language with a smaller share of the texts is taken for an error of py3langid."""
FEW, CERTAIN = 100, 0.99
"""Among at most `FEW` texts a language with a single text counts if its probability is at least `CERTAIN`."""
TITLE = "own questions"
CLOSE = 0.75
"""Similarity (difflib) at which a key counts as a misspelled column: "rigth" and "right" have 0.8, "weight" 0.73."""


class MyQuestions(RankedTask):
    """The user's own questions: one row a language; all documents are searched for its questions."""

    title = TITLE
    instruction = "Given a question, find passages that answer it."

    def __init__(self, asked: QuestionSet) -> None:
        super().__init__()
        self._asked = asked

    def load_data(self, **_: Any) -> None:
        """Fill `dataset` with the questions of the languages that will be run."""
        self.dataset = {subset: self._asked.of(subset) for subset in self.hf_subsets}
        self.data_loaded = True

    def example_id(self, question: Question) -> str:
        """Give the id with a digest of the text: most ids are line numbers, which do not identify a question."""
        return f"{question.id} {hashlib.sha256(question.text.encode()).hexdigest()[:16]}"


def survey(asked: QuestionSet) -> tuple[list[SuiteRow], list[str]]:
    """List the rows of a collection: one for each language with right documents.

    A row is cross-lingual if a question needs a document in another language.

    Returns:
        The rows in the order of the file; and notes on questions that are in no row.
    """
    found: list[SuiteRow] = []
    notes: list[str] = []
    documents, places = asked.searched.documents, asked.searched.places
    for code in dict.fromkeys(each.language for each in asked.questions):
        own = asked.of(code).questions
        if not any(each.right for each in own):
            words = f"{len(own):,} in {code} left out: no question in this language has a right document"
            notes.append(f"negative controls: {words}")
            continue
        across = any(documents[places[id]].language not in (code, UNKNOWN) for each in own for id in each.right)
        cost = len(own) + (len(asked.searched.texts[0]) if asked.searched.vectors is None else 0)
        found.append(replace(MyQuestions.row(code), cross_lingual=across and code != UNKNOWN, cost=cost))
    return found, notes


@dataclass(frozen=True)
class _OwnRow:
    """A question or a document; `cell` is the CSV cell with the right documents of a question."""

    where: str
    question: Question | None = None
    document: SearchedDocument | None = None
    cell: str | None = None

    def asked(self, places: Collection[str]) -> Question | None:
        """Give the question with its right documents; the ids of documents decide how a CSV cell is split."""
        if self.question is None or self.cell is None:
            return self.question
        return replace(self.question, right=_right(_spelled(self.cell, places), self.where))


def read(file: Path, documents: Path | Searched | None = None) -> tuple[QuestionSet, dict[str, str], list[str]]:
    """Read questions and documents.

    Args:
        file: Rows of questions, and of documents if `documents` is None.
        documents: Another file of documents, or the documents themselves.

    Returns:
        The collection; name of a file -> its SHA-256; and notes for the user.

    Raises:
        DataError: A row is malformed, an id is a duplicate or of no document, or there are no questions or
            fewer than two documents.
    """
    found = _rows(file)
    own = [(row.where, row.document) for row in found if row.document is not None]
    digests = {file.name: sha256(file)}
    if documents is None:
        given = Searched(_distinct(own))
    elif own:
        words = "is a document, and --documents names other documents: remove the row, or leave --documents out"
        raise DataError(f"{own[0][0]}: a row without `question` {words}")
    else:
        given = documents if isinstance(documents, Searched) else _of_file(documents)
        digests |= {name if name not in digests else f"documents: {name}": each for name, each in given.digests.items()}
    questions = [(row.where, asked) for row in found if (asked := row.asked(given.places)) is not None]
    if not questions:
        raise DataError(f"{file}: no question in it: add rows with `question` and `right`, the ids of its documents")
    if len(given.documents) < 2:
        many = "one document" if given.documents else "no document"
        how = "add rows with `id` and `text`, or name a file of documents with --documents"
        raise DataError(f"{file}: {many} to search, and a score needs two or more: {how}")
    asked = _distinct(questions)
    _refuse_lost(found, questions, given.places)
    bare = [where for where, each in questions if not each.right]
    if len(bare) == len(questions):
        raise DataError(f"{file}: no question has a right document, so there is no score: fill `right`")
    asked, searched, notes = _with_languages(asked, given.documents)
    if bare:
        many = "1 question has" if len(bare) == 1 else f"{len(bare):,} questions have"
        count = "counts as a negative control" if len(bare) == 1 else "count as negative controls"
        notes = [f"{many} no `right` and {count}: the first is {bare[0]}", *notes]
    return QuestionSet(asked, replace(given, documents=searched)), digests, [*given.notes, *notes]


def _refuse_lost(found: Iterable[_OwnRow], questions: Iterable[tuple[str, Question]], places: Collection[str]) -> None:
    """Raise DataError for a right document that does not exist."""
    cells = {row.where: row.cell for row in found if row.cell is not None}
    for where, each in questions:
        lost = next((id for id in each.right if id not in places), None)
        if lost is not None:
            fix = "correct it, or add the document"
            if "|" not in cells.get(where, "|") and len(each.right) > 1:
                fix = f"the cell was split at spaces; put | between ids that contain spaces, otherwise {fix}"
            raise DataError(f"{where}: right: no document has the id {lost!r}: {fix}")


def _of_file(file: Path) -> Searched:
    """Read a file of documents."""
    refuse_no_file(file, option="--documents")
    found = _rows(file)
    asked = next((row for row in found if row.question is not None), None)
    if asked is not None:
        raise DataError(f"{asked.where}: a question in the file of documents: name the file of questions with --data")
    return Searched(_distinct((row.where, row.document) for row in found), digests={file.name: sha256(file)})


def _distinct(found: Iterable[tuple[str, Any]]) -> tuple[Any, ...]:
    """Give questions or documents; raise DataError if two have the same id."""
    first: dict[str, str] = {}
    kept = []
    for where, each in found:
        if each.id in first:
            raise DataError(f"{where}: id {each.id!r} is already at {first[each.id]}: give each row its own id")
        first[each.id] = where
        kept.append(each)
    return tuple(kept)


def _rows(file: Path) -> list[_OwnRow]:
    form = rows.ending(file).removesuffix(".gz")
    return [*rows.read(file, lambda row, where: _checked(row, where, form), columns=COLUMNS)]


def _checked(row: Any, where: str, form: str) -> _OwnRow:
    """Read a row as a question or a document; its language is "" if the row has none."""
    rows.refuse_no_object(row, where)
    there = {name: value for name in COLUMNS if (value := row.get(name)) is not None}
    if form in (".csv", ".parquet"):  # every row of a table has every column
        there = {name: value for name, value in there.items() if not isinstance(value, str) or value.strip()}
    language = code_of(there.get("language"), where)
    if "question" in there:
        if "text" in there:
            raise DataError(f"{where}: both `question` and `text`: a row is a question or a document: write two rows")
        id = _id(there["id"], f"{where}: id") if "id" in there else " ".join(where.split(" ")[-2:])
        text = check_text(there["question"], f"{where}: question")
        _refuse_misspelt(row, where)
        if form == ".csv":  # how a cell is split depends on the ids of documents
            return _OwnRow(where, question=Question(id, text, language), cell=there.get("right"))
        return _OwnRow(where, question=Question(id, text, language, _right(there.get("right"), where)))
    if "right" in there:
        raise DataError(f"{where}: `right` without `question`: fill `question`, or remove `right`")
    for name in ("text", "id"):
        if name not in there:
            found = ", ".join(map(str, there)) or rows.columns(row)
            words = f"no `{name}` (found {found}): a question has `question` and `right`, a document `id` and `text`"
            raise DataError(f"{where}: {words}")
    id, text = _id(there["id"], f"{where}: id"), check_text(there["text"], f"{where}: text")
    return _OwnRow(where, document=SearchedDocument(id, text, language))


def _id(value: Any, where: str) -> str:
    """Read an id, which is a text or an integer, as a text."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where} is {reprlib.repr(value)}: an id is a text or an integer")
    return check_text(str(value), where).strip()


def _refuse_misspelt(row: Mapping[str, Any], where: str) -> None:
    """Raise DataError for a key that is almost a known column which is missing; other unknown keys are ignored."""
    for key in row.keys() - set(COLUMNS):
        plain = str(key).strip().lower()
        near = ["id"] if plain == "id" else difflib.get_close_matches(plain, ("right", "language"), 1, CLOSE)
        if near and near[0] not in row:
            words = f"key {key!r} is unknown and looks like {near[0]!r}, which is missing"
            raise DataError(f"{where}: {words}: rename it to {near[0]!r}, or to a name that is less similar")


def _spelled(cell: str, places: Collection[str]) -> Any:
    """Read a CSV cell: the id of a document, a JSON list of ids, or ids with | or spaces between them."""
    if cell.strip() in places:
        return [cell]
    if cell.lstrip().startswith("["):
        with suppress(ValueError):  # an id may begin with [ too
            return parse_json(cell.encode("utf-8", "surrogatepass"))
    return [part for part in (cell.split("|") if "|" in cell else cell.split()) if part.strip()]


def _right(value: Any, where: str) -> tuple[str, ...]:
    """Read the ids of right documents: one id, or a list."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    ids = tuple(_id(each, f"{where}: right") for each in (value if isinstance(value, list | tuple) else [value]))
    twice = next((id for id, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{where}: right: duplicate id {twice!r}: name each document once")
    return ids


@cache
def _code(given: str) -> str:
    return languages.language(given).code


def code_of(value: Any, where: str) -> str:
    """Read the code of a language.

    Args:
        value: A code in any usual form; None or "" for no language.
        where: Place of the value, for the error message.

    Returns:
        Lusifer's code; "" for no language.

    Raises:
        DataError: The value is no text or no known code.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: language is {reprlib.repr(value)}: write a code such as en")
    if value.strip().lower() == UNKNOWN:
        return UNKNOWN
    try:
        return _code(value)
    except UsageError as error:
        raise DataError(f"{where}: {error}; or leave it empty") from None


def _with_languages(
    questions: Sequence[Question], documents: Sequence[SearchedDocument]
) -> tuple[tuple[Question, ...], tuple[SearchedDocument, ...], list[str]]:
    """Detect the languages that are not given, and write a note about them."""
    both = [*questions, *documents]
    bare = [[each.text for each in kind if not each.language and each.text] for kind in (questions, documents)]
    if all(each.language for each in both):
        return tuple(questions), tuple(documents), []
    given = {each.language for each in both} - {"", UNKNOWN}
    there = extras.tells_languages()
    found = identify(bare, given) if there else {}
    made = [replace(each, language=each.language or found.get(each.text, UNKNOWN)) for each in both]
    counts = Counter(now.language for each, now in zip(both, made, strict=True) if not each.language)
    many = f"{sum(counts.values()):,} of {len(both):,} rows have no `language`"
    if not there:
        note = f"{many}, so it stays unknown: fill it, or detect it: pip install 'lusifer[languages]'"
    else:
        words = ", ".join(f"{code} {count:,}" for code, count in counts.most_common())
        note = f"{many}; py3langid detected it, which is unreliable for short texts: {words}"
    return tuple(made[: len(questions)]), tuple(made[len(questions) :]), [note]


def identify(groups: Sequence[Sequence[str]], given: Collection[str] = ()) -> dict[str, str]:
    """Detect the languages of texts.

    First the language of the longer texts in each group is detected. Then each text gets one of the languages that were
    found often enough or with high probability, or that are in `given`. This helps short texts: a question of three
    words looks like many languages.

    Args:
        groups: Groups of texts, such as questions and documents.
        given: Codes of languages that the rows name.

    Returns:
        Text -> code; `UNKNOWN` if py3langid finds no known language.

    Raises:
        MissingExtraError: py3langid is not installed.
    """
    langid = extras.need("languages", f"{extras.IDENTIFIER}.langid")
    # Not the identifier of `serving.guard`, because this one will be restricted to some languages.
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    known = {name: code for name in identifier.nb_classes if (code := _known(name)) is not None}
    likely = set(given)
    for texts in groups:
        long = [text for text in texts if sum(map(str.isalpha, text)) >= FEWEST_LETTERS] or texts
        told = [identifier.classify(text[:READ_CHARACTERS]) for text in long]
        counts = Counter(known.get(name) for name, _ in told)
        likely |= {code for code, count in counts.items() if code and count >= max(2, RARE * len(long))}
        likely |= {known[name] for name, chance in told if name in known and chance >= CERTAIN and len(long) <= FEW}
    among = [name for name, code in known.items() if code in likely]
    every = dict.fromkeys(text for texts in groups for text in texts)
    if not among:
        return dict.fromkeys(every, UNKNOWN)
    identifier.set_languages(among)
    return {text: known[identifier.classify(text[:READ_CHARACTERS])[0]] for text in every}


def _known(name: str) -> str | None:
    """Give Lusifer's code of a language of py3langid; None if it is no language (zxx)."""
    try:
        return _code(name)
    except UsageError:
        return None
