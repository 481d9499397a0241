"""What SQL lets pass as a cell in its column's form, Python's closer look finds in that form, too."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration.validation import forms

CLOCKS = ["00:00:00", "23:59:59", "12:30:00.000001"]
DATES = ["2024-02-29", "1999-12-31", "0001-01-01"]
MOMENTS = [date + "T" + clock for date in DATES for clock in CLOCKS]
PLAIN = {
    "uuid": ["0123abcd-89ef-4000-8000-0123456789ab"],
    "boolean": [0, 1],
    "integer": [-1, 2**53],
    "numeric": [1.5, -3],
    "date": DATES,
    "time": CLOCKS,
    "timetz": ["23:59:59+01:00"],
    "timestamp": MOMENTS,
    "timestamptz": [moment + "+00:00" for moment in MOMENTS],
}
assert set(PLAIN) == set(forms.BY_KIND)


def mutated(value: Any) -> "st.SearchStrategy[Any]":
    """The value with digits changed, or with signs replaced, added or taken out; or another value altogether."""
    text = str(value)
    sign = st.sampled_from("0123456789abfAF-:T.+ Z\n\0x٣")
    digits = [i for i, found in enumerate(text) if found.isdigit()]
    digit = st.tuples(st.sampled_from(digits), st.just(1), st.sampled_from("0123456789"))
    edit = st.tuples(st.integers(0, len(text)), st.integers(0, 2), st.text(sign, max_size=2))
    return st.one_of(
        st.lists(digit, min_size=1, max_size=2).map(lambda edits: _edited(text, edits)),
        st.lists(edit, max_size=3).map(lambda edits: _edited(text, edits)),
        st.sampled_from([value, 2, 1.5, b"\x00", float("inf"), ""]),
    )


def _edited(text: str, edits: List[Any]) -> str:
    for start, length, new in edits:
        text = text[:start] + new + text[start + length :]
    return text


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_what_sql_lets_pass_is_in_its_form(kind: str) -> None:
    suspicious, judge = forms.BY_KIND[kind]
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        sql = "SELECT " + suspicious.format("?1")
        for value in PLAIN[kind]:
            # or every row is looked at by Python
            assert database.execute(sql, (value,)).fetchone() == (0,), value
            assert judge(value) is None

        @settings(max_examples=500, deadline=None, derandomize=True, database=None)
        @given(st.sampled_from(PLAIN[kind]).flatmap(mutated))
        def check(value: Any) -> None:
            (found,) = database.execute(sql, (value,)).fetchone()
            assert found or judge(value) is None, value

        check()
