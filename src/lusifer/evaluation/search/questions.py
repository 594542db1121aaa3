"""A user's own questions: rows of questions with the ids of right documents, and rows of documents.

A row with a question is one: `question`, `right` (an id, or a list of ids; none where nothing answers it: a negative
control), and if there are any `id` and `language`. Any other row is a document: `id`, `text` and, if it is there,
`language`. Where a language is not said it is told by py3langid (extra `languages`).
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
from lusifer.io.files import parse_json, sha256
from lusifer.prompts import check_text

COLUMNS = ("question", "right", "id", "text", "language")
READ_CHARACTERS = 800
"""Of a longer text the beginning is enough to tell its language."""
FEWEST_LETTERS = 30
"""A shorter text is told among the languages of the longer ones."""
RARE = 0.02
"""A language of no larger share of the texts is an error of the identifier."""
FEW, CERTAIN = 100, 0.99
"""Among so few texts one in a language of its own counts where the identifier is so sure."""
TITLE = "own questions"
CLOSE = 0.75
"""Likeness (difflib) from which on a key is a misspelt column: "rigth" is 0.8 like "right", "weight" 0.73."""


class MyQuestions(RankedTask):
    """All documents are searched for the questions in a language; a row a language."""

    title = TITLE
    instruction = "Given a question, find passages that answer it."

    def __init__(self, asked: QuestionSet) -> None:
        super().__init__()
        self._asked = asked

    def load_data(self, **_: Any) -> None:
        """Take the questions of the languages that will be run."""
        self.dataset = {subset: self._asked.of(subset) for subset in self.hf_subsets}
        self.data_loaded = True

    def example_id(self, question: Question) -> str:
        """The id with a digest of the text: most ids are lines, and two files have different questions in one line."""
        return f"{question.id} {hashlib.sha256(question.text.encode()).hexdigest()[:16]}"


def survey(asked: QuestionSet) -> tuple[list[SuiteRow], list[str]]:
    """The rows of a collection, a language each, in the order of the file; and what to say of those that are none.

    A row is cross-lingual where a question needs a document in another language than its own.
    """
    found: list[SuiteRow] = []
    notes: list[str] = []
    documents, places = asked.searched.documents, asked.searched.places
    for code in dict.fromkeys(each.language for each in asked.questions):
        own = asked.of(code).questions
        if not any(each.right for each in own):
            words = f"{len(own):,} in {code} left out: no question in it has a right document to compare with"
            notes.append(f"negative controls: {words}")
            continue
        across = any(documents[places[id]].language not in (code, UNKNOWN) for each in own for id in each.right)
        cost = len(own) + (len(asked.searched.texts[0]) if asked.searched.vectors is None else 0)
        found.append(replace(MyQuestions.row(code), cross_lingual=across and code != UNKNOWN, cost=cost))
    return found, notes


@dataclass(frozen=True)
class _OwnRow:
    """One of both; of a CSV question `cell` is what spells its right documents."""

    where: str
    question: Question | None = None
    document: SearchedDocument | None = None
    cell: str | None = None

    def asked(self, places: Collection[str]) -> Question | None:
        """The question with its right documents, among the ids that there are."""
        if self.question is None or self.cell is None:
            return self.question
        return replace(self.question, right=_right(_spelled(self.cell, places), self.where))


def read(file: Path, documents: Path | Searched | None = None) -> tuple[QuestionSet, dict[str, str], list[str]]:
    """Read questions and documents.

    Args:
        file: Rows of questions, and of documents unless those come from elsewhere.
        documents: Another file of documents, or documents as they are.

    Returns:
        The collection; SHA-256 of what was read, by name; and what to say of it.

    Raises:
        DataError: A row is malformed, an id stands there twice or belongs to no document, or there is nothing to ask
            or to search.
    """
    found = _rows(file)
    own = [(row.where, row.document) for row in found if row.document is not None]
    digests = {file.name: sha256(file)}
    if documents is None:
        given = Searched(_distinct(own))
    elif own:
        words = "is a document, and --documents names others: take it out, or leave --documents away"
        raise DataError(f"{own[0][0]}: a row without `question` {words}")
    else:
        given = documents if isinstance(documents, Searched) else _of_file(documents)
        digests |= {name if name not in digests else f"documents: {name}": each for name, each in given.digests.items()}
    questions = [(row.where, asked) for row in found if (asked := row.asked(given.places)) is not None]
    if not questions:
        raise DataError(f"{file}: no question in it: add rows with `question` and `right`, the ids of its documents")
    if len(given.documents) < 2:
        many = "one document" if given.documents else "no document"
        how = "give rows with `id` and `text`, two or more, or name them with --documents"
        raise DataError(f"{file}: {many} to search, and any model would find it: {how}")
    asked = _distinct(questions)
    _refuse_lost(found, questions, given.places)
    bare = [where for where, each in questions if not each.right]
    if len(bare) == len(questions):
        raise DataError(f"{file}: no question has a right document, so nothing can be scored: fill `right` of some")
    asked, searched, notes = _with_languages(asked, given.documents)
    if bare:
        many = "1 question has" if len(bare) == 1 else f"{len(bare):,} questions have"
        count = "counts as a negative control" if len(bare) == 1 else "count as negative controls"
        notes = [f"{many} no `right` and {count}: the first is {bare[0]}", *notes]
    return QuestionSet(asked, replace(given, documents=searched)), digests, [*given.notes, *notes]


def _refuse_lost(found: Iterable[_OwnRow], questions: Iterable[tuple[str, Question]], places: Collection[str]) -> None:
    """Refuse a right document that is not there."""
    cells = {row.where: row.cell for row in found if row.cell is not None}
    for where, each in questions:
        lost = next((id for id in each.right if id not in places), None)
        if lost is not None:
            mend = "correct it, or add the document"
            if "|" not in cells.get(where, "|") and len(each.right) > 1:
                mend = f"the cell was split at spaces; put | between ids that have some, else {mend}"
            raise DataError(f"{where}: right: no document has the id {lost!r}: {mend}")


def _of_file(file: Path) -> Searched:
    """The documents of a file."""
    found = _rows(file)
    asked = next((row for row in found if row.question is not None), None)
    if asked is not None:
        raise DataError(f"{asked.where}: a question among the documents: name its file with --data")
    return Searched(_distinct((row.where, row.document) for row in found), digests={file.name: sha256(file)})


def _distinct(found: Iterable[tuple[str, Any]]) -> tuple[Any, ...]:
    """Questions or documents, refused where two have one id."""
    first: dict[str, str] = {}
    kept = []
    for where, each in found:
        if each.id in first:
            raise DataError(f"{where}: id {each.id!r} stands at {first[each.id]} already: give each row its own")
        first[each.id] = where
        kept.append(each)
    return tuple(kept)


def _rows(file: Path) -> list[_OwnRow]:
    form = rows.ending(file).removesuffix(".gz")
    return [*rows.read(file, lambda row, where: _checked(row, where, form), columns=COLUMNS)]


def _checked(row: Any, where: str, form: str) -> _OwnRow:
    """A row as a question or a document, its language "" where it is not said."""
    rows.refuse_no_object(row, where)
    there = {name: value for name in COLUMNS if (value := row.get(name)) is not None}
    if form in (".csv", ".parquet"):  # every row of a table has every column
        there = {name: value for name, value in there.items() if not isinstance(value, str) or value.strip()}
    language = code_of(there.get("language"), where)
    if "question" in there:
        if "text" in there:
            raise DataError(f"{where}: `question` and `text`: a row is a question or a document: make two rows of it")
        id = _id(there["id"], f"{where}: id") if "id" in there else " ".join(where.split(" ")[-2:])
        text = check_text(there["question"], f"{where}: question")
        _refuse_misspelt(row, where)
        if form == ".csv":  # what a cell says depends on the ids that there are
            return _OwnRow(where, question=Question(id, text, language), cell=there.get("right"))
        return _OwnRow(where, question=Question(id, text, language, _right(there.get("right"), where)))
    if "right" in there:
        raise DataError(f"{where}: `right` without a `question`: fill `question`, or take `right` out")
    for name in ("text", "id"):
        if name not in there:
            found = ", ".join(map(str, there)) or "nothing"
            words = f"no `{name}` (found {found}): a question has `question` and `right`, a document `id` and `text`"
            raise DataError(f"{where}: {words}")
    id, text = _id(there["id"], f"{where}: id"), check_text(there["text"], f"{where}: text")
    return _OwnRow(where, document=SearchedDocument(id, text, language))


def _id(value: Any, where: str) -> str:
    """An id as a text: a text or a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where} is {reprlib.repr(value)}: an id is a text or a whole number")
    return check_text(str(value), where).strip()


