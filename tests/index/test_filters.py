"""A filter is read to its end: what is no condition is refused, and what is one takes bounded room and time."""

from __future__ import annotations

import threading

import lancedb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lusifer.errors import UsageError
from lusifer.index.disk.filters import FUNCTIONS, MOST, condition

ROWS = {
    "id": ["a", "b", "c"],
    "lang": ["de", "en", "de"],
    "year": [1999, 2005, 2020],
    "Two words": ["x", "y", None],
    "open": [True, False, None],
    "price": [1.5, 2.5, None],
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return lancedb.connect(tmp_path_factory.mktemp("filters")).create_table("documents", pa.table(ROWS))


def found(table, where: str) -> str:
    return "".join(table.search().where(condition(where)).select(["id"]).to_arrow()["id"].to_pylist())


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("lang = 'de' AND year > 2000", "c"),
        ("lang == 'de'", "ac"),
        ("`Two words` <> 'x' or open", "ab"),
        ("NOT (year < 2000 OR lang = 'en')", "c"),
        ("open IS NOT TRUE", "bc"),
        ("price IS NULL", "c"),
        ("price > - -1.6", "b"),
        ("price >= -.5e1", "ab"),
        ("year IN (1999, 2004 + 1)", "ab"),
        ("lang NOT IN ('de', 'it''s')", "b"),
        ("year not between 2000 AND 2010", "ac"),
        ("lang NOT LIKE 'd%'", "b"),
        ("CAST(year AS string) = '1999'", "a"),
        ("lower(lang) = 'de' AND length(lang) = 2", "ac"),
        ("now() > DATE '2024-01-01'", "abc"),
        ("lang = '-- no comment; AND year = (' OR year % 5 = 0", "bc"),
    ],
)
def test_conditions_let_through_what_they_say(table, where, ids):
    assert found(table, where) == ids


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("lang='de' nonsense", r"nonsense does not belong here \(character 11\)"),
        ("lang='de' lang='en'", r"lang does not belong here"),
        ("lang='de'; DROP TABLE x", r"cannot be read from '; DROP TABLE x' on \(character 10\)"),
        ("lang = 'de') AND (id = 'a'", r"\) does not belong here \(character 12\)"),
        ("lang='de' -- AND id = 'a'", "a value is missing before AND"),
        ("lang='de' /* x */", r"left over|missing before"),
        ("lang='de' LIMIT 0", "LIMIT does not belong here"),
        ("lang = 'de", "cannot be read from .*: put names in backticks, texts in single quotes"),
        ("\"lang\" = 'de'", "put names in backticks"),
        ("length(lpad('a', 2147483647)) > 0", r"lpad\(...\) is not allowed: use one of abs, ceil"),
        ("id IN (SELECT id FROM documents)", "is missing before id"),
        ("CAST(lang AS blob) = 1", "CAST to blob: give one of bigint"),
        ("year >", r"a value is missing at the end \(character 7\)"),
        ("lang NOT 'de'", "NOT must be followed by LIKE, IN or BETWEEN"),
        ("lang IS 'de'", "IS must be followed by NULL"),
        ("(year = 1", r"\) is missing before the end"),
        ("year BETWEEN 1 OR 2", "AND is missing before OR"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_place(where, said):
    with pytest.raises(UsageError, match=f"^filter .*{said}.*: give an SQL condition on the fields, such as: "):
        condition(where)


@pytest.mark.parametrize(
    "where",
    [
        "+".join(["1"] * 1_500) + " > 0",
        " OR ".join(["open"] * 50_000),
        " OR ".join(["open"] * 2_000),
        "(" * 40 + "open" + ")" * 40,
        "NOT " * 40 + "open",
        "year > " + "- " * 40 + "1",
        "year IN (" + ", ".join(map(str, range(11_000))) + ")",
        "lower(" * 40 + "lang" + ")" * 40,
        "x" * 200_000,
    ],
)
def test_what_would_take_the_stack_is_refused_in_a_short_line(where):
    with pytest.raises(UsageError) as error:
        condition(where)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (" OR ".join(["lang = 'de'"] * MOST["joined"]), "ac"),
        ("+".join(["1"] * MOST["computed"]) + " > 0", "abc"),
        ("(" * 31 + "NOT open" + ")" * 31, "b"),
        ("lower(" * 31 + "lang" + ")" * 31 + " = 'de'", "ac"),
        ("year IN (" + ", ".join(map(str, range(MOST["listed"]))) + ")", "abc"),
        (" AND ".join(["(" * 20 + "year > 1 OR year < 0" + ")" * 20] * 400), "abc"),
    ],
)
def test_the_largest_conditions_run_in_a_thread_of_the_server(table, where, ids):
    """A thread has a smaller stack than the process; what overflows it ends the process."""
    came: list[str] = []
    thread = threading.Thread(target=lambda: came.append(found(table, where)))
    thread.start()
    thread.join()
    assert came == [ids]


WORDS = [
    "lang",
    "year",
    "`Two words`",
    "open",
    "'de'",
    "'",
    "1",
    "-",
    "+",
    "=",
    "<>",
    "(",
    ")",
    ",",
    "AND",
    "OR",
    "NOT",
]
WORDS += ["IN", "LIKE", "BETWEEN", "IS", "NULL", "CAST", "AS", "string", ";", "--", "/*", '"', "%", *sorted(FUNCTIONS)]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), st.text(max_size=40)))
def test_any_words_are_a_condition_or_refused(table, where):
    try:
        read = condition(where)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    assert read.split() == condition(read).split()
    try:
        table.search().where(read).select(["id"]).to_arrow()
    except (ValueError, RuntimeError, OSError) as error:  # types that do not fit, or a field that is not there
        assert "panic" not in str(error).lower()
