"""SQL with which SQLite writes its rows as PostgreSQL's JSON records: the import in reverse.

Rows that give exactly the bytes of their records equal them in every cell. If the bytes differ, which may have a
harmless reason, ``equality`` compares each cell.
"""

from __future__ import annotations

import json
import re
from typing import List, Optional, Sequence

from migration.conversion import STRUCTURED, affinity
from migration.model import Column, Family, Kind, assert_never
from migration.sql import quote
from migration.sqlite.mapping import TableMapping

MANY = 90  # columns; SQLite's functions take a hundred arguments
WRONG = "'!'"  # never part of a record: makes the comparison fail


def rendered(
    mapped: TableMapping, columns: Sequence[Column], owner: Optional[str], user_id: str
) -> Optional[str]:
    """SQL expression: a row of the table as ``row_to_json`` writes it; None if SQLite lacks one of the columns.

    ``owner``: the column that holds ``user_id`` in every record, and that SQLite does not have.
    """
    places = {pair.source.name: pair for pair in mapped.copied}
    if len(columns) > MANY or any(column.kind == Kind.UNDECLARED for column in columns):
        return None
    parts: List[str] = []
    values: List[str] = []
    form = "{"
    for number, column in enumerate(columns):
        form += (',"%s":' if number else '"%s":') % column.name.replace("%", "%%")
        if column.name == owner:
            value = _text(user_id if column.kind == Kind.INTEGER else json.dumps(user_id, ensure_ascii=False))
        elif column.name in places:
            pair = places[column.name]
            value = _value(column, quote(pair.target.name), affinity(pair.target.type))
        else:
            return None
        if column.kind in STRUCTURED:  # joined, not formatted: a format ends at a NUL
            parts += [_formatted(form, values), value]
            form, values = "", []
        else:
            form += "%s"
            values.append(value)
    parts.append(_formatted(form + "}", values))
    return " || ".join(parts)


def _formatted(form: str, values: Sequence[str]) -> str:
    return "printf(%s)" % ", ".join([_text(form), *values])


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _value(column: Column, name: str, target: str) -> str:
    """SQL expression: a cell as JSON; WRONG for a cell of another type than is expected."""
    kind, family = column.kind, column.kind.family
    if family is Family.JSON or family is Family.STRUCTURE:
        absent, present = (
            (WRONG, "") if column.not_null and family is Family.JSON else ("'null'", " AND {0} <> 'null'")
        )
        form = (
            "CASE WHEN typeof({0}) = 'text'"
            + present
            + " THEN {0} WHEN {0} IS NULL THEN "
            + absent
            + " ELSE {1} END"
        )
    elif kind is Kind.BOOLEAN:
        form = "CASE WHEN typeof({0}) = 'integer' THEN CASE {0} WHEN 1 THEN 'true' WHEN 0 THEN 'false' ELSE {1} END ELSE json_quote({0}) END"
    elif family is Family.MOMENT:
        # PostgreSQL drops trailing zeros of a fraction, our SQLite form keeps six digits; other forms are compared by cell
        forms = ["WHEN %s THEN json_quote(%s)" % form for form in _MOMENTS.get(kind, ())]
        form = "CASE " + " ".join(forms) + " ELSE CASE WHEN {0} IS NULL THEN 'null' ELSE {1} END END"
        form = form if forms else WRONG
    elif family is Family.NUMBER:
        scale = _scale(column)
        digits = "json_quote({0})" if scale is None else "printf('%%.%df', {0})" % scale
        # only if the printed digits round-trip
        form = "CASE WHEN typeof({0}) = 'real' AND CAST(%s AS REAL) = {0} THEN %s" % (digits, digits)
        form += " WHEN {0} IS NULL THEN 'null' ELSE {1} END"
    elif family is Family.BINARY and target == "BLOB":
        form = "CASE typeof({0}) WHEN 'blob' THEN '\"\\\\x' || lower(hex({0})) || '\"' WHEN 'null' THEN 'null' ELSE {1} END"
    elif (
        family is Family.WHOLE
        or family is Family.TEXT
        or family is Family.BINARY
        or family is Family.UNDECLARED
    ):
        form = "json_quote({0})"
    else:
        assert_never(family)
    return form.format(name, WRONG)


_CUT = "rtrim({0}, '0')"
_DIGIT = "substr({0}, %d, 1) BETWEEN '0' AND '9'"
_MOMENTS = {  # kind → (condition on the cell's form, the value as PostgreSQL writes it)
    Kind.DATE: (("length({0}) = 10", "{0}"),),
    Kind.TIME: (
        ("length({0}) = 8", "{0}"),
        ("length({0}) = 15 AND substr({0}, 9, 1) = '.' AND " + _DIGIT % 15, _CUT),
    ),
    Kind.TIMESTAMP: (
        ("length({0}) = 19", "{0}"),
        ("length({0}) = 26 AND substr({0}, 20, 1) = '.' AND " + _DIGIT % 26, _CUT),
    ),
    Kind.TIMESTAMPTZ: (
        ("length({0}) = 25", "{0}"),
        (
            "length({0}) = 32 AND substr({0}, 20, 1) = '.' AND substr({0}, 27, 1) = '+'",
            "rtrim(substr({0}, 1, 26), '0') || substr({0}, 27)",
        ),
    ),
}


def _scale(column: Column) -> Optional[int]:
    """Digits after the point of a ``numeric(precision, scale)``."""
    found = re.search(r"\(\d+,(\d+)\)", column.type)
    return None if found is None else int(found[1])
