"""What SQL lets pass as a cell in its column's form, Python's closer look finds in that form, too."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from typing import Any, List

import pytest

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
SIGNS = "0123456789abfAF-:T.+ Z\n\0x٣"


def mutated(choose: random.Random, value: Any) -> Any:
    """The value with digits changed, or with signs replaced, added or taken out; or another value altogether."""
    text = str(value)
    way = choose.randrange(5)
    if way == 0:
        return choose.choice([value, 2, 1.5, b"\x00", float("inf"), ""])
    if way < 3:
        digits = [i for i, found in enumerate(text) if found.isdigit()]
        edits = [(choose.choice(digits), 1, choose.choice("0123456789")) for _ in range(way)]
    else:
        edits = [
            (
                choose.randint(0, len(text)),
                choose.randint(0, 2),
                "".join(choose.choices(SIGNS, k=choose.randrange(3))),
            )
            for _ in range(choose.randint(1, 3))
        ]
    return _edited(text, edits)


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

        choose = random.Random(kind)
        for _ in range(5000):
            value = mutated(choose, choose.choice(PLAIN[kind]))
            (found,) = database.execute(sql, (value,)).fetchone()
            assert found or judge(value) is None, value