def _refuse_misspelt(row: Mapping[str, Any], where: str) -> None:
    """Refuse a key that is almost one of ours where ours is not there; other keys are the user's own."""
    for key in row.keys() - set(COLUMNS):
        plain = str(key).strip().lower()
        near = ["id"] if plain == "id" else difflib.get_close_matches(plain, ("right", "language"), 1, CLOSE)
        if near and near[0] not in row:
            words = f"key {key!r} is not known, and looks like {near[0]!r}, which is not there"
            raise DataError(f"{where}: {words}: call it {near[0]!r}, or something else")


def _spelled(cell: str, places: Collection[str]) -> Any:
    """What a cell of CSV says: the id of a document, a JSON list of ids, or ids with | or spaces between."""
    if cell.strip() in places:
        return [cell]
    if cell.lstrip().startswith("["):
        with suppress(ValueError):  # an id may begin like that as well
            return parse_json(cell.encode("utf-8", "surrogatepass"))
    return [part for part in (cell.split("|") if "|" in cell else cell.split()) if part.strip()]


def _right(value: Any, where: str) -> tuple[str, ...]:
    """The ids of right documents: one, or a list."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    ids = tuple(_id(each, f"{where}: right") for each in (value if isinstance(value, list | tuple) else [value]))
    twice = next((id for id, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{where}: right: {twice!r} stands there twice: name each document once")
    return ids


@cache
def _code(given: str) -> str:
    return languages.language(given).code


def code_of(value: Any, where: str) -> str:
    """The code of a language as it is in tables; "" where none is given."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: language is {reprlib.repr(value)}: give a code such as en")
    if value.strip().lower() == UNKNOWN:
        return UNKNOWN
    try:
        return _code(value)
    except UsageError as error:
        raise DataError(f"{where}: {error}; or leave it empty") from None


def _with_languages(
    questions: Sequence[Question], documents: Sequence[SearchedDocument]
) -> tuple[tuple[Question, ...], tuple[SearchedDocument, ...], list[str]]:
    """The same with the languages that nobody gave, and a note on them."""
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
        note = f"{many}, and are of none: fill it, or install what tells it: pip install 'lusifer[languages]'"
    else:
        words = ", ".join(f"{code} {count:,}" for code, count in counts.most_common())
        note = f"{many}; it was told by py3langid, which short texts mislead: {words}"
    return tuple(made[: len(questions)]), tuple(made[len(questions) :]), [note]


def identify(groups: Sequence[Sequence[str]], given: Collection[str] = ()) -> dict[str, str]:
    """Tell the languages of texts; `UNKNOWN` where none of the identifier's is one of ours.

    The longer texts of each group are told among all languages. Those that are found more than now and then, or for
    certain, and the `given` ones are what every text is then told among: a question of three words looks like many.

    Returns:
        Text -> code.

    Raises:
        MissingExtraError: py3langid is not installed.
    """
    langid = extras.need("languages", f"{extras.IDENTIFIER}.langid")
    # One of its own, not that of `serving.guard`: it will be told to know some languages alone.
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
    """A language of the identifier by our code; None where it is none (zxx)."""
    try:
        return _code(name)
    except UsageError:
        return None
